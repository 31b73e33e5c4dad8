//! Allocations for which there is no room, and such as cannot be.

use limosa::{Error, OsError, PagerError, inject};

use crate::common::builder;
use crate::common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, turn};

/// The error of an allocation for which there is no RAM.
fn out_of_ram(error: &Error, limit: u64) {
    let text = error.to_string();
    assert!(error.is_out_of_memory(), "{text}");
    let Error::Pager(PagerError::Os(OsError::OutOfMemory { what, limit: told, .. })) = error else { panic!("{text}") };
    assert_eq!((*what, *told), ("host memory", limit));
    assert!(text.contains("host memory") && text.contains(&limit.to_string()), "{text}");
    assert!(text.contains("free memory") && text.contains("raise its limit"), "{text}");
}

#[test]
fn a_full_heap_names_its_size_and_what_is_free() {
    let _turn = turn("a full heap");
    let Some(kit) = Kit::new("heap full", builder().heap_size(64 * MIB)) else { return };
    let heap = kit.heap();
    let most = heap.allocate(48 * MIB, 1).unwrap();
    for asked in [17 * MIB, 64 * MIB, 65 * MIB, u64::MAX - BLOCK, u64::MAX] {
        let error = heap.allocate(asked, 1).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(error.is_out_of_memory());
        let Error::Pager(PagerError::HeapFull { heap, asked: told, largest }) = error else { panic!("{text}") };
        assert_eq!((heap, largest), (64 * MIB, 16 * MIB));
        assert!(told >= asked.min(u64::MAX - BLOCK + 1), "{told} of {asked}");
        assert!(text.contains("larger heap") && text.contains(&largest.to_string()), "{text}");
    }
    let rest = heap.allocate(16 * MIB, 1).unwrap();
    assert!(heap.allocate(1, 1).is_err());
    drop((most, rest));
    drop(heap.allocate(64 * MIB, 1).unwrap());
    kit.works();
}

#[test]
fn ram_beyond_the_limit_is_refused_and_the_heap_goes_on() {
    let _turn = turn("out of ram");
    let Some(kit) = Kit::new("out of ram", builder().host_limit(64 * MIB)) else { return };
    let heap = kit.heap();
    for _ in 0..10 {
        let error = heap.vec_zeroed::<u8>(96 << 20).map(|_| ()).unwrap_err();
        out_of_ram(&error, 64 * MIB);
        assert!(heap.host_bytes() <= 64 * MIB, "{}", heap.host_bytes());
        let mut vec = heap.vec_with(32 * 16 * BLOCK_WORDS, |i| u32::try_from(i % 7).unwrap()).unwrap();
        let expected: u64 = vec.read().unwrap().iter().map(|word| u64::from(*word)).sum();
        assert_eq!(kit.sum(&vec).unwrap(), expected);
        vec.write().unwrap()[0] = 9;
        assert_eq!(kit.sum(&vec).unwrap(), expected + 9);
    }
}

#[test]
fn freed_ram_is_there_for_the_next_allocation_wherever_it_lies() {
    let _turn = turn("freed ram");
    let Some(kit) = Kit::new("freed ram", builder().host_limit(64 * MIB)) else { return };
    let heap = kit.heap();
    let first = heap.allocate(32 * MIB, 1).unwrap();
    let wall = heap.allocate(2 * MIB, 1).unwrap();
    drop(first);
    // Too long for the hole, so it comes to lie elsewhere; 42 of 64 MiB are in use then.
    let second = heap.allocate(40 * MIB, 1).unwrap();
    drop((wall, second));
    // And after a failure, what was reserved in vain.
    assert!(heap.allocate(96 * MIB, 1).is_err());
    let wall = heap.allocate(2 * MIB, 1).unwrap();
    drop(heap.allocate(48 * MIB, 1).unwrap());
    drop(wall);
    kit.works();
}

#[test]
fn a_failing_reservation_is_an_error_and_passes() {
    let _turn = turn("failing reservation");
    let Some(kit) = Kit::new("failing reservation", builder()) else { return };
    let heap = kit.heap();
    let before = heap.vec_with(BLOCK_WORDS, |i| u32::try_from(i).unwrap()).unwrap();
    inject::fail(inject::Call::Reserve);
    for bytes in [32 * MIB, 100 * MIB] {
        out_of_ram(&heap.allocate(bytes, 1).map(|_| ()).unwrap_err(), 2 << 30);
    }
    assert_eq!(before.read().unwrap()[7], 7);
    // VRAM needs frames, too: that fails by name, and nothing is lost.
    let mut new = None;
    for _ in 0..4 {
        // Chunks whose frames are there already must be used up first.
        new = heap.vec_with(BLOCK_WORDS, |_| 1u32).ok().or(new);
    }
    inject::clear();
    let late = heap.vec_with(4 << 20, |i| u32::try_from(i).unwrap()).unwrap();
    inject::fail(inject::Call::Reserve);
    let text = late.prefetch_to_device().unwrap_err().to_string();
    assert!(text.contains("software device memory") && text.contains("raise its limit"), "{text}");
    inject::clear();
    late.prefetch_to_device().unwrap();
    assert!(late.read().unwrap().iter().enumerate().all(|(i, word)| usize::try_from(*word).unwrap() == i));
    kit.works();
}

