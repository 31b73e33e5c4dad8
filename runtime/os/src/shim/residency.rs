//! Where the pages of a range are. It does *not* move any or keep one from moving.

use std::os::fd::AsFd;

use limosa_model::{HostAddr, HostRange};

use super::call::{call, interrupted, size};
use super::uapi::{
    LIMOSA_RESIDENCY, LIMOSA_RESIDENCY_COHERENT, LIMOSA_RESIDENCY_HUGE, LIMOSA_RESIDENCY_PLACE,
    LIMOSA_RESIDENCY_PRIVATE, LIMOSA_RESIDENCY_SYSTEM, LIMOSA_RESIDENCY_WRITABLE, limosa_residency,
};
use super::{Place, Shim, ShimError};

/// How many pages are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// Nothing is mapped there now, or it is in another device's private memory.
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
        let too_many = || ShimError::NotMapped { address: range.start };
        let count = usize::try_from(range.len.div_ceil(page_size)).map_err(|_| too_many())?;
        let mut states: Vec<u8> = Vec::new();
        states.try_reserve_exact(count).map_err(|_| too_many())?;
        let mut pages = PageCounts::default();
        let mut rest = range;
        loop {
            let mut residency = limosa_residency {
                size: size::<limosa_residency>(),
                addr: rest.start.0,
                len: rest.len,
                states: states.spare_capacity_mut().as_mut_ptr().addr() as u64,
                cursor: rest.start.0,
                ..Default::default()
            };
            // SAFETY: the request's own struct; at `states` there is room for a byte for each page that is left.
            let result = unsafe { call(self.as_fd(), LIMOSA_RESIDENCY, &mut residency) };
            let cursor = HostAddr(residency.cursor);
            let bytes = cursor.0.wrapping_sub(rest.start.0);
            match result {
                Err(error) if !interrupted(&error) => {
                    return Err(ShimError::on_range("asking where pages are", range, cursor, error));
                }
                _ => {}
            }
            let told = usize::try_from(bytes / page_size).unwrap_or(usize::MAX).min(count - states.len());
            // SAFETY: within the capacity, and the call wrote a byte for each page before the cursor.
            unsafe { states.set_len(states.len() + told) };
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
