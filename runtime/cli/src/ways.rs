//! Which ways the bytes of many transfers took, and why no better ones: their reports added up.

use std::collections::BTreeMap;

use limosa::{Tier, TierReason, TransferReport};

use crate::units::{bytes, count, float};

/// Files may have reasons of their own: after so many, no more are noted.
const REASONS_MOST: usize = 32;

/// The sum of reports.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Bytes by tier.
    pub(crate) tiers: BTreeMap<Tier, u64>,
    /// Bytes that passed through a ring of the library's, or the page cache.
    pub(crate) bounced: u64,
    /// Requests that the kernel was given.
    pub(crate) requests: u64,
    /// Why not a better tier, each reason once, in the order of tiers.
    pub(crate) reasons: Vec<TierReason>,
    /// Why not all arrived on the device.
    pub(crate) displaced: Option<String>,
}

impl Ways {
    /// Adds a transfer.
    pub(crate) fn add(&mut self, report: &TransferReport) {
        for share in &report.tiers {
            *self.tiers.entry(share.tier).or_default() += share.bytes;
        }
        self.bounced += report.bounced;
        self.requests += report.requests;
        for reason in &report.reasons {
            if self.reasons.len() < REASONS_MOST && !self.reasons.contains(reason) {
                self.reasons.push(reason.clone());
            }
        }
        self.reasons.sort_by_key(|reason| reason.tier);
        self.displaced = self.displaced.take().or_else(|| report.displaced.clone());
    }

    /// Bytes in all.
    pub(crate) fn bytes(&self) -> u64 {
        self.tiers.values().sum()
    }

    /// The tiers, with what came by each.
    pub(crate) fn shares(&self) -> String {
        let all = float(self.bytes().max(1));
        let share = |(tier, part): (&Tier, &u64)| format!("{tier} {:.1} %", 100.0 * float(*part) / all);
        let shares: Vec<String> = self.tiers.iter().map(share).collect();
        let (bounced, requests) = (bytes(self.bounced), count(self.requests));
        format!("{}; {bounced} bounced, {requests} requests", shares.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limosa::TierShare;

    #[test]
    fn reports_are_added_up_and_reasons_are_said_once() {
        let reason = |tier, reason: &str| TierReason { tier, reason: reason.to_owned() };
        let report = |tier, bytes| TransferReport {
            bytes,
            tiers: vec![TierShare { tier, bytes }],
            bounced: 1,
            requests: 2,
            reasons: vec![reason(Tier::Direct, "so"), reason(Tier::P2p, "no shim")],
            ..TransferReport::default()
        };
        let mut ways = Ways::default();
        assert_eq!(ways.bytes(), 0);
        ways.add(&report(Tier::Buffered, 3 << 20));
        ways.add(&report(Tier::Direct, 1 << 20));
        assert_eq!(ways.shares(), "Direct 25.0 %, Buffered 75.0 %; 2 B bounced, 4 requests");
        assert_eq!(ways.reasons, [reason(Tier::P2p, "no shim"), reason(Tier::Direct, "so")]);
    }
}
