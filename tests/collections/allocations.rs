//! The allocator by itself: where growing leaves data, odd layouts, want of memory, threads, lifetimes.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::mpsc;

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box as UnifiedMemoryBox;
use limosa::{
    BLOCK, CHUNK, Error, Home, HostAddr, HostRange, PagerError, Priority, ResidencySummary, Side, UnifiedAllocator,
};

use crate::common::failure::{Kit, MIB, turn};
use crate::common::moves::counted;
use crate::common::views::{ALL, DECLARED, FAULTING};
use crate::common::{builder, context};
use crate::{Words, count_to, is_counted, moved, words};

/// Words in one MiB.
const MIB_WORDS: usize = 256 << 10;

#[test]
fn what_is_on_the_device_grows_and_shrinks_there() {
    for way in ALL {
        let _turn = turn(&format!("growth, {way:?}"));
        let Some(kit) = way.kit("growth", builder()) else { continue };
        let allocator = kit.heap().allocator();
        let mut grown = words(&allocator, MIB_WORDS);
        // What comes behind it does not come into its way.
        let (other, theirs) = (kit.heap().vec_zeroed::<u32>(MIB_WORDS).unwrap(), words(&allocator, MIB_WORDS));
        allocator.prefetch_to_device().unwrap();
        let (address, device) = (grown.as_ptr(), 2 * MIB);
        let resizing = counted(&kit, || {
            for times in [2, 4, 8] {
                grown.reserve_exact(times * MIB_WORDS - grown.len());
                let zero = (times as u64 - 1) * MIB;
                let expected = ResidencySummary { device, zero, ..ResidencySummary::default() };
                assert_eq!((grown.as_ptr(), allocator.residency_summary()), (address, expected), "{way:?}, {times}");
            }
            grown.shrink_to(2 * MIB_WORDS);
            assert_eq!(allocator.residency_summary().zero, MIB, "{way:?}: what is cut off is freed");
        });
        assert_eq!((moved(&resizing), grown.as_ptr()), (0, address), "{way:?}");
        assert_eq!(resizing.cpu_read_faults + resizing.cpu_write_faults, 0, "{way:?}");
        count_to(&mut grown, 2 * MIB_WORDS);
        assert!(is_counted(&grown) && is_counted(&theirs) && other.read().unwrap()[7] == 0, "{way:?}");
    }
}

#[test]
fn what_grows_and_shrinks_keeps_its_name_priority_and_limit() {
    for way in ALL {
        let _turn = turn(&format!("growth of what is named, {way:?}"));
        let Some(kit) = way.kit("growth of what is named", builder()) else { continue };
        let allocator = kit.heap().named("words").with_priority(Priority::High).with_device_limit(4 * MIB).allocator();
        let mut grown = words(&allocator, 2 * MIB_WORDS);
        let start = grown.as_ptr() as u64;
        let listed = || kit.heap().allocations().into_iter().find(|one| one.range.start.0 == start).unwrap();
        allocator.prefetch_to_device().unwrap();
        let prefetched = listed().counters.blocks_prefetched;
        grown.reserve_exact(6 * MIB_WORDS);
        assert_eq!(grown.as_ptr() as u64, start, "{way:?}");
        assert_eq!((listed().range.len, listed().counters.blocks_prefetched), (8 * MIB, prefetched), "{way:?}");
        count_to(&mut grown, 8 * MIB_WORDS);
        let last = kit.heap().allocations().into_iter().find(|one| one.range.start.0 == start).unwrap();
        assert_eq!((last.name.as_deref(), last.priority), (Some("words"), Priority::High), "{way:?}");
        let over = allocator.prefetch_to_device().unwrap_err().to_string();
        assert!(over.contains("words") && listed().residency.device <= 4 * MIB, "{way:?}: {over}");
        // What is cut off counts no more, and what comes again does.
        for _ in 0..3 {
            grown.truncate(3 * MIB_WORDS);
            grown.shrink_to_fit();
            assert_eq!(listed().range.len, 3 * MIB, "{way:?}");
            allocator.prefetch_to_device().unwrap();
            assert_eq!(listed().residency.device, 3 * MIB, "{way:?}");
            grown.reserve_exact(3 * MIB_WORDS);
            if grown.as_ptr() as u64 != start {
                // Its room was given up, so it has moved, and is another allocation.
                break;
            }
            assert!(allocator.prefetch_to_device().is_err(), "{way:?}");
            count_to(&mut grown, 6 * MIB_WORDS);
            assert!(listed().residency.device <= 4 * MIB && is_counted(&grown), "{way:?}");
        }
        drop(grown);
        assert!(kit.heap().allocations().iter().all(|one| one.range.start.0 != start), "{way:?}");
    }
}