#[test]
fn failing_maps_are_errors_and_pass() {
    let _turn = turn("failing maps");
    let Some(kit) = Kit::new("failing maps", builder()) else { return };
    let mut vec = kit.heap().vec_with(2 << 20, |i| u32::try_from(i).unwrap()).unwrap();
    let count = vec.len() as u64;
    for call in [inject::Call::Open, inject::Call::OpenChunk, inject::Call::Close] {
        inject::fail(call);
        // One of the two directions needs the call; whichever fails must leave the data as it was.
        let results = [vec.prefetch_to_device(), vec.prefetch_to_host()];
        for error in results.into_iter().filter_map(Result::err) {
            let text = error.to_string();
            let Error::Pager(PagerError::Os(OsError::Mapping { operation, .. })) = error else { panic!("{text}") };
            assert!(text.contains(operation), "{text}");
        }
        inject::clear();
        assert_eq!(kit.sum(&vec).unwrap(), count * (count - 1) / 2, "{call:?}");
        vec.write().unwrap()[0] = 0;
    }
    kit.works();
}

#[test]
fn absurd_lengths_are_too_large() {
    let _turn = turn("absurd lengths");
    let Some(kit) = Kit::new("absurd lengths", builder()) else { return };
    let heap = kit.heap();
    for elements in [usize::MAX, usize::MAX / 2, usize::MAX / 8 + 1] {
        let error = heap.vec_zeroed::<u64>(elements).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::TooLarge { elements: told, size: 8 } if told == elements), "{text}");
        assert!(text.contains(&elements.to_string()) && text.contains("address space"), "{text}");
        assert!(heap.vec_with::<u64>(elements, |_| panic!("no element is made")).is_err());
    }
    let most = usize::try_from(isize::MAX).unwrap();
    let error = heap.vec_zeroed::<u8>(most).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Pager(PagerError::HeapFull { .. })), "{error}");
    kit.works();
}

#[test]
fn bad_alignments_are_named() {
    let _turn = turn("alignments");
    let Some(kit) = Kit::new("alignments", builder()) else { return };
    for align in [0, 3, 12, 4 * MIB, u64::MAX] {
        let error = kit.heap().allocate(64, align).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Pager(PagerError::Alignment(told)) if told == align), "{text}");
        assert!(text.contains(&align.to_string()) && text.contains("power of two"), "{text}");
    }
    for align in [1, 16, 4096, BLOCK, 2 * MIB] {
        assert!(kit.heap().allocate(100, align).unwrap().ptr().address().is_multiple_of(align));
    }
    kit.works();
}

#[test]
fn ranges_beyond_the_end_are_named() {
    let _turn = turn("ranges");
    let Some(kit) = Kit::new("ranges", builder()) else { return };
    let vec = kit.heap().vec_zeroed::<u32>(100).unwrap();
    #[allow(clippy::reversed_empty_ranges)] // on purpose
    for range in [0..101, 101..102, 50..40, 0..usize::MAX, usize::MAX..usize::MAX] {
        let error = vec.prefetch_range(limosa::Side::Device, range.clone()).unwrap_err();
        let text = error.to_string();
        let Error::OutOfRange { start, end, len: 100 } = error else { panic!("{text}") };
        assert_eq!((start, end), (range.start, range.end));
        assert!(text.contains("100"), "{text}");
    }
    let heap = kit.heap();
    let (start, len) = (heap.range().start.0, heap.range().len);
    for (address, bytes) in
        [(start, len + 1), (start + len, 1), (start - 1, 1), (0, 1), (u64::MAX, 1), (start, u64::MAX)]
    {
        for error in [heap.residency(address, bytes).map(|_| ()), heap.repair(address, bytes)] {
            let error = error.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::Pager(PagerError::NotAllocated { .. })), "{text}");
            assert!(text.contains(&format!("{address:#x}")), "{text}");
        }
    }
    kit.works();
}

#[test]
fn nothing_at_all_is_no_error() {
    let _turn = turn("nothing");
    let Some(kit) = Kit::new("nothing", builder()) else { return };
    let heap = kit.heap();
    let mut none = heap.vec_zeroed::<u32>(0).unwrap();
    assert!(none.is_empty() && none.read().unwrap().is_empty() && none.write().unwrap().is_empty());
    assert_eq!(heap.vec_from::<u32>(&[]).unwrap().to_vec().unwrap(), []);
    none.prefetch_to_device().unwrap();
    none.prefetch_to_host().unwrap();
    none.prefetch_range(limosa::Side::Device, 0..0).unwrap();
    let _ = (none.residency(), none.residency_summary());
    kit.fill(&mut none, 1).unwrap().wait().unwrap();
    assert_eq!(kit.sum(&none).unwrap(), 0);
    let sizeless = heap.vec_zeroed::<[u8; 0]>(5).unwrap();
    assert_eq!(sizeless.read().unwrap().len(), 5);

    let mut vec = heap.vec_with(BLOCK_WORDS, |_| 5u32).unwrap();
    for launch in [kit.queue.launch(&kit.fill, 0), kit.queue.launch_groups(&kit.fill, [0; 3])] {
        let launch = launch.args((vec.writes(), BLOCK_WORDS as u64, 6u32, 0u32));
        // SAFETY: fill writes within `vec`; with no invocations it writes nothing.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
        assert!(vec.read().unwrap().iter().all(|word| *word == 5));
    }
    kit.works();
}
