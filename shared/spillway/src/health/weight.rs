//! Weight of a pool among equal pools, from its health.
//!
//! Pure: time is an argument.

use crate::units::{Millis, UnixMs};

/// Time after which a call counts half.
const HALF_LIFE: Millis = Millis::from_s(30);

/// Time after an outage in which the weight of a pool rises to what its calls deserve.
const RISE_TIME: Millis = Millis::from_s(60);

/// Weight of a pool that an outage has just ended for, and least weight of any pool.
const MIN_WEIGHT: f64 = 0.05;

/// The recent calls of a pool: how many succeeded and how many failed. A call counts less the
/// longer ago it was.
#[derive(Debug, Default)]
pub struct RecentCalls {
    successes: f64,
    failures: f64,
    at: UnixMs,
}

impl RecentCalls {
    /// Records a call that ended at `now`.
    pub fn record(&mut self, is_failure: bool, now: UnixMs) {
        let left = self.left(now);
        let (success, failure) = if is_failure { (0.0, 1.0) } else { (1.0, 0.0) };
        (self.successes, self.failures) = (self.successes * left + success, self.failures * left + failure);
        self.at = self.at.max(now);
    }

    /// Returns the weight of the pool at `now`, at most 1: the share of its recent calls that did
    /// not fail. After the outage that ended at `outage_ended_at`, it rises from almost nothing
    /// for a minute, so that not all callers return to the pool at the same time.
    pub fn weight(&self, outage_ended_at: UnixMs, now: UnixMs) -> f64 {
        let left = self.left(now);
        let (successes, failures) = (self.successes * left, self.failures * left);
        let works = (successes + 1.0) / (successes + failures + 1.0);
        let risen = ratio(now - outage_ended_at, RISE_TIME).min(1.0);
        (works * risen).max(MIN_WEIGHT)
    }

    /// Returns what is left of the counts at `now`, as a factor.
    fn left(&self, now: UnixMs) -> f64 {
        (-ratio(now - self.at, HALF_LIFE)).exp2()
    }
}

#[expect(clippy::cast_precision_loss, reason = "times of this process are far below 2^53 ms")]
fn ratio(time: Millis, unit: Millis) -> f64 {
    time.as_ms() as f64 / unit.as_ms() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixMs = UnixMs::from_ms(1_800_000_000_000);
    const NEVER: UnixMs = UnixMs::from_ms(0);

    fn after(s: u64) -> UnixMs {
        START + Millis::from_s(s)
    }

    #[test]
    fn failures_lower_the_weight_and_are_forgotten() {
        let mut calls = RecentCalls::default();
        assert!((calls.weight(NEVER, START) - 1.0).abs() < 1e-9, "a pool without calls");
        for _ in 0..99 {
            calls.record(false, START);
        }
        calls.record(true, START);
        assert!(calls.weight(NEVER, START) > 0.98, "one failure of many calls");
        for _ in 0..100 {
            calls.record(true, START);
        }
        assert!(calls.weight(NEVER, START) < 0.52);
        assert!(calls.weight(NEVER, after(600)) > 0.95);
    }

    #[test]
    fn a_pool_that_just_came_back_gets_load_gradually() {
        let calls = RecentCalls::default();
        let weights = [0, 15, 30, 45, 60, 90].map(|s| calls.weight(START, after(s)));
        for (weight, wanted) in weights.into_iter().zip([MIN_WEIGHT, 0.25, 0.5, 0.75, 1.0, 1.0]) {
            assert!((weight - wanted).abs() < 1e-9, "{weights:?}");
        }
    }

    proptest! {
        #[test]
        fn a_weight_is_never_nothing_and_never_above_one(
            calls in proptest::collection::vec((any::<bool>(), 0_u64..100_000), 0..100), ended_s in 0_u64..1_000,
        ) {
            let (mut recent, mut now) = (RecentCalls::default(), START);
            for (is_failure, pause_ms) in calls {
                now += Millis::from_ms(pause_ms);
                recent.record(is_failure, now);
                let weight = recent.weight(after(ended_s), now);
                prop_assert!((MIN_WEIGHT..=1.0).contains(&weight), "{weight}");
            }
        }
    }
}
