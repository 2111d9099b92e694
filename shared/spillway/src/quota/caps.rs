//! How much each window may hold.

use serde::{Deserialize, Serialize};

use super::{Charge, EPOCH_MS, EPOCHS, Limit, Limits, Period, Unit, period::epoch};

/// The limits of one item together with how they are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The limits.
    pub limits: Limits,
    /// Version of the limits; an older one is refused by the item itself.
    pub version: u64,
    /// How much of a minute's limits may come at once.
    pub burst: Burst,
    /// How much of the limits this request may fill, in percent.
    pub share_percent: u64,
}

/// How much of a limit per minute may come at once, in seconds of its even pace: 60 for a whole minute's worth, 5 for
/// an almost even flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Of the requests per minute.
    pub requests_s: u64,
    /// Of the tokens per minute.
    pub tokens_s: u64,
    /// Whether the limit must hold in every minute there is, not only in those that begin with an epoch: all caps are
    /// then lowered by what an unaligned minute can hold more.
    pub is_strict: bool,
}

/// How an entry of the registry spreads its limits; what is absent has the default of its kind.
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

/// The longest burst: what comes at once is never more than a whole minute's worth.
pub const LONGEST_BURST_S: u64 = MINUTE_S;

const EPOCH_S: u64 = EPOCH_MS / 1_000;
const MINUTE_S: u64 = EPOCHS * EPOCH_S;

impl BurstSettings {
    /// The settings, with `default_s` for what is absent.
    pub fn or(self, default_s: u64) -> Burst {
        Burst {
            requests_s: self.requests_s.unwrap_or(default_s),
            tokens_s: self.tokens_s.unwrap_or(default_s),
            is_strict: self.strict,
        }
    }
}

impl Burst {
    /// How much of a minute's limit on `unit` may come at once.
    fn seconds(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests_s,
            Unit::Tokens => self.tokens_s,
            Unit::Microusd | Unit::ConcurrentRequests => MINUTE_S,
        }
    }
}

impl Policy {
    /// What window `window` may hold of `limit`, whose value is `value`, at `at_ms`.
    pub(super) fn cap(&self, limit: Limit, value: u64, window: u64, at_ms: u64) -> u64 {
        match limit.period() {
            Some(Period::Minute) => self.minute_cap(limit, value, (epoch(at_ms) + 1).saturating_sub(window)),
            Some(Period::Day | Period::Month) => self.share(value),
            // At least one request may run, whatever the share.
            None => self.share(value).max(1),
        }
    }

    /// What a window of `age` epochs (1 = the newest) may hold of `limit`, a limit per minute whose value is `value`:
    /// `min(value, value × (age + burst) / 60 s)`, times the share.
    ///
    /// A minute that begins inside an epoch touches one epoch more than a window has, so it can hold up to
    /// `value + cap(1)`. Where it may not, all caps are lowered by `60 / (60 + 5 + burst)`.
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

/// What may be held already so that `amount` more fits under `cap`. Never negative: an amount above a graded cap needs an
/// empty window instead of being impossible ([`too_large`] refuses what no window can take).
pub(super) fn room(cap: u64, amount: u64) -> u64 {
    cap.saturating_sub(amount)
}

/// The limits that `charge` exceeds all by itself, with their caps: it can never be admitted.
pub fn too_large(limits: &Limits, charge: &Charge) -> Vec<(Limit, u64)> {
    limits.iter().filter(|(limit, cap)| charge.get(*limit) > *cap).collect()
}
