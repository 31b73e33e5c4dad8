//! What the model answers: a plan of bounded length, a wait, or a refusal.
//!
//! A plan is carried out by the pager in the order of [`Plan::actions`] and then committed. The order is the same for
//! every transition: make room, close mappings, move data, open mappings, give room back. A plan does *not* say how
//! an action is done.

use arrayvec::ArrayVec;

use crate::address::{Access, Side};
use crate::cause::Cause;
use crate::chunk::{Hold, Image};
use crate::geometry::BlockSet;

/// One thing to do to a set of blocks of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make sure that frames exist for these blocks on the device. May fail: nothing has been done by then.
    TakeFrames(BlockSet),
    /// Unmap on this side; accesses fault from here on.
    Close(Side, BlockSet),
    /// Make the frames on this side read as zeros.
    Zero(Side, BlockSet),
    /// Read from the backing file into host frames. May fail.
    Load(BlockSet),
    /// Copy *to* this side from the other.
    Copy(Side, BlockSet),
    /// Write host frames to the backing file. May fail.
    WriteBack(BlockSet),
    /// The copies on this side are no longer current: test builds overwrite them, so that a use of one shows.
    Stale(Side, BlockSet),
    /// Map on this side.
    Open(Side, BlockSet, Access),
    /// These blocks need their frames on this side no longer.
    GiveFrames(Side, BlockSet),
}

/// The most actions a plan holds: each kind once a side and access, in the one fixed order.
pub const ACTIONS_MAX: usize = 18;

/// A transition decided but not yet carried out. Its blocks are busy until it is committed or aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "blocks stay busy until the plan is committed or aborted"]
pub struct Plan {
    /// The blocks that change, all busy meanwhile.
    pub covers: BlockSet,
    /// The event that it answers. The caller may know better: a fault may only have been foreseen.
    pub cause: Cause,
    pub(crate) after: Image,
    pub(crate) hold: Hold,
    /// To be pinned at the commit.
    pub(crate) pins: BlockSet,
    pub(crate) take: BlockSet,
    pub(crate) close: Sides,
    pub(crate) zero: Sides,
    pub(crate) load: BlockSet,
    pub(crate) copy: Sides,
    pub(crate) write_back: BlockSet,
    pub(crate) stale: Sides,
    pub(crate) open_read: Sides,
    pub(crate) open_write: Sides,
    pub(crate) give: Sides,
}

/// A set of blocks for each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sides {
    /// On the host.
    pub host: BlockSet,
    /// On the device.
    pub device: BlockSet,
}

impl Plan {
    pub(crate) fn new(covers: BlockSet, cause: Cause, after: Image) -> Self {
        let none = Sides::default();
        Self {
            covers,
            cause,
            after,
            hold: Hold::None,
            pins: BlockSet::EMPTY,
            take: BlockSet::EMPTY,
            close: none,
            zero: none,
            load: BlockSet::EMPTY,
            copy: none,
            write_back: BlockSet::EMPTY,
            stale: none,
            open_read: none,
            open_write: none,
            give: none,
        }
    }

    /// Opens for reading only on `side`, also where the copy is the only one: the first store then faults. The state
    /// after the plan stays an upper bound of what is mapped.
    pub fn withhold_writing(&mut self, side: Side) {
        let (read, write) = match side {
            Side::Host => (&mut self.open_read.host, &mut self.open_write.host),
            Side::Device => (&mut self.open_read.device, &mut self.open_write.device),
        };
        *read |= *write;
        *write = BlockSet::EMPTY;
    }

    /// Commits without the hold or pin that the plan was to end in: what was to be opened could not be.
    pub fn forgo_hold(&mut self) {
        self.hold = Hold::None;
        self.pins = BlockSet::EMPTY;
    }

    /// The blocks that are to be closed on `side`.
    #[must_use]
    pub fn closes(&self, side: Side) -> BlockSet {
        match side {
            Side::Host => self.close.host,
            Side::Device => self.close.device,
        }
    }

    /// The blocks that are copied *to* `side`.
    #[must_use]
    pub fn copies(&self, side: Side) -> BlockSet {
        match side {
            Side::Host => self.copy.host,
            Side::Device => self.copy.device,
        }
    }

    /// The blocks that come to a side where they were not, as a copy or as zeros.
    #[must_use]
    pub fn brings(&self) -> BlockSet {
        self.copy.host | self.copy.device | self.zero.host | self.zero.device
    }

    /// Blocks that get frames on the device and nothing into them: who asked for them is to overwrite them.
    #[must_use]
    pub fn unwritten(&self) -> BlockSet {
        self.take - self.zero.device - self.copy.device
    }

    /// The blocks that have a copy on the host while it is carried out or afterwards: their frames must be there.
    #[must_use]
    pub fn uses_on_host(&self) -> BlockSet {
        (self.after.host & self.covers) | self.load
    }

    /// What to do, in order; never more than [`ACTIONS_MAX`] actions, none of them on an empty set.
    #[must_use]
    pub fn actions(&self) -> ArrayVec<Action, ACTIONS_MAX> {
        use Access::{Read, Write};
        use Side::{Device, Host};
        let all = [
            (self.take, Action::TakeFrames(self.take)),
            (self.close.host, Action::Close(Host, self.close.host)),
            (self.close.device, Action::Close(Device, self.close.device)),
            (self.zero.host, Action::Zero(Host, self.zero.host)),
            (self.zero.device, Action::Zero(Device, self.zero.device)),
            (self.load, Action::Load(self.load)),
            (self.copy.host, Action::Copy(Host, self.copy.host)),
            (self.copy.device, Action::Copy(Device, self.copy.device)),
            (self.write_back, Action::WriteBack(self.write_back)),
            (self.stale.host, Action::Stale(Host, self.stale.host)),
            (self.stale.device, Action::Stale(Device, self.stale.device)),
            (self.open_read.host, Action::Open(Host, self.open_read.host, Read)),
            (self.open_write.host, Action::Open(Host, self.open_write.host, Write)),
            (self.open_read.device, Action::Open(Device, self.open_read.device, Read)),
            (self.open_write.device, Action::Open(Device, self.open_write.device, Write)),
            (self.give.host, Action::GiveFrames(Host, self.give.host)),
            (self.give.device, Action::GiveFrames(Device, self.give.device)),
        ];
        all.into_iter().filter(|(set, _)| !set.is_empty()).map(|(_, action)| action).collect()
    }
}

/// Why an event cannot be served at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The block belongs to no allocation: a wild or stale pointer.
    Unallocated,
    /// The block's only copy was lost; the range must be repaired first.
    Poisoned,
}

/// The model's answer to an event.
#[derive(Debug)]
pub enum Verdict {
    /// Carry this out, then commit.
    Go(Plan),
    /// Nothing to do: the blocks are as the event wants them.
    Done,
    /// These blocks are busy or held: ask again when they are released.
    Wait(BlockSet),
    /// Never, because of these blocks.
    Refuse(Refusal, BlockSet),
}
