//! Caps: the amount that each window may hold.

use serde::{Deserialize, Serialize};

use super::{CARRY_EPOCH, Charge, EPOCH, EPOCHS, Limit, Limits, Period, Unit};
use crate::units::{Millis, UnixMs};

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
    /// Whether tokens that a minute leaves unused carry over to the next minutes. Tokens are then
    /// counted in windows of [`Period::FiveMinutes`], and the size of a request does not matter. It
    /// excludes `is_strict`.
    pub carries_over: bool,
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

/// Last part of a window of five minutes, in which it pays back its burst: longer than any burst.
const PAYBACK: Millis = Millis::from_s(75);

const CARRY_WINDOW_MS: u128 = (EPOCHS * CARRY_EPOCH.as_ms()) as u128;
const PAYBACK_MS: u128 = PAYBACK.as_ms() as u128;
const FREE_MS: u128 = CARRY_WINDOW_MS - PAYBACK_MS;

const _: () = assert!(PAYBACK.as_ms() > MAX_BURST_S * 1_000, "a longer burst could not be paid back");

/// Percent × milliseconds of a minute × [`PAYBACK_MS`].
const CARRY_SCALE: u128 = 100 * 1_000 * MINUTE_S as u128 * PAYBACK_MS;

impl BurstSettings {
    /// Fills absent settings with `default_s`.
    pub fn or(self, default_s: u64) -> Burst {
        Burst {
            requests_s: self.requests_s.unwrap_or(default_s),
            tokens_s: self.tokens_s.unwrap_or(default_s),
            is_strict: self.strict,
            carries_over: false,
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

    fn tokens_ms(&self) -> u128 {
        u128::from(self.tokens_s) * 1_000
    }
}

impl Policy {
    /// Returns the amount that window `window` may hold at `at` under `limit`, whose value is
    /// `value`.
    pub(super) fn cap(&self, limit: Limit, value: u64, window: u64, at: UnixMs) -> u64 {
        match limit.windows_period(self.burst.carries_over) {
            Some(Period::Minute) => self.minute_cap(limit, value, (at / EPOCH + 1).saturating_sub(window)),
            Some(period @ Period::FiveMinutes) => self.carry_cap(value, at - period.begins_at(window)),
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

    /// Returns the amount that window `window` may already hold at `at` so that `amount` more fits
    /// under `limit`, whose value is `value`.
    ///
    /// If tokens carry over, the size of a request does not matter: a request is admitted if the
    /// requests before it kept to the cap, and its own excess is paid back before the next one.
    /// Otherwise, small requests would take all room before a large one finds enough.
    pub(super) fn room(&self, limit: Limit, value: u64, window: u64, at: UnixMs, amount: u64) -> u64 {
        let cap = self.cap(limit, value, window, at);
        let is_carried = self.burst.carries_over && limit.windows_period(true) == Some(Period::FiveMinutes);
        if is_carried { cap } else { room(cap, amount) }
    }

    /// Returns the amount that a window of five minutes may hold at `age` under a limit of `value`
    /// per minute: `value × (age + burst) / 60 s`. In its last [`PAYBACK`] it grows more slowly, so
    /// that it holds five minutes' worth when it ends.
    ///
    /// With a burst of at most a minute less a [`CARRY_EPOCH`], a pool exceeds a token bucket that
    /// holds a minute's worth only by its last request, in any span that lies in a window. A span
    /// of up to 275 s does, and the window began at most a [`CARRY_EPOCH`] earlier.
    fn carry_cap(&self, value: u64, age: Millis) -> u64 {
        let age_ms = u128::from(age.as_ms()).min(CARRY_WINDOW_MS);
        let burst_ms = self.burst.tokens_ms();
        let payback_ms = age_ms.saturating_sub(FREE_MS);
        let time = (burst_ms + age_ms.min(FREE_MS)) * PAYBACK_MS + payback_ms * (PAYBACK_MS - burst_ms);
        u64::try_from(self.rate(value) * time / CARRY_SCALE).unwrap_or(u64::MAX)
    }

    /// Returns the age from which a window of five minutes may hold `held` under a limit of `value`
    /// per minute: the inverse of [`carry_cap`](Self::carry_cap). `None` if it may never hold that.
    pub(super) fn carry_age(&self, value: u64, held: u64) -> Option<Millis> {
        let rate = self.rate(value);
        if rate == 0 {
            return None;
        }
        let time = (u128::from(held) * CARRY_SCALE).div_ceil(rate);
        let burst_ms = self.burst.tokens_ms();
        let free = (burst_ms + FREE_MS) * PAYBACK_MS;
        let age_ms = match time.checked_sub(free) {
            None | Some(0) => time.div_ceil(PAYBACK_MS).saturating_sub(burst_ms),
            Some(beyond) => FREE_MS + beyond.div_ceil(PAYBACK_MS - burst_ms),
        };
        Some(Millis::from_ms(u64::try_from(age_ms).unwrap_or(u64::MAX)))
    }

    /// Returns the rate of a limit of `value` per minute, in units of [`CARRY_SCALE`].
    fn rate(&self, value: u64) -> u128 {
        u128::from(value) * u128::from(self.share_percent)
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
