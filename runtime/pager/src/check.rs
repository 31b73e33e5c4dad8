//! Check mode: every GPU access is compared with what the running launch declared, by 64 KiB blocks, and the pointers
//! among its arguments with what is allocated.
//!
//! Before a launch everything is closed to the GPU, and what it declared only to read is opened for reading only, so
//! that any other access faults and is seen. The arena is a guarded one: allocations share no block, and beside each are
//! blocks of nobody's. It does *not* see accesses within the blocks of an allocation of which a part is declared.

use limosa_gpu::{Argument, KernelInterface};
use limosa_model::{Access, Block, BlockSet, DeclaredSets, Extent, HostAddr, HostRange, Relation, Side};

use crate::config::DeviceClass;
use crate::core::Core;
use crate::error::{PagerError, TouchCause};
use crate::launch::Launch;

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
                let nothing_open = state.chunk.open(Side::Device).is_empty() && state.stand_in.device.is_empty();
                if nothing_open && state.chunk.busy().is_empty() {
                    break;
                }
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

    /// Why an access that was not declared is wrong: in check mode what is not allocated is told apart.
    pub(crate) fn why_undeclared(&self, offset: u64) -> TouchCause {
        let block = Block::containing(offset);
        let allocated = |cell: &crate::cell::Cell| cell.lock().chunk.allocated().contains(block.slot());
        if self.config.check && !self.cells.get(block.chunk()).is_some_and(allocated) {
            TouchCause::NotAllocated
        } else {
            TouchCause::Undeclared
        }
    }

    /// That the pointers among a launch's arguments are null, or point into an allocation that it declares, or right
    /// behind it. Where it declares all of the heap, or keeps memory that it does not declare, any allocation will do.
    pub(crate) fn check_pointers(&self, launch: &Launch) -> Result<(), PagerError> {
        for at in &launch.pointers {
            let bytes = launch.arguments.get(*at..*at + 8).and_then(|bytes| bytes.try_into().ok());
            let address = bytes.map_or(0, u64::from_ne_bytes);
            if address != 0
                && let Some(cause) = self.stray(HostAddr(address), launch)
            {
                let offset = self.host_range().offset_of(HostAddr(address));
                return Err(PagerError::StrayPointer {
                    kernel: launch.kernel.name().to_owned(),
                    argument: argument_at(launch.kernel.interface(), *at),
                    address: HostAddr(address),
                    cause,
                    place: offset.and_then(|offset| self.whereabouts(offset)).map(Box::new),
                });
            }
        }
        Ok(())
    }

    /// What is wrong with a pointer.
    fn stray(&self, address: HostAddr, launch: &Launch) -> Option<TouchCause> {
        let place = self.host_range().offset_of(address).and_then(|offset| self.whereabouts(offset));
        let allocation = match place.map(|place| (place.relation, place.allocation)) {
            Some((Relation::Inside(_) | Relation::Past(1), allocation)) => allocation,
            _ => return Some(TouchCause::NotAllocated),
        };
        let HostRange { start, len } = allocation;
        let start = start.0 - self.host_range().start.0;
        // Also by an empty part: a loop over nothing is no misuse.
        let inside = |extent: &&Extent| start <= extent.end() && extent.start <= start + len;
        let declared = [&launch.reads, &launch.writes, &launch.overwrites];
        let known = launch.everything || launch.undeclared || declared.into_iter().flatten().any(|one| inside(&one));
        (!known).then_some(TouchCause::Undeclared)
    }
}

/// The argument at an offset, by position from 1, and by name if it has one.
fn argument_at(interface: &KernelInterface, offset: usize) -> String {
    let covers = |argument: &Argument| (argument.offset as usize..argument.end() as usize).contains(&offset);
    let found = interface.arguments.iter().enumerate().find(|(_, argument)| covers(argument));
    match found {
        Some((index, Argument { name: Some(name), .. })) => format!("{} ({name})", index + 1),
        Some((index, _)) => format!("{}", index + 1),
        None => format!("at byte {offset}"),
    }
}
