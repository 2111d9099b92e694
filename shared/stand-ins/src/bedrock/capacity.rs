//! Capacity of a pool, with the admission rules of Bedrock and the time as an argument.
//!
//! Tokens and requests per minute are token buckets. They start full, refill continuously at a
//! sixtieth of the limit per second, and hold at most the limit of one minute. (AWS does not
//! publish the shape of its window. A bucket never throttles a caller that stays within the limit
//! in *every* minute, but it throttles a caller that spends the quota of two fixed windows around
//! their boundary.) At admission a request takes its input tokens, including cached tokens, and its
//! `max_tokens`. At settlement these are replaced by the tokens that it used, with output tokens
//! multiplied by the burndown. This may exceed the reservation and leave the bucket in debt.

use super::{
    config::SimulatedPool,
    problem::{TOO_MANY_REQUESTS, TOO_MANY_TOKENS, UNITS_BUSY},
};

/// State of a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Capacity {
    tokens: Option<Bucket>,
    requests: Option<Bucket>,
    max_in_flight: Option<u64>,
    in_flight: u64,
}

impl Capacity {
    /// Creates the state of a pool with full buckets.
    pub fn new(pool: &SimulatedPool, now_ms: u64) -> Self {
        Self {
            tokens: pool.tokens_per_minute.map(|limit| Bucket::full(limit, now_ms)),
            requests: pool.requests_per_minute.map(|limit| Bucket::full(limit, now_ms)),
            max_in_flight: pool.in_flight,
            in_flight: 0,
        }
    }

    /// Reserves `reserved_tokens`, a request and a concurrency permit.
    ///
    /// # Errors
    /// Returns the error message of Bedrock, and reserves nothing, if the capacity is exhausted.
    pub fn admit(&mut self, reserved_tokens: u64, now_ms: u64) -> Result<(), &'static str> {
        if self.max_in_flight.is_some_and(|max_in_flight| self.in_flight >= max_in_flight) {
            return Err(UNITS_BUSY);
        }
        if self.requests.as_mut().is_some_and(|bucket| !bucket.has(1, now_ms)) {
            return Err(TOO_MANY_REQUESTS);
        }
        if self.tokens.as_mut().is_some_and(|bucket| !bucket.has(reserved_tokens, now_ms)) {
            return Err(TOO_MANY_TOKENS);
        }
        if let Some(bucket) = &mut self.requests {
            bucket.take(1);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.take(reserved_tokens);
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Ends an admitted request: returns `reserved_tokens` and takes `spent_tokens`.
    pub fn settle(&mut self, reserved_tokens: u64, spent_tokens: u64, now_ms: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(bucket) = &mut self.tokens {
            bucket.refill(now_ms);
            bucket.give(reserved_tokens);
            bucket.take(spent_tokens);
        }
    }
}

/// A token bucket. The level is in units of 1/60,000, so that the refill per millisecond is an
/// integer.
#[derive(Clone, Debug)]
struct Bucket {
    per_minute: i128,
    level: i128,
    refilled_at_ms: u64,
}

const LEVEL_UNIT: i128 = 60_000;

impl Bucket {
    fn full(per_minute: u64, now_ms: u64) -> Self {
        let per_minute = i128::from(per_minute);
        Self { per_minute, level: per_minute * LEVEL_UNIT, refilled_at_ms: now_ms }
    }

    fn has(&mut self, amount: u64, now_ms: u64) -> bool {
        self.refill(now_ms);
        self.level >= i128::from(amount) * LEVEL_UNIT
    }

    fn take(&mut self, amount: u64) {
        self.level -= i128::from(amount) * LEVEL_UNIT;
    }

    fn give(&mut self, amount: u64) {
        self.level += i128::from(amount) * LEVEL_UNIT;
    }