#[test]
fn a_limit_holds_for_what_has_grown_within_a_chunk() {
    let _turn = turn("growth within a chunk");
    let Some(kit) = DECLARED.kit("growth within a chunk", builder()) else { return };
    let allocator = kit.heap().with_device_limit(MIB).allocator();
    let mut grown = words(&allocator, MIB_WORDS);
    let start = grown.as_ptr() as u64;
    grown.reserve_exact(MIB_WORDS);
    assert_eq!(grown.as_ptr() as u64, start);
    count_to(&mut grown, 2 * MIB_WORDS);
    let piece = |at: u64| HostRange { start: HostAddr(start + at * BLOCK), len: 8 * BLOCK };
    for at in [0, 24, 8, 16, 4] {
        kit.heap().prefetch_batch(Side::Device, &[piece(at)]).unwrap();
        let device = allocator.residency_summary().device;
        assert!((8 * BLOCK..=MIB).contains(&device), "{device}");
    }
    assert!(is_counted(&grown));
}

#[test]
fn a_vector_that_grows_step_by_step_is_copied_only_below_its_room() {
    let _turn = turn("steps");
    let Some(kit) = FAULTING.kit("steps", builder()) else { return };
    let allocator = kit.heap().allocator();
    let mut grown = Words::new_in(allocator.clone());
    let mut places = std::collections::BTreeMap::new();
    for i in 0..16 * MIB_WORDS {
        grown.push(u32::try_from(i).unwrap());
        if grown.capacity() >= MIB_WORDS {
            places.entry(grown.as_ptr()).or_insert(i);
        }
    }
    assert!(is_counted(&grown));
    assert_eq!(places.len(), 1, "{places:?}");
}

#[test]
fn where_there_is_no_room_left_growth_is_a_copy() {
    let _turn = turn("no room");
    let Some(kit) = Kit::new("no room", builder().heap_size(32 * MIB)) else { return };
    let allocator = kit.heap().allocator();
    let mut grown = words(&allocator, MIB_WORDS);
    // Takes what is free, and then what was kept.
    let others: Vec<_> = std::iter::from_fn(|| kit.heap().vec_zeroed::<u32>(MIB_WORDS).ok()).collect();
    assert!(others.len() >= 29, "room yields: {}", others.len());
    grown.try_reserve_exact(1).unwrap_err();
    assert!(matches!(allocator.take_failure(), Some(Error::Pager(PagerError::HeapFull { .. }))));
    drop(others);
    let before = grown.as_ptr();
    let blockade = kit.heap().vec_zeroed::<u32>(MIB_WORDS).unwrap();
    assert_eq!(blockade.ptr(0).as_ptr().cast_const(), before.wrapping_add(MIB_WORDS), "right behind it");
    grown.reserve_exact(MIB_WORDS);
    assert_ne!(grown.as_ptr(), before);
    assert!(is_counted(&grown));
}

/// Allocates, writes, checks and frees.
fn try_layout(allocator: &UnifiedAllocator, size: usize, align: usize) {
    let layout = Layout::from_size_align(size, align).unwrap();
    let memory = allocator.allocate_zeroed(layout).unwrap();
    let (first, len) = (memory.cast::<u8>(), memory.len());
    assert!(len >= size && (first.as_ptr() as usize).is_multiple_of(align), "{layout:?}");
    // SAFETY: fresh memory of this size.
    let bytes = unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), size) };
    assert!(bytes.iter().all(|byte| *byte == 0), "{layout:?}");
    bytes.fill(0xA5);
    assert_eq!(allocator.allocation_of(first.as_ptr() as u64).is_some(), size > 0, "{layout:?}");
    // SAFETY: allocated above with this layout.
    unsafe { allocator.deallocate(first, layout) };
}

#[test]
fn layouts_of_all_kinds() {
    let _turn = turn("layouts");
    let Some(kit) = FAULTING.kit("layouts", builder()) else { return };
    for home in [Home::Migrating, Home::Shared] {
        let allocator = kit.heap().in_home(home).allocator();
        for size in [0, 1, 15, 16, 17, 4096, 32_769, 65_535, 65_536, 65_537, 3 << 20] {
            for align in [1, 16, 4096, 32_768, 65_536, 2 << 20] {
                // Twice, so that the second has what the first left.
                try_layout(&allocator, size, align);
                try_layout(&allocator, size, align);
            }
        }
        let refused = Layout::from_size_align(1, 4 << 20).unwrap();
        allocator.allocate(refused).unwrap_err();
        assert!(matches!(allocator.take_failure(), Some(Error::Pager(PagerError::Alignment(_)))));
        assert!(allocator.take_failure().is_none(), "asking takes it");
        let units: allocator_api2::vec::Vec<(), _> = std::iter::repeat_n((), 1000).collect_in(&allocator);
        assert_eq!(units.len(), 1000);
        assert_eq!(allocator.residency_summary(), ResidencySummary::default());
    }
}

trait CollectIn: Iterator + Sized {
    fn collect_in(self, allocator: &UnifiedAllocator) -> allocator_api2::vec::Vec<Self::Item, UnifiedAllocator> {
        let mut all = allocator_api2::vec::Vec::new_in(allocator.clone());
        all.extend(self);
        all
    }
}
impl<I: Iterator> CollectIn for I {}

/// No zero.
fn pattern(index: usize) -> u8 {
    u8::try_from(index % 251).unwrap() + 1
}

