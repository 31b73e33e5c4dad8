//! Check mode: every GPU access is compared with what the running launch declared, by 64 KiB blocks.
//!
//! Before a launch everything is closed to the GPU, and what it declared only to read is opened for reading only, so
//! that any other access faults and is seen. It does *not* see accesses within a block of which a part is declared.

use limosa_model::{Access, Block, BlockSet, DeclaredSets, Side};

use crate::config::DeviceClass;
use crate::core::Core;

/// What a launch said that it will touch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    sets: DeclaredSets,
    /// The launch may touch anything: nothing is checked.
    everything: bool,
}

impl Declared {
    pub(crate) fn new(sets: DeclaredSets, everything: bool) -> Self {
        Self { sets, everything }
    }

    fn allows(&self, offset: u64, access: Access) -> bool {
        let block = Block::containing(offset);
        let own = self.sets.chunks().find(|(chunk, _)| *chunk == block.chunk());
        let allowed = own.map(|(_, sets)| match access {
            Access::Read => sets.all(),
            Access::Write => sets.writes | sets.overwrites,
        });
        self.everything || allowed.is_some_and(|blocks| blocks.contains(block.slot()))
    }
}

impl Core {
    /// Takes every GPU mapping away and enters what the next launch declares.
    pub(crate) fn begin_check(&self, declared: Declared) {
        for (chunk, cell) in self.cells.iter() {
            loop {
                let mut state = cell.lock();
                if state.chunk.busy().is_empty() {
                    if self.view.close(chunk, BlockSet::ALL).is_ok() {
                        state.chunk.unmapped(Side::Device, BlockSet::ALL);
                        state.huge.device = false;
                    }
                    break;
                }
                let epoch = cell.epoch();
                drop(state);
                cell.wait(epoch);
            }
        }
        *self.declared() = Some(declared);
    }

    /// Whether this GPU access was declared, where it must be: in check mode by the running launch, on a device of the
    /// class Declared by any launch that holds the block.
    pub(crate) fn declares(&self, offset: u64, access: Access) -> bool {
        let block = Block::containing(offset);
        let held = |cell: &crate::cell::Cell| cell.lock().chunk.held().contains(block.slot());
        match (self.config.check, self.class) {
            (true, _) => self.declared().as_ref().is_none_or(|declared| declared.allows(offset, access)),
            (false, DeviceClass::Declared) => self.cells.get(block.chunk()).is_some_and(held),
            (false, DeviceClass::Faulting) => true,
        }
    }
}
