//! Shards: the number of items of an account, and the slice of the limits that each holds. It is a
//! function of the limits, so that processes need not measure or agree on anything.

use super::{Charge, Limit, LimitState, Limits, Period, Policy, Unit};
use crate::units::Millis;

/// Maximum number of shards of an account.
pub const MAX_SHARDS: u64 = 64;

/// Planned load of an item, in writes per second. DynamoDB accepts 1,000 (Amazon DynamoDB Developer
/// Guide, "Service, account, and table quotas"). The rest is for refusals and for an uneven random
/// choice of shards.
const PLANNED_WRITES_PER_S: u64 = 400;

/// Minimum duration of a call. It bounds the rate of an account that limits only requests in
/// flight.
const MIN_CALL: Millis = Millis::from_ms(500);

/// Minimum average cost of a request, in tokens. It bounds the rate of an account that limits only
/// tokens.
const MIN_AVERAGE_TOKENS: u64 = 1_000;

/// Minimum average cost of a request, in micro-USD. It bounds the rate of an account that limits
/// only money.
const MIN_AVERAGE_MICROUSD: u64 = 1_000;

/// Minimum time in which a day's tokens are spent: an hour.
const MIN_DAY_MINUTES: u64 = 60;

/// Minimum time in which a month's money is spent: a day.
const MIN_MONTH_MINUTES: u64 = 24 * 60;

/// Minimum slices: four times a large request (a context of 200,000 tokens and its answer), and
/// sixteen concurrent requests. Smaller slices would refuse requests that fit the whole account.
const MIN_SLICE_TOKENS: u64 = 1_000_000;
const MIN_SLICE_IN_FLIGHT: u64 = 16;
const MIN_SLICE_REQUESTS: u64 = 16;
const MIN_SLICE_MICROUSD: u64 = 10_000_000;

/// Number of shards of an account without limits: its rate is unknown, and there is nothing to
/// slice.
const UNLIMITED_SHARDS: u64 = 8;

/// Returns the number of shards of an account under `limits` whose requests take `writes` ledger
/// writes each, refusals included.
pub fn shards(limits: &Limits, writes: u64) -> u64 {
    let Some(per_minute) = admissions_per_minute(limits) else { return UNLIMITED_SHARDS };
    let wanted = per_minute.saturating_mul(writes).div_ceil(60 * PLANNED_WRITES_PER_S);
    wanted.min(max_slices(limits)).clamp(1, MAX_SHARDS)
}

/// Returns the admissions per minute that the limits allow; `None` if no limit is set.
fn admissions_per_minute(limits: &Limits) -> Option<u64> {
    let rate = |(limit, value): (Limit, u64)| {
        let admissions = match limit.unit() {
            Unit::Requests => value,
            Unit::Tokens => value.div_ceil(MIN_AVERAGE_TOKENS),
            Unit::Microusd => value.div_ceil(MIN_AVERAGE_MICROUSD),
            Unit::ConcurrentRequests => value.saturating_mul(60_000 / MIN_CALL.as_ms()),
        };
        admissions.div_ceil(match limit.period() {
            Some(Period::Day) => MIN_DAY_MINUTES,
            Some(Period::Month) => MIN_MONTH_MINUTES,
            Some(Period::Minute | Period::FiveMinutes) | None => 1,
        })
    };
    limits.iter().map(rate).min()
}

/// Returns the maximum number of slices of which none is too small.
fn max_slices(limits: &Limits) -> u64 {
    limits.iter().map(|(limit, value)| value / min_slice(limit)).min().unwrap_or(MAX_SHARDS)
}

fn min_slice(limit: Limit) -> u64 {
    match limit.unit() {
        Unit::Requests => MIN_SLICE_REQUESTS,
        Unit::Tokens => MIN_SLICE_TOKENS,
        Unit::Microusd => MIN_SLICE_MICROUSD,
        Unit::ConcurrentRequests => MIN_SLICE_IN_FLIGHT,
    }
}