    fn refill(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.refilled_at_ms);
        self.refilled_at_ms = self.refilled_at_ms.max(now_ms);
        self.level = (self.level + i128::from(elapsed_ms) * self.per_minute).min(self.per_minute * LEVEL_UNIT);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(tokens: Option<u64>, requests: Option<u64>, in_flight: Option<u64>) -> Capacity {
        let pool = SimulatedPool {
            tokens_per_minute: tokens,
            requests_per_minute: requests,
            in_flight,
            ..SimulatedPool::default()
        };
        Capacity::new(&pool, 0)
    }

    #[test]
    fn the_default_max_tokens_lets_few_requests_fit() {
        let mut capacity = pool(Some(2_000_000), None, None);
        let admitted = (0..100).take_while(|_| capacity.admit(64_500, 0).is_ok()).count();
        assert_eq!(admitted, 31);
    }

    #[test]
    fn a_refusal_reserves_nothing() {
        let mut capacity = pool(Some(100), Some(2), Some(2));
        assert_eq!(capacity.admit(101, 0), Err(TOO_MANY_TOKENS));
        assert_eq!(capacity.admit(100, 0), Ok(()));
        assert_eq!(capacity.admit(1, 0), Err(TOO_MANY_TOKENS));
        assert_eq!(capacity.admit(0, 0), Ok(()));
        assert_eq!(capacity.admit(0, 0), Err(UNITS_BUSY));
        capacity.settle(100, 0, 0);
        assert_eq!(capacity.admit(0, 0), Err(TOO_MANY_REQUESTS));
        assert_eq!(capacity.admit(100, 30_000), Ok(()));
    }

    #[test]
    fn burndown_beyond_the_reservation_leaves_a_debt_that_time_repays() {
        let mut capacity = pool(Some(6_000), None, None);
        capacity.admit(2_000, 0).unwrap();
        capacity.settle(2_000, 9_000, 0);
        assert_eq!(capacity.admit(1, 30_000), Err(TOO_MANY_TOKENS));
        assert_eq!(capacity.admit(1, 30_010), Ok(()));
    }

    proptest! {
        /// Any minute admits at most the level of the bucket at its start plus one refill.
        #[test]
        fn no_minute_admits_more_than_a_full_bucket_and_its_refill(
            steps in prop::collection::vec((0u64..5_000, 1u64..400, 0u64..400), 1..200),
            limit in 1u64..2_000,
        ) {
            let mut capacity = pool(Some(limit), None, None);
            let mut now_ms = 0;
            let mut spent: Vec<(u64, u64)> = Vec::new();
            for (wait_ms, reserved, used) in steps {
                now_ms += wait_ms;
                if capacity.admit(reserved, now_ms).is_ok() {
                    let used = used.min(reserved);
                    capacity.settle(reserved, used, now_ms);
                    spent.push((now_ms, used));
                }
            }
            for (index, (from_ms, _)) in spent.iter().enumerate() {
                let minute = spent[index..].iter().take_while(|(at_ms, _)| *at_ms < from_ms + 60_000);
                prop_assert!(minute.map(|(_, used)| used).sum::<u64>() <= 2 * limit);
            }
        }

        /// A caller that stays within the limit in every minute is never throttled.
        #[test]
        fn a_caller_within_the_limit_in_every_minute_is_never_refused(
            steps in prop::collection::vec((0u64..20_000, 1u64..400), 1..100),
            limit in 400u64..2_000,
        ) {
            let mut capacity = pool(Some(limit), None, None);
            let mut now_ms = 0;
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (wait_ms, tokens) in steps {
                now_ms += wait_ms;
                let recent: u64 =
                    admitted.iter().filter(|(at_ms, _)| at_ms + 60_000 > now_ms).map(|(_, tokens)| tokens).sum();
                if recent + tokens <= limit {
                    prop_assert_eq!(capacity.admit(tokens, now_ms), Ok(()));
                    capacity.settle(tokens, tokens, now_ms);
                    admitted.push((now_ms, tokens));
                }
            }
        }
    }
}
