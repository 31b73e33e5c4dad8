//! Where the pages of a range are. It does *not* move any or keep one from moving.

use std::os::fd::AsFd;

use limosa_model::{HostAddr, HostRange};

use super::call::{call, interrupted, size};
use super::uapi::{
    LIMOSA_RESIDENCY, LIMOSA_RESIDENCY_COHERENT, LIMOSA_RESIDENCY_HUGE, LIMOSA_RESIDENCY_PLACE,
    LIMOSA_RESIDENCY_PRIVATE, LIMOSA_RESIDENCY_SYSTEM, LIMOSA_RESIDENCY_WRITABLE, limosa_residency,
};
use super::{Place, Shim, ShimError};
use crate::reservation::to_usize;

/// Pages that are asked after at once: room is made for what turns out to be mapped, not for what a range claims to be.
const PIECE: u64 = 1 << 20;

/// How many pages are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// There is no page to be read now: nothing is mapped, it cannot be read (`PROT_NONE`, or a device's own mapping, views
    /// among them), is swapped out, or in another device's private memory.
    pub absent: u64,
    /// In system RAM.
    pub system: u64,
    /// In this device's private memory.
    pub private: u64,
    /// In this device's coherent memory.
    pub coherent: u64,
}

/// One page, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageState(u8);

impl PageState {
    /// Where it is; `None`: absent.
    #[must_use]
    pub fn place(self) -> Option<Place> {
        match u32::from(self.0) & LIMOSA_RESIDENCY_PLACE {
            LIMOSA_RESIDENCY_SYSTEM => Some(Place::System),
            LIMOSA_RESIDENCY_PRIVATE => Some(Place::Private),
            LIMOSA_RESIDENCY_COHERENT => Some(Place::Coherent),
            _ => None,
        }
    }

    /// Whether it is mapped for writing.
    #[must_use]
    pub fn is_writable(self) -> bool {
        u32::from(self.0) & LIMOSA_RESIDENCY_WRITABLE != 0
    }

    /// Whether it is mapped as part of 2 MiB.
    #[must_use]
    pub fn is_huge(self) -> bool {
        u32::from(self.0) & LIMOSA_RESIDENCY_HUGE != 0
    }
}

/// Where the pages of a range are: what held at one moment for each page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residency {
    /// How many are where.
    pub pages: PageCounts,
    /// Each page of the range, in order.
    pub states: Vec<PageState>,
}

impl Shim {
    /// Where the pages of `range` are. Nothing is faulted in.
    ///
    /// # Errors
    /// [`ShimError::NotMapped`], [`ShimError::BadRange`], [`ShimError::OutOfMemory`], [`ShimError::OtherProcess`],
    /// [`ShimError::DeviceGone`].
    pub fn residency(&self, range: HostRange) -> Result<Residency, ShimError> {
        let page_size = self.info()?.page_size;
        let mut states: Vec<u8> = Vec::new();
        let mut pages = PageCounts::default();
        let mut rest = range;
        loop {
            let piece = HostRange { start: rest.start, len: rest.len.min(PIECE * page_size) };
            let (known, room) = (states.len(), to_usize(piece.len.div_ceil(page_size)));
            states.try_reserve(room).map_err(|_| ShimError::OutOfMemory)?;
            states.resize(known + room, 0);
            let mut residency = limosa_residency {
                size: size::<limosa_residency>(),
                addr: piece.start.0,
                len: piece.len,
                states: states[known..].as_mut_ptr().expose_provenance() as u64,
                cursor: piece.start.0,
                ..Default::default()
            };
            // SAFETY: the request's own struct; at `states` there is room for a byte for each page of the piece.
            let result = unsafe { call(self.as_fd(), LIMOSA_RESIDENCY, &mut residency) };
            let cursor = HostAddr(residency.cursor);
            let bytes = cursor.0.wrapping_sub(rest.start.0);
            match result {
                Err(error) if !interrupted(&error) => {
                    return Err(ShimError::on_range("asking where pages are", range, cursor, error));
                }
                _ => {}
            }
            states.truncate(known + to_usize(bytes / page_size));
            pages.absent += residency.absent;
            pages.system += residency.in_system;
            pages.private += residency.in_private;
            pages.coherent += residency.in_coherent;
            rest = HostRange { start: cursor, len: rest.len.saturating_sub(bytes) };
            if rest.len == 0 {
                return Ok(Residency { pages, states: states.into_iter().map(PageState).collect() });
            }
        }
    }
}
