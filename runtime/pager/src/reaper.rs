//! The thread that looks after launches when nobody waits for them: it gives up what completed ones hold, so that
//! parked threads go on, and admits those in the queue. It sleeps while there is nobody to help, and it does *not*
//! drop anything of the application's.

use std::sync::atomic::Ordering;

use limosa_gpu::{GpuError, Timeline};
use limosa_os::signal;

use crate::core::Core;

pub(crate) fn reap(core: &Core) {
    signal::block_in_this_thread();
    while !core.stopping() {
        core.reaper_bell.wait();
        core.reaper_bell.silence();
        // From here on, who admits a launch or wants something rings; what came before is seen below.
        core.reaper_watches.store(true, Ordering::SeqCst);
        loop {
            let mut waits = vec![core.doorbell.next()];
            core.settle();
            if core.losing.swap(false, Ordering::SeqCst) {
                core.noticed(GpuError::DeviceLost);
            }
            waits.extend(core.scheduler.awaited());
            if waits.len() == 1 || core.stopping() {
                break;
            }
            if let Err(error) = Timeline::wait_any(&waits) {
                core.noticed(error);
            }
        }
        core.reaper_watches.store(false, Ordering::SeqCst);
    }
}
