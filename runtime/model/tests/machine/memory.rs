//! The simulated machine: one frame a block and tier, and a page table a side, which actions manipulate as named.
//!
//! It knows nothing of states: what it asserts is what hardware would punish, such as data moved under a writer.

use limosa_model::{Access, Action, BLOCKS_PER_CHUNK, BlockSet, Side};

/// Blocks of the chunk, as an array length.
pub(crate) const SLOTS: usize = BLOCKS_PER_CHUNK as usize;
/// What a copy that left the current ones is overwritten with.
pub(crate) const STALE: u64 = 0xA5A5_A5A5_A5A5_A5A5;
/// What a frame holds that nobody has written yet, or that was given back.
const GARBAGE: u64 = 0xDEAD_DEAD_DEAD_DEAD;

/// One entry of a page table; ordered by what it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mapping {
    None,
    Read,
    Write,
}

impl Mapping {
    pub(crate) fn allows(self, access: Access) -> bool {
        self >= Self::from(access)
    }
}

impl From<Access> for Mapping {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
        }
    }
}

/// Frames and page tables of one chunk.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) host: [u64; SLOTS],
    /// `None` where the block has no frame in VRAM.
    pub(crate) device: [Option<u64>; SLOTS],
    pub(crate) file: [u64; SLOTS],
    tables: [[Mapping; SLOTS]; 2],
    /// The CPU maps the chunk as one huge page, which vanishes as a whole when any of it is closed.
    huge: bool,
}

impl Memory {
    pub(crate) fn new(huge: bool) -> Self {
        Self {
            host: [GARBAGE; SLOTS],
            device: [None; SLOTS],
            file: [GARBAGE; SLOTS],
            tables: [[Mapping::None; SLOTS]; 2],
            huge,
        }
    }

    pub(crate) fn mapping(&self, side: Side, slot: u32) -> Mapping {
        self.tables[row(side)][slot as usize]
    }

    /// What a load through the mapping of `side` would give.
    pub(crate) fn load(&self, side: Side, slot: u32) -> u64 {
        assert!(self.mapping(side, slot).allows(Access::Read), "load by {side:?} through no mapping of {slot}");
        self.frame(side, slot)
    }

    pub(crate) fn store(&mut self, side: Side, slot: u32, value: u64) {
        assert!(self.mapping(side, slot).allows(Access::Write), "store by {side:?} without the right to {slot}");
        *self.frame_mut(side, slot) = value;
    }

    /// The frame's content, mapped or not.
    pub(crate) fn frame(&self, side: Side, slot: u32) -> u64 {
        match side {
            Side::Host => self.host[slot as usize],
            Side::Device => match self.device[slot as usize] {
                Some(value) => value,
                None => panic!("block {slot} has no frame on the device"),
            },
        }
    }

    pub(crate) fn frame_mut(&mut self, side: Side, slot: u32) -> &mut u64 {
        match side {
            Side::Host => &mut self.host[slot as usize],
            Side::Device => match &mut self.device[slot as usize] {
                Some(value) => value,
                None => panic!("block {slot} has no frame on the device"),
            },
        }
    }

    /// Carries one action out in full.
    pub(crate) fn perform(&mut self, action: Action) {
        if let Action::Close(Side::Host, _) = action
            && self.huge
        {
            self.tables[row(Side::Host)] = [Mapping::None; SLOTS];
        }
        for slot in set_of(action).slots() {
            self.perform_on(action, slot);
        }
    }

    fn perform_on(&mut self, action: Action, slot: u32) {
        let at = slot as usize;
        match action {
            Action::TakeFrames(_) => {
                self.device[at].get_or_insert(GARBAGE);
            }
            Action::Close(side, _) => self.tables[row(side)][at] = Mapping::None,
            Action::Zero(side, _) => self.fill(side, slot, 0),
            Action::Load(_) => self.fill(Side::Host, slot, self.file[at]),
            Action::Copy(side, _) => {
                self.assert_no_writer(slot);
                let value = self.frame(other(side), slot);
                self.fill(side, slot, value);
            }
            Action::WriteBack(_) => {
                self.assert_no_writer(slot);
                self.file[at] = self.host[at];
            }
            Action::Stale(side, _) => self.fill(side, slot, STALE),
            Action::Open(side, _, access) => self.map(side, slot, access),
            Action::GiveFrames(side, _) => {
                assert_eq!(self.mapping(side, slot), Mapping::None, "frame of {slot} given back while mapped");
                match side {
                    // Whether the pager gives it back now or later, a frame of zeros stays one.
                    Side::Host if self.host[at] == 0 => {}
                    Side::Host => self.host[at] = GARBAGE,
                    Side::Device => assert!(self.device[at].take().is_some(), "{slot} had no frame to give"),
                }
            }
        }
    }

    /// Data is only ever put where nobody looks: a load meanwhile would see half of it.
    fn fill(&mut self, side: Side, slot: u32, value: u64) {
        assert_eq!(self.mapping(side, slot), Mapping::None, "{side:?} frame of {slot} filled while mapped");
        *self.frame_mut(side, slot) = value;
    }

    /// A store beside a copy would be in one of the two only.
    fn assert_no_writer(&self, slot: u32) {
        for side in [Side::Host, Side::Device] {
            assert_ne!(self.mapping(side, slot), Mapping::Write, "{slot} moved while {side:?} may write it");
        }
    }

    fn map(&mut self, side: Side, slot: u32, access: Access) {
        let entry = Mapping::from(access);
        let old = self.mapping(side, slot);
        assert!(old <= entry, "{side:?} mapping of {slot} write-protected in place");
        assert!(side == Side::Host || self.device[slot as usize].is_some(), "{slot} mapped without a frame");
        self.tables[row(side)][slot as usize] = entry;
    }

    /// The device is gone, with its frames and its page table.
    pub(crate) fn lose_device(&mut self) {
        self.device = [None; SLOTS];
        self.tables[row(Side::Device)] = [Mapping::None; SLOTS];
    }
}

/// The blocks an action is about.
pub(crate) fn set_of(action: Action) -> BlockSet {
    match action {
        Action::TakeFrames(set)
        | Action::Load(set)
        | Action::WriteBack(set)
        | Action::Close(_, set)
        | Action::Zero(_, set)
        | Action::Copy(_, set)
        | Action::Stale(_, set)
        | Action::Open(_, set, _)
        | Action::GiveFrames(_, set) => set,
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Host => Side::Device,
        Side::Device => Side::Host,
    }
}

fn row(side: Side) -> usize {
    usize::from(side == Side::Device)
}
