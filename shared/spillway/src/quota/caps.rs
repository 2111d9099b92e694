//! How much each window may hold.

use super::{Charge, EPOCHS, Limit, Limits};

/// The limits of one item together with how they are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The limits.
    pub limits: Limits,
    /// Version of the limits; an older one is refused by the item itself.
    pub version: u64,
    /// How much of a minute's limit may come at once, in epochs: `EPOCHS` for all of it, 1 to spread it evenly.
    pub burst_epochs: u64,
    /// How much of the limits this request may fill, in percent.
    pub share_percent: u64,
}

impl Policy {
    /// What a window of `age` epochs (1 = the newest) may hold of `limit`:
    /// `min(limit, limit × (age + burst) / EPOCHS)`, times the share.
    pub(super) fn cap(&self, limit: u64, age: u64) -> u64 {
        let steps = (age + self.burst_epochs).min(EPOCHS);
        let cap = u128::from(limit) * u128::from(steps) * u128::from(self.share_percent) / (u128::from(EPOCHS) * 100);
        u64::try_from(cap).unwrap_or(u64::MAX)
    }

    /// What a window may hold already so that `amount` more is admitted. Never negative: an amount above a graded cap
    /// needs an empty window instead of being impossible ([`too_large`] refuses what no window can take).
    pub(super) fn room(&self, limit: u64, age: u64, amount: u64) -> u64 {
        self.cap(limit, age).saturating_sub(amount)
    }

    /// How many requests may run at once; at least one, whatever the share.
    pub(super) fn in_flight_cap(&self, limit: u64) -> u64 {
        self.cap(limit, EPOCHS).max(1)
    }
}

/// The limits that `charge` exceeds all by itself, with their caps: it can never be admitted.
pub fn too_large(limits: &Limits, charge: &Charge) -> Vec<(Limit, u64)> {
    let sizes = [
        (Limit::RequestsPerMinute, limits.requests_per_minute, charge.requests),
        (Limit::TokensPerMinute, limits.tokens_per_minute, charge.quota_tokens),
        (Limit::TokensPerDay, limits.tokens_per_day, charge.quota_tokens),
        (Limit::MicrousdPerMonth, limits.microusd_per_month, charge.cost_microusd),
        (Limit::InFlight, limits.in_flight, charge.requests),
    ];
    sizes.into_iter().filter_map(|(limit, cap, size)| cap.filter(|cap| size > *cap).map(|cap| (limit, cap))).collect()
}
