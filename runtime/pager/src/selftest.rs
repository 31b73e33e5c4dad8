//! The start-up self-test: drivers fail silently, so a kernel must read a pattern through faults and write it back.
//! It does *not* measure.

use std::sync::Arc;

use limosa_gpu::self_test as probe;
use limosa_model::{BLOCK, CHUNK, Extent};

use crate::allocation::AllocationOptions;
use crate::error::PagerError;
use crate::heap::Heap;
use crate::launch::{Launch, LaunchQueue};

const MASK: u32 = 0x5A5A_A5A5;
const STRIDE: u64 = 4096;

impl Heap {
    /// Has a kernel copy a pattern, changed, across the border of two chunks, both ways; then between other chunks,
    /// and back in the first, so that with a small budget frames change hands.
    pub(crate) fn self_test(self: &Arc<Self>) -> Result<(), PagerError> {
        // Two chunks in each: with the smallest budget, the device holds one pair of them.
        let [one, two, three, four] =
            [(); 4].map(|()| self.allocate(CHUNK + BLOCK, BLOCK, &AllocationOptions::default()));
        let (pairs, all) = ([(&one, &two), (&three, &four), (&two, &one)], [&one, &two, &three, &four]);
        let mut result = Ok(());
        for ((source, target), turn) in pairs.into_iter().zip(1..) {
            if let (Ok(source), Ok(target), Ok(())) = (source, target, &result) {
                result = self.probe(*source, *target, turn);
            }
        }
        for extent in all.into_iter().flatten() {
            self.free(extent.start)?;
        }
        [one, two, three, four].into_iter().collect::<Result<Vec<_>, _>>()?;
        result
    }

    fn probe(self: &Arc<Self>, source: Extent, target: Extent, turn: u64) -> Result<(), PagerError> {
        let failed = |reason: String| PagerError::SelfTest { device: self.device().adapter.name.clone(), reason };
        let count = source.len / STRIDE;
        let pattern = |i: u64| u32::try_from((i + 7919 * turn) * 2_654_435_761 % 0xFFFF_FFFB).unwrap_or(0);
        let word = |extent: Extent, i: u64| self.address(extent.start + i * STRIDE).0 as *mut u32;
        for i in 0..count {
            // SAFETY: inside an allocation that only this function knows; no launch is in flight.
            unsafe { word(source, i).write_volatile(pattern(i)) };
        }
        let words: Vec<u32> = probe::KERNEL.words();
        let kernel = self.kernel(probe::KERNEL.name, &words, "main")?;
        let mut arguments = Vec::new();
        for value in [self.address(target.start).0, self.address(source.start).0, STRIDE, count] {
            arguments.extend_from_slice(&value.to_ne_bytes());
        }
        arguments.extend_from_slice(&MASK.to_ne_bytes());
        arguments.extend_from_slice(&[0; 4]);
        let launch = Launch {
            groups: kernel.groups_for(count)?,
            kernel,
            tally: Arc::default(),
            arguments,
            pointers: Vec::new(),
            reads: vec![source],
            writes: vec![target],
            overwrites: Vec::new(),
            everything: false,
            undeclared: false,
            after: Vec::new(),
            behind: Vec::new(),
            keep: Box::new(()),
        };
        let queue = LaunchQueue::new(self)?;
        // SAFETY: both allocations outlive the wait, and nobody else touches them.
        let event = unsafe { queue.launch(launch)? };
        event.wait()?;
        for i in 0..count {
            // SAFETY: as above; the launch has completed.
            let (seen, kept) = unsafe { (word(target, i).read_volatile(), word(source, i).read_volatile()) };
            if seen != pattern(i) ^ MASK || kept != pattern(i) {
                let at = i * STRIDE;
                return Err(failed(format!(
                    "at {at:#x} a kernel was to make {:#010x} of {:#010x}, the CPU reads {seen:#010x}",
                    pattern(i) ^ MASK,
                    pattern(i)
                )));
            }
        }
        Ok(())
    }
}
