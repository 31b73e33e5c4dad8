//! The ways in which a device reaches a heap: what a test runs on, one after the other.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use limosa::{ContextBuilder, DeviceChoice, DeviceClass, DeviceKind, FaultMode, Instance, ViewKind};

use super::failure::{Kit, MIB};

/// A view, the class of the device with it, and how it copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub view: ViewKind,
    pub class: DeviceClass,
    /// Copies by the device, and several segments.
    pub staged: bool,
}

pub const FAULTING: Way = Way { view: ViewKind::Import, class: DeviceClass::Faulting, staged: false };
pub const DECLARED: Way = Way { class: DeviceClass::Declared, ..FAULTING };
pub const SPARSE: Way = Way { view: ViewKind::Sparse, ..DECLARED };
pub const STAGED: Way = Way { staged: true, ..SPARSE };

pub const ALL: &[Way] = &[FAULTING, DECLARED, SPARSE, STAGED];
pub const OF_CLASS_DECLARED: &[Way] = &[DECLARED, SPARSE, STAGED];
/// Where data moves while a kernel runs. Copies by a device with one queue, as software devices have, come after it: who
/// needs one before the kernel may end would wait for ever.
pub const BESIDE_KERNELS: &[Way] = &[FAULTING, DECLARED, SPARSE];
/// With and without copies by the device.
pub const ON_SPARSE: &[Way] = &[SPARSE, STAGED];

pub const MODES: [FaultMode; 2] = [FaultMode::HandlerThread, FaultMode::InThread];

/// Each way with each fault mode.
pub fn cases(ways: &[Way]) -> impl Iterator<Item = (Way, FaultMode)> {
    ways.iter().flat_map(|way| MODES.map(|mode| (*way, mode)))
}

/// Bytes of a segment where there are to be several.
pub const SEGMENT: u64 = 4 * MIB;

impl Way {
    /// A context this way.
    pub fn of(self, builder: ContextBuilder) -> ContextBuilder {
        let builder = builder.view(self.view).device_class(self.class);
        if self.staged { builder.staged_copies(true).segment_limit(SEGMENT) } else { builder }
    }

    /// As [`Kit::new`]; skips aloud where the software device cannot go this way.
    pub fn kit(self, test: &str, builder: ContextBuilder) -> Option<Kit> {
        if self.view == ViewKind::Sparse && !has_sparse(test) {
            return None;
        }
        Kit::new(test, self.of(builder))
    }
}

/// Whether the software device has sparse buffers, saying aloud if it has not.
pub fn has_sparse(test: &str) -> bool {
    let adapter = Instance::new().and_then(|instance| instance.choose(&DeviceChoice::Kind(DeviceKind::Cpu)));
    match adapter {
        Ok(adapter) if !adapter.sparse_missing.is_empty() => {
            super::skip(test, "sparse", &adapter.sparse_missing.join(", "));
            false
        }
        // What else is missing, opening a context tells.
        _ => true,
    }
}
