//! Sparse ranges, frames and copies on the software device.
#![allow(clippy::unwrap_used)] // a failing test may panic

mod common;

use std::sync::Arc;

use common::{Kernels, bind, bind_to, blocks, device, frame, unbind};
use limosa_gpu::{Device, Frame, FrameKind, FramePool, GpuError, SparseRange, Stager, Translation};
use limosa_model::{BLOCK, CHUNK, Extent, HostAddr};

/// A CPU address that nothing lies at: kernels must only ever reach it translated.
const HOST: HostAddr = HostAddr(0x10_0000_0000);
const BLOCK_WORDS: u64 = BLOCK / 4;

/// Words of a frame, by the stager.
fn words(stager: &Stager, frame: &Frame, block: u64, count: u64) -> Vec<u32> {
    let mut words = vec![0u32; usize::try_from(count).unwrap()];
    // SAFETY: the vector has room.
    unsafe { stager.download(frame, block * BLOCK, words.as_mut_ptr().cast(), 4 * count) }.unwrap();
    words
}

fn all(words: &[u32], value: u32) -> bool {
    words.iter().all(|word| *word == value)
}

struct Bench {
    device: Arc<Device>,
    pool: Arc<FramePool>,
    stager: Stager,
}

fn bench(test: &str) -> Option<Bench> {
    let device = device(test)?;
    let (pool, stager) = (FramePool::new(&device).unwrap(), Stager::new(&device).unwrap());
    Some(Bench { device, pool, stager })
}

#[test]
fn kernels_reach_the_frames_that_are_bound() {
    let Some(Bench { device, pool, stager }) = bench("kernels_reach_the_frames_that_are_bound") else { return };
    let mut range = SparseRange::new(&device, 8 * CHUNK, None).unwrap();
    let own = HostAddr(range.base().0);
    assert_eq!(range.translate_from(own).unwrap(), Translation::Identity);
    let translation = range.translate_from(HOST).unwrap();
    assert!(matches!(translation, Translation::Delta(_)), "{translation:?}");
    let kernels = Kernels::new(&device, translation).unwrap();
    let (a, b) = (frame(&pool), frame(&pool));
    for frame in [&a, &b] {
        stager.fill(frame, 0, CHUNK, 0xA5).unwrap();
    }
    // Block 3 lies in one frame, block 4 in another.
    let bound = bind(&range, &[bind_to(blocks(4, 1), &b, 7 * BLOCK), bind_to(blocks(3, 1), &a, 0)]);
    kernels.fill(HOST.offset(3 * BLOCK).0, 2 * BLOCK_WORDS, 42, Some(&bound)).unwrap();
    assert!(all(&words(&stager, &a, 0, BLOCK_WORDS), 42) && all(&words(&stager, &b, 7, BLOCK_WORDS), 42));
    assert!(all(&words(&stager, &a, 1, BLOCK_WORDS), 0xA5A5_A5A5), "beside the block nothing is written");
    assert!(all(&words(&stager, &b, 6, BLOCK_WORDS), 0xA5A5_A5A5), "beside the block nothing is written");

    // And the same addresses by identity.
    let kernels = Kernels::new(&device, Translation::Identity).unwrap();
    kernels.fill(own.offset(4 * BLOCK).0, 1, 43, None).unwrap();
    assert_eq!(words(&stager, &b, 7, 2), [43, 42]);
}

#[test]
fn contents_move_with_their_frame() {
    let Some(Bench { device, pool, stager }) = bench("contents_move_with_their_frame") else { return };
    let mut range = SparseRange::new(&device, 4 * CHUNK, None).unwrap();
    let kernels = Kernels::new(&device, range.translate_from(HOST).unwrap()).unwrap();
    let (moving, out) = (frame(&pool), frame(&pool));
    let chunk = |index: u64| blocks(32 * index, 32);
    let bound = bind(&range, &[bind_to(chunk(0), &moving, 0), bind_to(chunk(3), &out, 0)]);
    kernels.fill(HOST.0, CHUNK / 4, 7, Some(&bound)).unwrap();
    let bound = bind(&range, &[unbind(chunk(0)), bind_to(chunk(2), &moving, 0)]);
    kernels.copy(HOST.offset(3 * CHUNK).0, HOST.offset(2 * CHUNK).0, CHUNK / 4, Some(&bound)).unwrap();
    assert!(all(&words(&stager, &out, 0, CHUNK / 4), 7), "the new place shows what the old one did");
    // The old place does not reach the frame any more.
    kernels.fill(HOST.0, CHUNK / 4, 9, Some(&bound)).unwrap();
    assert!(all(&words(&stager, &moving, 0, CHUNK / 4), 7));
}

