//! What a transfer tells: how far it is, which way its bytes took, and why no better one. It does *not* decide anything.

use super::tier::Tier;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that have arrived, in any order.
    pub done: u64,
    /// Bytes there are.
    pub total: u64,
}

/// Bytes that took one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierShare {
    /// The way.
    pub tier: Tier,
    /// How many.
    pub bytes: u64,
}

/// Why a better tier was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierReason {
    /// The better one.
    pub tier: Tier,
    /// Why not, and what would change it.
    pub reason: String,
}

/// What became of a transfer, so far or in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransferReport {
    /// Bytes that arrived.
    pub bytes: u64,
    /// Of those, the ones from the start of the first part on without a gap, part after part.
    pub arrived: u64,
    /// The ways that they took, best first.
    pub tiers: Vec<TierShare>,
    /// Bytes that passed through memory of limosa's or the page cache on their way: all of those that came `Staged` or
    /// `Buffered`, and the unaligned ends of others.
    pub bounced: u64,
    /// Why better tiers than the ones in `tiers` were ruled out, each reason once.
    pub reasons: Vec<TierReason>,
    /// Where a read was to arrive on the device, and why it did not.
    pub displaced: Option<String>,
    /// Whether the CPU computed checksums of what came from some of the files, as their file systems have it.
    pub checksums: bool,
    /// Requests that the kernel was given.
    pub requests: u64,
}

impl TransferReport {
    /// The worst way that any of its bytes took; `None` if none did.
    #[must_use]
    pub fn tier(&self) -> Option<Tier> {
        self.tiers.last().map(|share| share.tier)
    }

    pub(super) fn count(&mut self, tier: Tier, bytes: u64, bounced: bool) {
        self.bytes += bytes;
        self.bounced += if bounced { bytes } else { 0 };
        match self.tiers.binary_search_by_key(&tier, |share| share.tier) {
            Ok(at) => self.tiers[at].bytes += bytes,
            Err(at) => self.tiers.insert(at, TierShare { tier, bytes }),
        }
    }

    pub(super) fn note(&mut self, reasons: &[TierReason]) {
        for reason in reasons {
            if !self.reasons.contains(reason) {
                self.reasons.push(reason.clone());
            }
        }
        self.reasons.sort_by_key(|reason| reason.tier);
    }
}
