//! How many items carry one account: a function of its limits, so that nobody has to measure or agree on anything.

use super::{Charge, Limit, LimitState, Limits, Period, Policy, Unit};

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
    let rate = |(limit, value): (Limit, u64)| {
        let admissions = match limit.unit() {
            Unit::Requests => value,
            Unit::Tokens => value.div_ceil(LEAST_AVERAGE_TOKENS),
            Unit::Microusd => value.div_ceil(LEAST_AVERAGE_MICROUSD),
            Unit::ConcurrentRequests => value.saturating_mul(60_000 / SHORTEST_CALL_MS),
        };
        admissions.div_ceil(match limit.period() {
            Some(Period::Day) => FASTEST_DAY_MINUTES,
            Some(Period::Month) => FASTEST_MONTH_MINUTES,
            Some(Period::Minute) | None => 1,
        })
    };
    limits.iter().map(rate).min()
}

/// How many slices the limits allow so that none is too small.
fn most_slices(limits: &Limits) -> u64 {
    limits.iter().map(|(limit, value)| value / least_slice(limit)).min().unwrap_or(MOST_SHARDS)
}

fn least_slice(limit: Limit) -> u64 {
    match limit.unit() {
        Unit::Requests => LEAST_SLICE_REQUESTS,
        Unit::Tokens => LEAST_SLICE_TOKENS,
        Unit::Microusd => LEAST_SLICE_MICROUSD,
        Unit::ConcurrentRequests => LEAST_SLICE_IN_FLIGHT,
    }
}

impl Policy {
    /// The policy of shard `index` of `shards`: its slice of each limit. The slices add up to the limits.
    pub fn slice(&self, index: u64, shards: u64) -> Self {
        let mut limits = self.limits;
        for (limit, whole) in self.limits.iter() {
            *limits.get_mut(limit) = Some(whole / shards + u64::from(index < whole % shards));
        }
        Self { limits, ..*self }
    }

    /// As much of `charge` as these limits can hold: a request that is larger than a slice, but not than the whole limit,
    /// needs an empty slice. What it uses beyond that is settled as debt.
    pub fn fit(&self, charge: &Charge) -> Charge {
        let mut fitted = *charge;
        for (limit, most) in self.limits.iter() {
            match limit.unit() {
                // A request is there or not.
                Unit::Requests | Unit::ConcurrentRequests => {}
                Unit::Tokens | Unit::Microusd => {
                    let amount = fitted.get_mut(limit);
                    *amount = (*amount).min(most);
                }
            }
        }
        fitted
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
            for (limit, whole) in limits.iter() {
                let parts: Vec<u64> = slices.iter().filter_map(|slice| slice.get(limit)).collect();
                prop_assert_eq!(parts.iter().sum::<u64>(), whole);
                prop_assert!(shards == 1 || parts.iter().all(|slice| *slice >= least_slice(limit)));
            }
        }
    }
}
