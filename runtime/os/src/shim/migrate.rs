//! Moving a range of this process's memory to the device and back. It does *not* choose what to move.

use std::os::fd::AsFd;

use limosa_model::{HostAddr, HostRange};

use super::call::{call, interrupted, size};
use super::uapi::{
    LIMOSA_MIGRATE, LIMOSA_PLACE_COHERENT, LIMOSA_PLACE_PRIVATE, LIMOSA_PLACE_SYSTEM, limosa_migrate, limosa_place,
};
use super::{Shim, ShimError};

/// Where a page can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In system RAM.
    System,
    /// In device memory that the CPU does not address: its access brings the page back.
    Private,
    /// In device memory that the CPU addresses: the page stays until it is moved.
    Coherent,
}

impl Place {
    fn number(self) -> limosa_place {
        match self {
            Self::System => LIMOSA_PLACE_SYSTEM,
            Self::Private => LIMOSA_PLACE_PRIVATE,
            Self::Coherent => LIMOSA_PLACE_COHERENT,
        }
    }
}

/// What became of the pages of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Pages that were moved.
    pub moved: u64,
    /// How often 2 MiB were moved as one; their pages are in `moved`, too.
    pub moved_huge: u64,
    /// Pages that were not: they were there, there was nothing to bring back, or the kernel cannot move them (shared or
    /// file-backed memory, pages pinned for I/O). [`Shim::residency`] tells which are where.
    pub left: u64,
}

/// A move that stopped on its way. What it moved stays moved; to go on, move the rest of the range.
#[derive(Debug, thiserror::Error)]
#[error("{cause} (stopped at {:#x}, after {} pages were moved)", cursor.0, done.moved)]
pub struct MigrateError {
    /// Why.
    #[source]
    pub cause: ShimError,
    /// The first address that was not dealt with.
    pub cursor: HostAddr,
    /// What became of the pages before it.
    pub done: Migrated,
}

impl Shim {
    /// Moves the pages of `range` to `to`, as far as the kernel can move them, and goes on after signals. Memory that was
    /// never touched is moved to a device, too, as zeros. The contents stay what they are: safe on any address, see the
    /// module's text.
    ///
    /// # Errors
    /// With how far it came: [`ShimError::DeviceFull`], [`ShimError::LimitReached`], [`ShimError::OutOfMemory`],
    /// [`ShimError::NotMapped`], [`ShimError::BadRange`], [`ShimError::Unsupported`] (the device has no such memory),
    /// [`ShimError::OtherProcess`], [`ShimError::DeviceGone`].
    pub fn migrate(&self, range: HostRange, to: Place) -> Result<Migrated, MigrateError> {
        let mut done = Migrated::default();
        let mut rest = range;
        loop {
            let mut migrate = limosa_migrate {
                size: size::<limosa_migrate>(),
                addr: rest.start.0,
                len: rest.len,
                to: to.number(),
                // Where it is if the call does not begin.
                cursor: rest.start.0,
                ..Default::default()
            };
            // SAFETY: the request's own struct. The call moves memory and changes no byte of it.
            let result = unsafe { call(self.as_fd(), LIMOSA_MIGRATE, &mut migrate) };
            done.moved += migrate.moved;
            done.moved_huge += migrate.moved_huge;
            done.left += migrate.left;
            let cursor = HostAddr(migrate.cursor);
            rest = HostRange { start: cursor, len: rest.len.saturating_sub(cursor.0.wrapping_sub(rest.start.0)) };
            match result {
                Err(error) if interrupted(&error) && rest.len > 0 => {}
                Err(error) if !interrupted(&error) => {
                    let cause = ShimError::on_range("moving pages to that place", range, cursor, error);
                    return Err(MigrateError { cause, cursor, done });
                }
                _ => return Ok(done),
            }
        }
    }
}
