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

/// What a request costs at least on average, in micro-USD: what bounds the rate of an account that limits only money.
const LEAST_AVERAGE_MICROUSD: u64 = 1_000;

/// In how many minutes a day's tokens, or a month's money, may be spent at the fastest: an hour, and a day.
const FASTEST_DAY_MINUTES: u64 = 60;
const FASTEST_MONTH_MINUTES: u64 = 24 * 60;

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
    let Some(per_minute) = admissions_per_minute(limits) else { return UNLIMITED_SHARDS };
    let wanted = per_minute.saturating_mul(writes).div_ceil(60 * PLANNED_WRITES_PER_S);
    wanted.min(most_slices(limits)).clamp(1, MOST_SHARDS)
}

/// What the limits allow at the most, in admissions per minute; `None` without any.
fn admissions_per_minute(limits: &Limits) -> Option<u64> {
    let of_tokens = |tokens: u64| tokens.div_ceil(LEAST_AVERAGE_TOKENS);
    let rates = [
        limits.requests_per_minute,
        limits.tokens_per_minute.map(of_tokens),
        limits.tokens_per_day.map(|tokens| of_tokens(tokens).div_ceil(FASTEST_DAY_MINUTES)),
        limits.in_flight.map(|in_flight| in_flight.saturating_mul(60_000 / SHORTEST_CALL_MS)),
        limits.microusd_per_month.map(|money| money.div_ceil(LEAST_AVERAGE_MICROUSD).div_ceil(FASTEST_MONTH_MINUTES)),
    ];
    rates.into_iter().flatten().min()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::Burst;

    #[test]
    fn shards_follow_from_the_rate_that_the_limits_allow() {
        let of = |limits: Limits| shards(&limits, 2);
        let requests =
            |requests_per_minute| Limits { requests_per_minute: Some(requests_per_minute), ..Limits::default() };
        assert_eq!([600, 12_000, 12_001, 90_000, 100_000_000].map(|limit| of(requests(limit))), [1, 1, 2, 8, 64]);
        let tokens = |tokens_per_minute| Limits { tokens_per_minute: Some(tokens_per_minute), ..Limits::default() };
        assert_eq!([200_000, 12_000_000, 50_000_000].map(|limit| of(tokens(limit))), [1, 1, 5]);
        let slots = |in_flight| Limits { in_flight: Some(in_flight), ..Limits::default() };
        assert_eq!([1, 100, 1_000].map(|limit| of(slots(limit))), [1, 1, 10]);
        assert_eq!(of(Limits { microusd_per_month: Some(500_000_000), ..Limits::default() }), 1, "money is slow");
        assert_eq!(of(Limits { tokens_per_day: Some(20_000_000), ..Limits::default() }), 1);
        assert_eq!(of(Limits::default()), UNLIMITED_SHARDS);
    }

    fn limit(most: u64) -> impl Strategy<Value = Option<u64>> {
        proptest::option::of(prop_oneof![1..=most / 1_000, 1..=most])
    }

    proptest! {
        #[test]
        fn slices_add_up_and_none_is_too_small_for_a_large_request(
            requests_per_minute in limit(2_000_000),
            tokens_per_minute in limit(2_000_000_000),
            tokens_per_day in limit(2_000_000_000_000),
            in_flight in limit(100_000),
            microusd_per_month in limit(2_000_000_000_000),
            writes in 1u64..8,
        ) {
            let limits = Limits { requests_per_minute, tokens_per_minute, tokens_per_day, in_flight, microusd_per_month };
            let burst = Burst { requests_s: 5, tokens_s: 5, is_strict: false };
            let policy = Policy { limits, version: 1, burst, share_percent: 100 };
            let shards = shards(&limits, writes);
            prop_assert!((1..=MOST_SHARDS).contains(&shards));
            let slices: Vec<Limits> = (0..shards).map(|index| policy.slice(index, shards).limits).collect();
            type Part = (fn(&Limits) -> Option<u64>, u64);
            let parts: [Part; 5] = [
                (|limits| limits.requests_per_minute, LEAST_SLICE_REQUESTS),
                (|limits| limits.tokens_per_minute, LEAST_SLICE_TOKENS),
                (|limits| limits.tokens_per_day, LEAST_SLICE_TOKENS),
                (|limits| limits.in_flight, LEAST_SLICE_IN_FLIGHT),
                (|limits| limits.microusd_per_month, LEAST_SLICE_MICROUSD),
            ];
            for (of, least) in parts {
                let Some(whole) = of(&limits) else { continue };
                prop_assert_eq!(slices.iter().filter_map(of).sum::<u64>(), whole);
                prop_assert!(shards == 1 || slices.iter().filter_map(of).all(|slice| slice >= least));
            }
        }
    }
}