impl Policy {
    /// Returns the policy of shard `index` of `shards`, with its slice of each limit. The slices
    /// add up to the limits.
    pub fn slice(&self, index: u64, shards: u64) -> Self {
        let mut limits = self.limits;
        for (limit, whole) in self.limits.iter() {
            *limits.get_mut(limit) = Some(whole / shards + u64::from(index < whole % shards));
        }
        Self { limits, ..*self }
    }

    /// Caps `charge` at these limits. A request that exceeds a slice, but not the whole limit,
    /// needs an empty slice. Its use beyond the slice is settled as debt. A request with more
    /// unreserved tokens than these limits allow is charged in full.
    pub fn fit(&self, charge: &Charge) -> Charge {
        let mut fitted = self.bound_unreserved(charge);
        for (limit, value) in self.limits.iter() {
            fitted.lower(limit, value);
        }
        fitted
    }
}

impl LimitState {
    /// Extrapolates the state of one shard to all `shards`, as if all were alike.
    pub fn for_all_shards(self, shards: u64) -> Self {
        Self { cap: self.cap.saturating_mul(shards), used: self.used.saturating_mul(shards), ..self }
    }

    /// Adds the state of the same limit on another shard.
    pub fn merge(self, shard: Self) -> Self {
        Self {
            limit: self.limit,
            cap: self.cap.saturating_add(shard.cap),
            used: self.used.saturating_add(shard.used),
            resets_in: self.resets_in.max(shard.resets_in),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::Burst;

    #[test]
    fn the_number_of_shards_follows_from_the_rate_that_the_limits_allow() {
        let count = |limits: Limits| shards(&limits, 2);
        let requests =
            |requests_per_minute| Limits { requests_per_minute: Some(requests_per_minute), ..Limits::default() };
        assert_eq!([600, 12_000, 12_001, 90_000, 100_000_000].map(|limit| count(requests(limit))), [1, 1, 2, 8, 64]);
        let tokens = |tokens_per_minute| Limits { tokens_per_minute: Some(tokens_per_minute), ..Limits::default() };
        assert_eq!([200_000, 12_000_000, 50_000_000].map(|limit| count(tokens(limit))), [1, 1, 5]);
        let slots = |in_flight| Limits { in_flight: Some(in_flight), ..Limits::default() };
        assert_eq!([1, 100, 1_000].map(|limit| count(slots(limit))), [1, 1, 10]);
        assert_eq!(
            count(Limits { microusd_per_month: Some(500_000_000), ..Limits::default() }),
            1,
            "a budget per month allows few requests"
        );
        assert_eq!(count(Limits { tokens_per_day: Some(20_000_000), ..Limits::default() }), 1);
        assert_eq!(count(Limits::default()), UNLIMITED_SHARDS);
    }

    /// Limits up to 200,000 times the minimum slice.
    fn limits() -> impl Strategy<Value = Limits> {
        let value = |limit| {
            let max = 200_000 * min_slice(limit);
            proptest::option::of(prop_oneof![1..=max / 1_000, 1..=max])
        };
        let values: Vec<_> = Limit::iter().map(value).collect();
        values.prop_map(|values| {
            let mut limits = Limits::default();
            for (limit, value) in Limit::iter().zip(values) {
                *limits.get_mut(limit) = value;
            }
            limits
        })
    }

    proptest! {
        #[test]
        fn slices_add_up_and_each_holds_a_large_request(limits in limits(), writes in 1u64..8) {
            let burst = Burst { requests_s: 5, tokens_s: 5, is_strict: false, carries_over: false };
            let policy = Policy { limits, version: 1, burst, share_percent: 100 };
            let shards = shards(&limits, writes);
            prop_assert!((1..=MAX_SHARDS).contains(&shards));
            let slices: Vec<Limits> = (0..shards).map(|index| policy.slice(index, shards).limits).collect();
            for (limit, whole) in limits.iter() {
                let parts: Vec<u64> = slices.iter().filter_map(|slice| slice.get(limit)).collect();
                prop_assert_eq!(parts.iter().sum::<u64>(), whole);
                prop_assert!(shards == 1 || parts.iter().all(|slice| *slice >= min_slice(limit)));
            }
        }
    }
}