#[test]
fn resizing_keeps_contents_across_all_boundaries() {
    let _turn = turn("resizing");
    let Some(kit) = FAULTING.kit("resizing", builder()) else { return };
    let sizes = [0, 3, 16, 40, 33_000, 65_536, 70_000, 1 << 20, 5 << 20, 2 << 20, 65_537, 60_000, 17, 0];
    for home in [Home::Migrating, Home::Shared] {
        let allocator = kit.heap().in_home(home).allocator();
        let mut memory: NonNull<[u8]> = allocator.allocate(Layout::new::<()>()).unwrap();
        for pair in sizes.windows(2) {
            let (old, new) = (Layout::array::<u8>(pair[0]).unwrap(), Layout::array::<u8>(pair[1]).unwrap());
            let grows = new.size() > old.size();
            // SAFETY: allocated with the layout before, which is shorter or longer.
            memory = unsafe {
                if grows {
                    allocator.grow_zeroed(memory.cast(), old, new)
                } else {
                    allocator.shrink(memory.cast(), old, new)
                }
            }
            .unwrap();
            // SAFETY: this long, written or zeroed all of it.
            let bytes = unsafe { std::slice::from_raw_parts_mut(memory.cast::<u8>().as_ptr(), new.size()) };
            let kept = old.size().min(new.size());
            assert!(bytes[..kept].iter().enumerate().all(|(i, byte)| *byte == pattern(i)), "{pair:?}");
            assert!(bytes[kept..].iter().all(|byte| *byte == 0), "{pair:?}: what is new is zeros");
            bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = pattern(i));
        }
        assert_eq!(allocator.residency_summary(), ResidencySummary::default());
    }
}

#[test]
fn want_of_memory_is_an_error_with_a_reason() {
    let _turn = turn("want");
    let Some(kit) = Kit::new("want", builder().host_limit(16 * MIB)) else { return };
    let allocator = kit.heap().allocator();
    let mut first = words(&allocator, 2 * MIB_WORDS);
    first.try_reserve_exact(32 * MIB_WORDS).unwrap_err();
    let reason = allocator.take_failure().unwrap();
    assert!(reason.is_out_of_memory(), "{reason}");
    assert!(is_counted(&first));
    // Small ones come by the chunk.
    let mut small: Vec<UnifiedMemoryBox<[u64; 512], _>> = Vec::new();
    while let Ok(one) = UnifiedMemoryBox::try_new_in([7; 512], allocator.clone()) {
        small.push(one);
    }
    assert!(allocator.take_failure().unwrap().is_out_of_memory());
    assert_eq!(small.len() as u64, 7 * CHUNK / 4096, "all chunks but that of the first");
    assert!(small.iter().all(|one| one.iter().all(|word| *word == 7)));
    drop(small);
    first.try_reserve_exact(4 * MIB_WORDS).unwrap();
    assert!(is_counted(&first));
}

#[test]
fn any_thread_frees_what_any_other_allocated() {
    let _turn = turn("threads");
    let Some(kit) = FAULTING.kit("threads", builder()) else { return };
    let allocator = kit.heap().allocator();
    let (send, receive) = mpsc::sync_channel::<Words>(16);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (allocator, send) = (allocator.clone(), send.clone());
            scope.spawn(move || {
                for i in 0..100 {
                    send.send(words(&allocator, 1 + (i * 7919 + thread * 31) % 40_000)).unwrap();
                }
            });
        }
        drop(send);
        let mut kept = Vec::new();
        for mut one in &receive {
            let len = one.len() + 3000;
            count_to(&mut one, len);
            assert!(is_counted(&one));
            kept.push(one);
            if kept.len() > 20 {
                kept.swap_remove(kept[0].len() % 20);
            }
        }
        assert!(kept.iter().all(is_counted));
    });
    assert_eq!(allocator.residency_summary(), ResidencySummary::default());
}

#[test]
fn collections_outlive_the_context() {
    let _turn = turn("outlive");
    let Some(context) = context("outlive", builder()) else { return };
    let mut outliving = words(&context.heap().allocator(), MIB_WORDS);
    drop(context);
    count_to(&mut outliving, 2 * MIB_WORDS);
    assert!(is_counted(&outliving));
}

#[test]
fn allocators_share_no_block() {
    let _turn = turn("blocks");
    let Some(kit) = FAULTING.kit("blocks", builder()) else { return };
    let allocators = [kit.heap().allocator(), kit.heap().allocator()];
    let boxes: Vec<_> = (0..200).map(|i| UnifiedMemoryBox::new_in([i; 8], allocators[i % 2].clone())).collect();
    let small = kit.heap().vec_zeroed::<u64>(8).unwrap();
    let block = |address: u64| address / BLOCK;
    let of = |which: usize| {
        let own = boxes.iter().skip(which).step_by(2);
        own.map(|one| block(one.as_ptr() as u64)).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(of(0).is_disjoint(&of(1)));
    assert!(!of(0).contains(&block(small.ptr(0).address())) && !of(1).contains(&block(small.ptr(0).address())));
}
