//! Caps: the amount that each window may hold.

use serde::{Deserialize, Serialize};

use super::{Charge, EPOCH, EPOCHS, Limit, Limits, Period, Unit, period::epoch};
use crate::units::UnixMs;

/// Limits of one item, and how they are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Limits of the item.
    pub limits: Limits,
    /// Version of the limits. The item refuses writes under an older version.
    pub version: u64,
    /// Part of a minute's limits that may be used in one burst.
    pub burst: Burst,
    /// Share of the limits that this request may fill, in percent.
    pub share_percent: u64,
}

/// Size of a burst, in seconds of a limit's even rate: 60 allows a whole minute's worth in one
/// burst, 5 an almost even flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Burst of the requests per minute.
    pub requests_s: u64,
    /// Burst of the tokens per minute.
    pub tokens_s: u64,
    /// Whether the limit holds in every minute, not only in minutes that begin with an epoch. All
    /// caps are then lowered by the excess that an unaligned minute can hold.
    pub is_strict: bool,
}

/// Burst settings of a registry entry. An absent setting takes the default of the entry's kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BurstSettings {
    /// [`Burst::requests_s`], 0 to 60.
    pub requests_s: Option<u64>,
    /// [`Burst::tokens_s`], 0 to 60.
    pub tokens_s: Option<u64>,
    /// [`Burst::is_strict`].
    #[serde(default)]
    pub strict: bool,
}

/// Maximum burst, in seconds: a whole minute's worth.
pub const MAX_BURST_S: u64 = MINUTE_S;

const EPOCH_S: u64 = EPOCH.as_ms() / 1_000;
const MINUTE_S: u64 = EPOCHS * EPOCH_S;

impl BurstSettings {
    /// Fills absent settings with `default_s`.
    pub fn or(self, default_s: u64) -> Burst {
        Burst {
            requests_s: self.requests_s.unwrap_or(default_s),
            tokens_s: self.tokens_s.unwrap_or(default_s),
            is_strict: self.strict,
        }
    }
}

impl Burst {
    /// Returns the burst of a limit per minute that counts in `unit`.
    fn seconds(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests_s,
            Unit::Tokens => self.tokens_s,
            Unit::Microusd | Unit::ConcurrentRequests => MINUTE_S,
        }
    }
}

impl Policy {
    /// Returns the amount that window `window` may hold at `at` under `limit`, whose value is
    /// `value`.
    pub(super) fn cap(&self, limit: Limit, value: u64, window: u64, at: UnixMs) -> u64 {
        match limit.period() {
            Some(Period::Minute) => self.minute_cap(limit, value, (epoch(at) + 1).saturating_sub(window)),
            Some(Period::Day | Period::Month) => self.share(value),
            // At least one request may run under any share.
            None => self.share(value).max(1),
        }
    }

    /// Returns the amount that a window of `age` epochs (1 = the newest) may hold under `limit`, a
    /// limit per minute whose value is `value`: `min(value, value × (age + burst) / 60 s)`, times
    /// the share.
    ///
    /// A minute that begins inside an epoch touches one epoch more than a window has, so it can
    /// hold up to `value + cap(1)`. A strict burst prevents that: it lowers all caps by
    /// `60 / (60 + 5 + burst)`.
    pub(super) fn minute_cap(&self, limit: Limit, value: u64, age: u64) -> u64 {
        let burst_s = self.burst.seconds(limit.unit());
        let seconds = (age * EPOCH_S + burst_s).min(MINUTE_S);
        let whole_s = if self.burst.is_strict { MINUTE_S + EPOCH_S + burst_s } else { MINUTE_S };
        let cap = u128::from(value) * u128::from(seconds) * u128::from(self.share_percent);
        u64::try_from(cap / (u128::from(whole_s) * 100)).unwrap_or(u64::MAX)
    }

    fn share(&self, value: u64) -> u64 {
        let share = u128::from(value) * u128::from(self.share_percent) / 100;
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// Returns the amount that a window may already hold so that `amount` more fits under `cap`. It is
/// never negative: an amount above a graded cap needs an empty window instead of being impossible.
/// [`too_large`] refuses amounts that no window can hold.
pub(super) fn room(cap: u64, amount: u64) -> u64 {
    cap.saturating_sub(amount)
}

/// Returns the limits that `charge` alone exceeds, with their values. Such a charge can never be
/// admitted.
pub fn too_large(limits: &Limits, charge: &Charge) -> Vec<(Limit, u64)> {
    limits.iter().filter(|(limit, cap)| charge.get(*limit) > *cap).collect()
}
