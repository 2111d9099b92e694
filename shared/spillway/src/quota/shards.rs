//! How many items carry one account: a function of its limits, so that nobody has to measure or agree on anything.

use super::{Charge, LimitState, Limits, Policy};

/// The most shards of an account.
pub const MOST_SHARDS: u64 = 64;

/// What an item is planned to take, in writes per second: DynamoDB takes 1,000 (Amazon DynamoDB Developer Guide, "Service,
/// account, and table quotas"), and the rest is for refusals and for the luck of the draw.
const PLANNED_WRITES_PER_S: u64 = 400;

/// How long a call takes at least, in milliseconds: what bounds the rate of an account that limits only requests in
/// flight.
const SHORTEST_CALL_MS: u64 = 500;

/// What a request costs at least on average, in tokens: what bounds the rate of an account that limits only tokens.
const LEAST_AVERAGE_TOKENS: u64 = 1_000;

/// The least that a shard may hold: four times a large request (a context of 200,000 and its answer), and sixteen at once.
/// Smaller slices would leave requests without room that the whole account has.
const LEAST_SLICE_TOKENS: u64 = 1_000_000;
const LEAST_SLICE_IN_FLIGHT: u64 = 16;
const LEAST_SLICE_REQUESTS: u64 = 16;
const LEAST_SLICE_MICROUSD: u64 = 10_000_000;

/// The shards of an account without any limit: its rate is not known, and there is nothing to slice.
const UNLIMITED_SHARDS: u64 = 8;

/// How many items carry an account under `limits` whose requests cost `writes` ledger writes each, refusals included.
pub fn shards(limits: &Limits, writes: u64) -> u64 {
    if limits.is_unlimited() {
        return UNLIMITED_SHARDS;
    }
    let wanted = admissions_per_minute(limits)
        .map_or(UNLIMITED_SHARDS, |per_minute| per_minute.saturating_mul(writes).div_ceil(60 * PLANNED_WRITES_PER_S));
    wanted.min(most_slices(limits)).clamp(1, MOST_SHARDS)
}

/// What the limits allow, in admissions per minute; `None` when none of them bounds a rate.
fn admissions_per_minute(limits: &Limits) -> Option<u64> {
    let by_tokens = limits.tokens_per_minute.map(|tokens| tokens.div_ceil(LEAST_AVERAGE_TOKENS));
    let by_slots = limits.in_flight.map(|in_flight| in_flight.saturating_mul(60_000 / SHORTEST_CALL_MS));
    [limits.requests_per_minute, by_tokens, by_slots].into_iter().flatten().min()
}

fn most_slices(limits: &Limits) -> u64 {
    let slices = [
        (limits.requests_per_minute, LEAST_SLICE_REQUESTS),
        (limits.tokens_per_minute, LEAST_SLICE_TOKENS),
        (limits.tokens_per_day, LEAST_SLICE_TOKENS),
        (limits.in_flight, LEAST_SLICE_IN_FLIGHT),
        (limits.microusd_per_month, LEAST_SLICE_MICROUSD),
    ];
    slices.into_iter().filter_map(|(limit, least)| limit.map(|limit| limit / least)).min().unwrap_or(MOST_SHARDS)
}

impl Policy {
    /// The policy of shard `index` of `shards`: its slice of each limit. The slices add up to the limits.
    pub fn slice(&self, index: u64, shards: u64) -> Self {
        let slice = |limit: Option<u64>| limit.map(|limit| limit / shards + u64::from(index < limit % shards));
        let limits = Limits {
            requests_per_minute: slice(self.limits.requests_per_minute),
            tokens_per_minute: slice(self.limits.tokens_per_minute),
            tokens_per_day: slice(self.limits.tokens_per_day),
            in_flight: slice(self.limits.in_flight),
            microusd_per_month: slice(self.limits.microusd_per_month),
        };
        Self { limits, ..*self }
    }

    /// As much of `charge` as these limits can hold: a request that is larger than a slice, but not than the whole limit,
    /// needs an empty slice. What it uses beyond that is settled as debt.
    pub fn fit(&self, charge: &Charge) -> Charge {
        let least = |amount: u64, limit: Option<u64>| limit.map_or(amount, |limit| amount.min(limit));
        Charge {
            requests: charge.requests,
            minute_tokens: least(charge.minute_tokens, self.limits.tokens_per_minute),
            day_tokens: least(charge.day_tokens, self.limits.tokens_per_day),
            cost_microusd: least(charge.cost_microusd, self.limits.microusd_per_month),
        }
    }
}

impl LimitState {
    /// What the state of one shard says about all `shards` of them, as if each stood where this one does.
    pub fn of_all(self, shards: u64) -> Self {
        Self { cap: self.cap.saturating_mul(shards), used: self.used.saturating_mul(shards), ..self }
    }

    /// Two shards' states of one limit together.
    pub fn and(self, other: Self) -> Self {
        Self {
            limit: self.limit,
            cap: self.cap.saturating_add(other.cap),
            used: self.used.saturating_add(other.used),
            reset_ms: self.reset_ms.max(other.reset_ms),
        }
    }
}