#[test]
fn a_table_serves_several_segments() {
    let Some(Bench { device, pool, stager }) = bench("a_table_serves_several_segments") else { return };
    // Three segments, the last of them shorter; the limit is rounded down to 4 MiB.
    let mut range = SparseRange::new(&device, 5 * CHUNK, Some(3 * CHUNK)).unwrap();
    let translation = range.translate_from(HOST).unwrap();
    assert!(matches!(translation, Translation::Table(_)), "the driver maps one below the other: {translation:?}");
    let kernels = Kernels::new(&device, translation).unwrap();
    let frames: Vec<_> = (0..5).map(|_| frame(&pool)).collect();
    let binds: Vec<_> =
        frames.iter().zip(0..).map(|(frame, chunk)| bind_to(blocks(32 * chunk, 32), frame, 0)).collect();
    let bound = bind(&range, &binds);
    for (chunk, frame) in (0..).zip(&frames) {
        let pattern: Vec<u32> = (0..u32::try_from(CHUNK / 4).unwrap()).map(|word| word ^ (chunk << 24)).collect();
        // SAFETY: the pattern is a chunk long.
        unsafe { stager.upload(frame, 0, pattern.as_ptr().cast(), CHUNK) }.unwrap();
    }
    // Over both borders, unaligned.
    let (from, to) = (CHUNK + 4, 5 * CHUNK - 4);
    kernels.fill(HOST.offset(from).0, (to - from) / 4, 5, Some(&bound)).unwrap();
    assert_eq!(words(&stager, &frames[1], 0, 2), [1 << 24, 5]);
    for frame in &frames[2..4] {
        assert!(all(&words(&stager, frame, 0, CHUNK / 4), 5));
    }
    let last = words(&stager, &frames[4], 0, CHUNK / 4);
    let (tail, rest) = last.split_last().unwrap();
    assert!(all(rest, 5) && *tail == (u32::try_from(CHUNK / 4).unwrap() - 1) ^ (4 << 24));
}

#[test]
fn one_bind_goes_over_a_border_of_segments() {
    let Some(Bench { device, pool, stager }) = bench("one_bind_goes_over_a_border_of_segments") else { return };
    let mut range = SparseRange::new(&device, 4 * CHUNK, Some(CHUNK)).unwrap();
    let kernels = Kernels::new(&device, range.translate_from(HOST).unwrap()).unwrap();
    let frame = frame(&pool);
    stager.fill(&frame, 0, CHUNK, 0).unwrap();
    let bound = bind(&range, &[bind_to(blocks(31, 2), &frame, BLOCK)]);
    kernels.fill(HOST.offset(31 * BLOCK).0, 2 * BLOCK_WORDS, 3, Some(&bound)).unwrap();
    assert!(all(&words(&stager, &frame, 1, 2 * BLOCK_WORDS), 3));
    assert!(all(&words(&stager, &frame, 0, BLOCK_WORDS), 0) && all(&words(&stager, &frame, 3, BLOCK_WORDS), 0));
    // Both, over all the borders at once.
    bind(&range, &[unbind(blocks(0, 128))]).0.wait(bound.1).unwrap();
}

#[test]
fn copies_are_exact_at_odd_places() {
    let Some(Bench { pool, stager, .. }) = bench("copies_are_exact_at_odd_places") else { return };
    let source: Vec<u8> = (0..CHUNK).map(|byte| u8::try_from(byte * 31 % 251).unwrap()).collect();
    let places = [(0, CHUNK), (1, 1), (3, 0), (CHUNK - 1, 1), (4097, 524_287), (511 << 10, 1_048_577), (7, CHUNK - 7)];
    let go = |kind| {
        let frame = pool.allocate(kind).unwrap();
        for (offset, len) in places {
            let at = |value: u64| usize::try_from(value).unwrap();
            stager.fill(&frame, 0, CHUNK, 0xEE).unwrap();
            let mut expected = vec![0xEE; at(CHUNK)];
            expected[at(offset)..at(offset + len)].copy_from_slice(&source[..at(len)]);
            let (mut whole, mut part) = (vec![0; at(CHUNK)], vec![0; at(len)]);
            // SAFETY: the vectors have room.
            unsafe {
                stager.upload(&frame, offset, source.as_ptr(), len).unwrap();
                stager.download(&frame, 0, whole.as_mut_ptr(), CHUNK).unwrap();
                stager.download(&frame, offset, part.as_mut_ptr(), len).unwrap();
            }
            assert!(whole == expected && part == source[..at(len)], "{len} bytes at {offset}");
        }
        stager.fill(&frame, 8, 12, 0x11).unwrap();
        let mut part = [0; 20];
        // SAFETY: the array has room.
        unsafe { stager.download(&frame, 4, part.as_mut_ptr(), 20) }.unwrap();
        assert_eq!(part[4..16], [0x11; 12]);
        assert!(part[3] != 0x11 && part[16] != 0x11, "beside the words nothing is written");
    };
    // More threads than there are slots for.
    std::thread::scope(|scope| {
        for thread in 0..10 {
            scope.spawn(move || go(if thread % 2 == 0 { FrameKind::Device } else { FrameKind::HostVisible }));
        }
    });
}

