//! Events as data, and what DESIGN.md's table says of each: written a second time, block by block, so that the model's
//! word-wide rules are compared with something.

use limosa_model::{Access, Action, BlockSet, BlockState, Chunk, Copies, Hold, Side, Verdict};

/// An event that the model answers with a verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Fault {
        side: Side,
        slot: u32,
        window: BlockSet,
        access: Access,
    },
    Acquire {
        blocks: BlockSet,
        access: Access,
        overwrite: bool,
    },
    /// A file is to be read into them.
    Receive(BlockSet),
    Prefetch {
        side: Side,
        blocks: BlockSet,
    },
    Duplicate {
        side: Side,
        blocks: BlockSet,
    },
    Evict(BlockSet),
    DropHost(BlockSet),
    WriteBack(BlockSet),
    Discard(BlockSet),
}

impl Event {
    pub(crate) fn apply(self, chunk: &mut Chunk) -> Verdict {
        match self {
            Self::Fault { side, slot, window, access } => chunk.fault(side, slot, window, access),
            Self::Acquire { blocks, access, overwrite } => chunk.acquire(blocks, access, overwrite),
            Self::Receive(blocks) => {
                let zero = blocks.slots().filter(|slot| chunk.state(*slot).copies == Copies::Zero);
                let zero: BlockSet = zero.fold(BlockSet::EMPTY, |all, slot| all | BlockSet::of(slot));
                let (verdict, blank) = chunk.receive(blocks);
                assert_eq!(blank, zero, "what is to be discarded where nothing arrives");
                verdict
            }
            Self::Prefetch { side, blocks } => chunk.prefetch(side, blocks),
            Self::Duplicate { side, blocks } => chunk.duplicate(side, blocks),
            Self::Evict(blocks) => chunk.evict(blocks),
            Self::DropHost(blocks) => chunk.drop_host(blocks),
            Self::WriteBack(blocks) => chunk.write_back(blocks),
            Self::Discard(blocks) => chunk.discard(blocks),
        }
    }

    /// The blocks the event demands; growth is no demand.
    pub(crate) fn asked(self) -> BlockSet {
        match self {
            Self::Fault { slot, .. } => BlockSet::of(slot),
            Self::Acquire { blocks, .. } | Self::Prefetch { blocks, .. } | Self::Duplicate { blocks, .. } => blocks,
            Self::Receive(blocks)
            | Self::Evict(blocks)
            | Self::DropHost(blocks)
            | Self::WriteBack(blocks)
            | Self::Discard(blocks) => blocks,
        }
    }

    /// Whether a hold like this makes the event wait.
    pub(crate) fn barred_by(self, hold: Hold) -> bool {
        match self {
            Self::Fault { side: Side::Host, access: Access::Read, .. }
            | Self::Acquire { access: Access::Read, .. }
            | Self::Duplicate { side: Side::Host, .. }
            | Self::WriteBack(_) => hold == Hold::Write,
            // The launch that holds the block may itself be what faults; a prefetch leaves held blocks alone.
            Self::Fault { side: Side::Device, .. }
            | Self::Prefetch { side: Side::Device, .. }
            | Self::Duplicate { side: Side::Device, .. } => false,
            _ => hold != Hold::None,
        }
    }

    /// Whether the event brings blocks up to the device.
    pub(crate) fn moves_up(self) -> bool {
        matches!(
            self,
            Self::Acquire { .. }
                | Self::Receive(_)
                | Self::Duplicate { side: Side::Device, .. }
                | Self::Prefetch { side: Side::Device, .. }
                | Self::Fault { side: Side::Device, .. }
        )
    }

    /// The mapping that must exist once the event was served.
    pub(crate) fn opens(self) -> Option<(Side, Access)> {
        match self {
            Self::Fault { side, access, .. } => Some((side, access)),
            Self::Acquire { access, .. } => Some((Side::Device, access)),
            Self::Receive(_) => Some((Side::Device, Access::Write)),
            Self::Prefetch { side, .. } => Some((side, Access::Write)),
            Self::Duplicate { side, .. } => Some((side, Access::Read)),
            _ => None,
        }
    }

    /// Whether a block in this state has anything to do, `open` telling whether the event's side has it open as wanted.
    pub(crate) fn needed(self, state: BlockState, open: bool) -> bool {
        let (host, device, file) = tiers(state.copies);
        match self {
            Self::Fault { .. } | Self::Acquire { .. } | Self::Receive(_) => true,
            Self::Prefetch { side, .. } | Self::Duplicate { side, .. } => {
                !open && (side == Side::Host || state.hold == Hold::None)
            }
            Self::Evict(_) => device,
            Self::DropHost(_) => host && (device || file),
            Self::WriteBack(_) => (host || device) && !file,
            Self::Discard(_) => host || device || file,
        }
    }

    /// The table's "then" column.
    pub(crate) fn then(self, before: Copies) -> Copies {
        let (host, device, file) = tiers(before);
        let (host, device, file) = match self {
            Self::Fault { side: Side::Host, access: Access::Read, .. } | Self::Duplicate { side: Side::Host, .. } => {
                (true, device, file)
            }
            Self::Fault { side: Side::Host, .. } | Self::Prefetch { side: Side::Host, .. } => (true, false, false),
            Self::Fault { access: Access::Write, .. }
            | Self::Acquire { access: Access::Write, .. }
            | Self::Receive(_)
            | Self::Prefetch { .. } => (false, true, false),
            // What is loaded for the device passes through a host frame, which stays current.
            Self::Fault { .. } | Self::Acquire { .. } | Self::Duplicate { .. } => {
                (host || (file && !device), true, file)
            }
            Self::Evict(_) => (host || !file, false, file),
            Self::DropHost(_) => (false, device, file),
            Self::WriteBack(_) => (true, device, true),
            Self::Discard(_) => (false, false, false),
        };
        if host || device || file { Copies::Current { host, device, file } } else { Copies::Zero }
    }

    /// Whether this action has no business in a plan for the event, whatever the state of its blocks.
    pub(crate) fn forbids(self, action: Action) -> bool {
        match action {
            Action::TakeFrames(_) | Action::Zero(Side::Device, _) | Action::Copy(Side::Device, _) => !self.moves_up(),
            Action::Open(..) => self.opens().is_none(),
            Action::WriteBack(_) => !matches!(self, Self::WriteBack(_)),
            Action::Load(_) => self.opens().is_none(),
            _ => false,
        }
    }
}

/// The current copies, as (host, device, file).
pub(crate) fn tiers(copies: Copies) -> (bool, bool, bool) {
    match copies {
        Copies::Current { host, device, file } => (host, device, file),
        Copies::Unallocated | Copies::Shared | Copies::Zero | Copies::Poisoned => (false, false, false),
    }
}
