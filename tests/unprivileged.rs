//! End to end, in what any user may do: without root, without the checkout, with nothing written but to `TMPDIR`.
//! `cargo xtask test` runs this binary a second time as nobody.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use common::failure::{BLOCK_WORDS, Kit, MIB, Watchdog, settle};
use common::{builder, context};
use limosa::{Access, Backing, Error, FaultMode, Faults, Machine, OsError, PagerError, Side};
use limosa_shaders::lookup;

fn is_root() -> bool {
    // SAFETY: a query.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn data_migrates_both_ways() {
    let _watchdog = Watchdog::new("both ways");
    for mode in [FaultMode::HandlerThread, FaultMode::InThread] {
        let Some(kit) = Kit::new("both ways", builder().fault_mode(mode)) else { return };
        let heap = kit.heap();
        let n = 3 << 20;
        let mut vec = heap.vec_with(n, |i| u32::try_from(i).unwrap()).unwrap();
        let count = n as u64;
        assert_eq!(kit.sum(&vec).unwrap(), count * (count - 1) / 2);
        kit.fill(&mut vec, 7).unwrap().wait().unwrap();
        settle(&vec);
        assert_eq!(vec.residency_summary().device, 12 * MIB);
        assert!(vec.read().unwrap().iter().all(|word| *word == 7));
        vec.write().unwrap()[n - 1] = 9;
        vec.prefetch_to_device().unwrap();
        assert_eq!(kit.sum(&vec).unwrap(), 7 * count + 2);
        vec.prefetch_to_host().unwrap();
        let counters = heap.counters();
        assert!(counters.blocks_to_device > 0 && counters.blocks_to_host > 0 && counters.cpu_read_faults > 0);
        let before = counters.gpu_read_faults;
        assert_eq!(kit.sum_at(vec.ptr(0).address(), count).unwrap(), 7 * count + 2);
        assert!(heap.counters().gpu_read_faults > before, "what is not declared comes by faults");
        kit.works();
    }
}

#[test]
fn a_kernel_follows_a_tree_of_pointers() {
    let _watchdog = Watchdog::new("tree");
    let Some(context) = context("tree", builder()) else { return };
    let pairs: std::collections::BTreeMap<u64, u64> = (0..5000u64).map(|i| (i * 11 % 32_749, i)).collect();
    let memory = context.heap().allocate(pairs.len() as u64 * 32, 32).unwrap();
    let base = memory.ptr().address();
    let (nodes, root) = lookup::balanced(&pairs, |i| base + i as u64 * 32);
    for (i, node) in nodes.iter().enumerate() {
        // SAFETY: inside the allocation, which nobody else uses yet.
        unsafe { memory.ptr().as_ptr().cast::<lookup::TreeNode>().add(i).write(*node) };
    }
    let keys = context.heap().vec_with(3000, |i| i as u64 * 7).unwrap();
    let mut values = context.heap().vec_zeroed::<u64>(3000).unwrap();
    let kernel = context.kernel("lookup", lookup::KERNEL.spirv).unwrap();
    let queue = context.queue().unwrap();
    let launch = queue.launch(&kernel, 3000).with_raw(&memory, Access::Read);
    let launch = launch.args((root, keys.reads(), values.writes(), 3000u64, u64::MAX));
    // SAFETY: lookup follows the tree, which is kept, and its two arrays.
    unsafe { launch.submit() }.unwrap().wait().unwrap();
    assert_eq!(values.to_vec().unwrap(), lookup::twin(&pairs, &keys.read().unwrap(), u64::MAX));
}

#[test]
fn system_calls_work_or_give_efault_as_the_heap_says() {
    let _watchdog = Watchdog::new("system calls");
    let Some(kit) = Kit::new("system calls", builder()) else { return };
    let words = 9 * BLOCK_WORDS;
    let mut vec = kit.heap().vec_zeroed::<u32>(words).unwrap();
    kit.fill(&mut vec, 0x0101_0101).unwrap().wait().unwrap();
    // SAFETY: all of the allocation; the launch that wrote it is done.
    let bytes = unsafe { std::slice::from_raw_parts(vec.ptr(0).as_ptr().cast::<u8>(), words * 4) };
    let path = std::env::temp_dir().join(format!("limosa-unprivileged-{}", std::process::id()));
    let mut file = File::create_new(&path).and_then(|_| File::options().read(true).write(true).open(&path)).unwrap();
    std::fs::remove_file(&path).unwrap();

    let written = file.write(bytes);
    if kit.heap().serves_system_calls() {
        assert_eq!(written.unwrap(), words * 4);
    } else {
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EFAULT));
        vec.prefetch_to_host().unwrap();
        assert_eq!(file.write(bytes).unwrap(), words * 4);
    }
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert!(read.len() == words * 4 && read.iter().all(|byte| *byte == 1));
}

#[test]
fn what_is_lacking_is_said_with_the_remedy() {
    let _watchdog = Watchdog::new("lacking");
    let Some(context) = context("lacking", builder()) else { return };
    let heap = context.heap();
    let machine = Machine::probe();
    match (&machine.faults, heap.serves_system_calls()) {
        (Faults::Full, true) => {}
        (Faults::UserModeOnly(remedy), false) => {
            assert!(remedy.contains("EFAULT") && remedy.contains("/dev/userfaultfd"), "{remedy}");
            assert!(remedy.contains("vm.unprivileged_userfaultfd=1"), "{remedy}");
        }
        (faults, serves) => panic!("{faults:?}, but a heap that serves system calls: {serves}"),
    }
    match heap.backing() {
        Backing::Huge => {
            let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
            let by_setting = !enabled.unwrap_or_default().contains("[never]");
            assert!(is_root() || by_setting, "huge pages out of nowhere");
        }
        Backing::Small(reason) => {
            assert!(reason.contains("CAP_SYS_ADMIN") && reason.contains("remedy: "), "{reason}");
            assert!(reason.contains("/sys/kernel/mm/transparent_hugepage/shmem_enabled"), "{reason}");
        }
    }
    assert_eq!(machine.backing.unwrap(), *heap.backing());
}

#[test]
fn limits_hold_whatever_memory_there_is() {
    let _watchdog = Watchdog::new("limits");
    let limits = builder().host_limit(64 * MIB).device_budget(16 * MIB);
    let Some(kit) = Kit::new("limits", limits) else { return };
    let heap = kit.heap();
    let error = heap.vec_zeroed::<u32>(24 << 20).map(|_| ()).err();
    let error = error.unwrap_or_else(|| panic!("96 MiB within a limit of 64: {} bytes taken", heap.host_bytes()));
    assert!(matches!(error, Error::Pager(PagerError::Os(OsError::OutOfMemory { limit, .. })) if limit == 64 * MIB));
    let vec = heap.vec_with(8 << 20, |_| 1u32).unwrap();
    let error = vec.prefetch_to_device().unwrap_err();
    assert!(matches!(error, Error::Pager(PagerError::RangeTooLarge { .. })), "{error}");
    assert!(heap.host_bytes() <= 64 * MIB && heap.device_frames_resident().unwrap() <= 16 * MIB);
    vec.raw().prefetch(Side::Host).unwrap();
    drop(vec);
    kit.works();
}