#[test]
fn what_is_not_there_is_refused() {
    let Some(Bench { device, pool, stager }) = bench("what_is_not_there_is_refused") else { return };
    let frame = frame(&pool);
    let extent = |result| assert!(matches!(result, Err(GpuError::Extent { .. })), "{result:?}");
    extent(stager.fill(&frame, 2, 4, 0));
    extent(stager.fill(&frame, CHUNK, 4, 0));
    // SAFETY: refused before anything is read or written.
    unsafe {
        extent(stager.upload(&frame, 1, std::ptr::null(), CHUNK));
        extent(stager.download(&frame, u64::MAX, std::ptr::null_mut(), 2));
    }
    let range = SparseRange::new(&device, CHUNK, None).unwrap();
    for bad in [
        unbind(blocks(32, 1)),
        unbind(Extent { start: 0, len: 4096 }),
        bind_to(blocks(0, 2), &frame, CHUNK - BLOCK),
        bind_to(blocks(0, 1), &frame, 4096),
    ] {
        // SAFETY: refused.
        extent(unsafe { range.bind(&[bad]) }.map(|_| ()));
    }
    for (len, limit) in [(0, None), (CHUNK + BLOCK, None), (CHUNK, Some(BLOCK))] {
        assert!(matches!(SparseRange::new(&device, len, limit), Err(GpuError::Sparse { .. })), "{len} {limit:?}");
    }
}

#[test]
fn binds_come_from_several_threads() {
    let Some(Bench { device, pool, stager }) = bench("binds_come_from_several_threads") else { return };
    const THREADS: u64 = 4;
    let mut range = SparseRange::new(&device, THREADS * CHUNK, Some(2 * CHUNK)).unwrap();
    let kernels = Kernels::new(&device, range.translate_from(HOST).unwrap()).unwrap();
    let (range, kernels, pool, stager) = (&range, &kernels, &pool, &stager);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let frames = [frame(pool), frame(pool)];
                for round in 0..50u32 {
                    let frame = &frames[round as usize % 2];
                    let bound = bind(range, &[bind_to(blocks(32 * thread, 32), frame, 0)]);
                    kernels.fill(HOST.offset(thread * CHUNK).0, CHUNK / 4, round, Some(&bound)).unwrap();
                    assert!(all(&words(stager, frame, 31, BLOCK_WORDS), round));
                }
                bind(range, &[unbind(blocks(32 * thread, 32))]);
            });
        }
    });
}

#[test]
fn the_cpu_sees_what_kernels_wrote_in_a_mapped_frame() {
    let Some(Bench { device, pool, .. }) = bench("the_cpu_sees_what_kernels_wrote_in_a_mapped_frame") else { return };
    let mut range = SparseRange::new(&device, CHUNK, None).unwrap();
    let kernels = Kernels::new(&device, range.translate_from(HOST).unwrap()).unwrap();
    let frame = pool.allocate(FrameKind::HostVisible).unwrap();
    let mapped = frame.mapped().unwrap().cast::<u32>();
    // SAFETY: the frame is a chunk long, and no kernel runs.
    unsafe { mapped.write(17) };
    let bound = bind(&range, &[bind_to(blocks(0, 32), &frame, 0)]);
    kernels.copy(HOST.offset(8).0, HOST.0, 1, Some(&bound)).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { mapped.add(2).read() }, 17);
}

#[test]
fn frames_come_back() {
    let Some(Bench { pool, .. }) = bench("frames_come_back") else { return };
    // 8 GiB in turn, and frames of one time do not overlap.
    for _ in 0..64 {
        let frames: Vec<_> = (0..64).map(|_| frame(&pool)).collect();
        let mut places: Vec<_> = frames.iter().filter_map(|frame| frame.mapped()).collect();
        places.sort_unstable();
        assert!(
            places
                .windows(2)
                .all(|pair| pair[1].addr().get() - pair[0].addr().get() >= usize::try_from(CHUNK).unwrap())
        );
    }
}
