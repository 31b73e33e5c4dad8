//! The coherence oracle: CPU threads, kernels, prefetches and allocations at once on one heap, every value checked.
//!
//! Words of the CPU's threads, of the GPU's lanes, and words that both watch or count in, lie side by side in the
//! same blocks, so that the sides take them from each other all the time. The oracle proves something only because
//! it catches each seeded defect, which the tests at the end make sure of. `LIMOSA_ORACLE_OPS` sets the number of
//! operations (default 10⁵ in each mode).

#![allow(clippy::unwrap_used)] // what fails here fails the test

#[path = "../common/mod.rs"]
mod common;
mod history;

use std::sync::{Mutex, MutexGuard, PoisonError};

use history::{Outcome, run};
use limosa::inject::{self, Defect};
use limosa::{ContextBuilder, Counters, DeviceClass, FaultMode, ViewKind};

/// Injection is process-wide, and so is the machine's speed: one oracle at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device budget that all of the history fits in.
const AMPLE: u64 = 256 << 20;
/// One that less than half of it fits in.
const SCARCE: u64 = limosa::DEVICE_BUDGET_MIN;

fn operations() -> u64 {
    std::env::var("LIMOSA_ORACLE_OPS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

fn coherent(name: &str, mode: FaultMode, class: DeviceClass, budget: u64) {
    let builder = common::builder().fault_mode(mode).device_class(class).device_budget(budget);
    coherent_with(name, builder);
}

fn coherent_with(name: &str, builder: ContextBuilder) -> Option<Counters> {
    let _alone = alone();
    let context = common::context(name, builder)?;
    let outcome = run(&context, operations(), 0x11_05A);
    println!("{name}: {outcome}");
    let counters = context.heap().counters();
    println!("{name}: {counters:?}");
    assert_eq!(outcome.defects, Vec::<String>::new());
    assert!(outcome.cpu_operations >= operations() && outcome.gpu_operations >= operations());
    let (class, budget) = (context.device_class(), context.heap().device_budget());
    // An oracle on a heap that does not migrate proves nothing.
    for (count, what) in [
        (counters.cpu_read_faults, "CPU reads"),
        (counters.cpu_write_faults, "CPU writes"),
        (counters.gpu_read_faults + u64::from(class == DeviceClass::Declared), "GPU reads"),
        (counters.gpu_write_faults + u64::from(class == DeviceClass::Declared), "GPU writes"),
        (counters.blocks_to_device, "blocks up"),
        (counters.blocks_to_host, "blocks down"),
        (counters.chunks_opened, "chunks opened"),
        (counters.faults_parked, "faults parked"),
        (counters.blocks_evicted + u64::from(budget == AMPLE), "blocks evicted"),
    ] {
        assert!(count > 0, "no {what}");
    }
    Some(counters)
}

#[test]
fn coherent_with_a_handler_thread() {
    coherent("oracle, handler thread", FaultMode::HandlerThread, DeviceClass::Faulting, AMPLE);
}

#[test]
fn coherent_with_faults_served_in_thread() {
    coherent("oracle, in thread", FaultMode::InThread, DeviceClass::Faulting, AMPLE);
}

#[test]
fn coherent_while_blocks_are_evicted() {
    coherent("oracle, small budget, handler thread", FaultMode::HandlerThread, DeviceClass::Faulting, SCARCE);
    coherent("oracle, small budget, in thread", FaultMode::InThread, DeviceClass::Faulting, SCARCE);
}

/// A defect that goes away also when the oracle panics.
struct Seeded;

impl Seeded {
    fn new(defect: Defect) -> Self {
        inject::seed(defect);
        Self
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        inject::clear();
    }
}

#[test]
fn coherent_on_a_device_that_cannot_fault() {
    // As little as the kernel's set needs: the sweeps and the allocations beside it are evicted in between.
    let budget = 14 << 20;
    coherent("oracle, declared, handler thread", FaultMode::HandlerThread, DeviceClass::Declared, budget);
    coherent("oracle, declared, in thread", FaultMode::InThread, DeviceClass::Declared, budget);
}

#[test]
fn coherent_on_sparse_memory() {
    // As above: frames change hands all the time.
    let builder = || common::builder().view(ViewKind::Sparse).device_budget(14 << 20);
    coherent_with("oracle, sparse, handler thread", builder().fault_mode(FaultMode::HandlerThread));
    coherent_with("oracle, sparse, in thread", builder().fault_mode(FaultMode::InThread));
    let staged = builder().staged_copies(true).segment_limit(4 << 20);
    coherent_with("oracle, sparse, copied by the device, several buffers", staged.clone());
    coherent_with("oracle, sparse, copied by the device, in thread", staged.fault_mode(FaultMode::InThread));
}

#[test]
fn coherent_while_host_frames_come_and_go() {
    let builder = || common::builder().host_budget(0);
    for (name, builder) in [
        ("oracle, no host budget, handler thread", builder()),
        ("oracle, no host budget, in thread", builder().fault_mode(FaultMode::InThread)),
        ("oracle, no host budget, sparse", builder().view(ViewKind::Sparse).device_budget(14 << 20)),
    ] {
        let Some(counters) = coherent_with(name, builder) else { return };
        assert!(counters.chunks_host_given_back > 0 && counters.chunks_host_brought_back > 0, "{name}");
    }
}

fn catches(defect: Defect) {
    catches_with(defect, common::builder());
}

fn catches_with(defect: Defect, builder: ContextBuilder) {
    let _alone = alone();
    for mode in [FaultMode::HandlerThread, FaultMode::InThread] {
        let name = format!("oracle with {defect:?}, {mode:?}");
        let Some(context) = common::context(&name, builder.clone().fault_mode(mode)) else { return };
        let seeded = Seeded::new(defect);
        let Outcome { defects, .. } = run(&context, 1_000_000, 7);
        drop(seeded);
        assert!(!defects.is_empty(), "{name}: not caught");
        println!("{name}: caught: {}", defects[0]);
    }
}

#[test]
fn catches_a_skipped_copy_to_the_host() {
    catches(Defect::SkipCopyDown);
}

#[test]
fn catches_a_skipped_copy_to_the_device() {
    catches(Defect::SkipCopyUp);
}

#[test]
fn catches_a_cpu_mapping_left_open() {
    catches(Defect::SkipZapHost);
}

#[test]
fn catches_a_gpu_mapping_left_open() {
    catches(Defect::SkipZapDevice);
}

#[test]
fn catches_a_skipped_write_protection() {
    catches(Defect::SkipWriteProtect);
}

#[test]
fn catches_a_skipped_registration() {
    catches(Defect::SkipReregister);
}

#[test]
fn catches_blocks_that_were_not_zeroed() {
    catches(Defect::SkipZero);
}

/// On sparse memory nothing but holds and bindings keeps the sides apart.
fn sparse() -> ContextBuilder {
    common::builder().view(ViewKind::Sparse).device_budget(14 << 20)
}

#[test]
fn catches_launches_that_hold_nothing() {
    catches_with(Defect::SkipHold, sparse());
}

#[test]
fn catches_blocks_that_are_not_bound_anew() {
    catches_with(Defect::SkipRebind, sparse());
}

#[test]
fn catches_a_stale_translation() {
    catches_with(Defect::StaleTranslation, sparse());
    catches(Defect::StaleTranslation);
}
