//! Circuit breaker of one pool (Nygard, "Release It!").
//!
//! Pure: time and jitter are arguments.

use crate::{
    outage::{MAX_OUTAGE, Outage, OutageCause},
    units::{Millis, UnixMs},
};

/// Number of failures in a row, of calls that a server answered or began to answer, that open the
/// breaker. A single one can be the fault of its request.
const MAX_DOUBTFUL_FAILURES: u32 = 3;

/// Time in which a probe must end. After it, another call may probe the pool.
const PROBE_TIME: Millis = Millis::from_s(15);

/// Time without an outage after which the next outage is a first one again. It is longer than the
/// longest outage, so that a pool that fails after every probe stays out for longer and longer.
const STREAK_TIME: Millis = Millis::from_s(2 * MAX_OUTAGE.as_ms() / 1_000);

/// A circuit breaker. While it is closed, calls pass. A failure opens it for the time of an outage.
/// Then one call probes the pool: its success closes the breaker, its failure opens it again.
#[derive(Debug, Default)]
pub struct CircuitBreaker {
    /// The outage while the breaker is open, and until a probe has succeeded.
    outage: Option<Outage>,
    /// End of the time of the running probe.
    probe_ends: UnixMs,
    /// Changes with every outage. A call of an older period proves nothing about the present.
    period: u64,
    doubtful_failures: u32,
    /// The outages in a row before the breaker closed, and when it closed.
    earlier: (u64, UnixMs),
}

/// Permission of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// The call may be made, in this period.
    Call(u64),
    /// The outage is over, so one call may be made, in this period: the probe.
    Probe(u64, Outage),
    /// No call may be made.
    Open(Outage),
}

impl CircuitBreaker {
    /// Asks for a call at `now`. A probe is given to one call at a time.
    pub fn ask(&mut self, now: UnixMs) -> Permission {
        match self.outage {
            None => Permission::Call(self.period),
            Some(outage) if now < outage.until => Permission::Open(outage),
            Some(outage) if now < self.probe_ends => Permission::Open(Outage { until: self.probe_ends, ..outage }),
            Some(outage) => {
                self.probe_ends = now + PROBE_TIME;
                Permission::Probe(self.period, outage)
            }
        }
    }

    /// Returns the present period.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// Returns when the last outage ended; 0 if there was none.
    pub fn closed_at(&self) -> UnixMs {
        self.earlier.1
    }

    /// Returns the outage if no call may be made at `now`. It gives no probe away.
    pub fn open(&self, now: UnixMs) -> Option<Outage> {
        self.outage.filter(|outage| now < outage.until)
    }

    /// Records that a call of `period` got the first byte of an answer.
    pub fn record_first_byte(&mut self, period: u64, now: UnixMs) {
        if period == self.period
            && let Some(outage) = self.outage.take()
        {
            self.earlier = (outage.streak, now);
        }
    }

    /// Records that a call of `period` got a whole answer.
    pub fn record_success(&mut self, period: u64, now: UnixMs) {
        self.record_first_byte(period, now);
        self.doubtful_failures = 0;
    }

    /// Records that a call of `period` failed in a way that can be the fault of its request. After
    /// several such failures in a row, the breaker opens. Returns the outage that begins.
    pub fn record_doubtful_failure(&mut self, period: u64, now: UnixMs, jitter_percent: u64) -> Option<Outage> {
        self.doubtful_failures += 1;
        let is_outage = self.doubtful_failures >= MAX_DOUBTFUL_FAILURES || self.outage.is_some();
        is_outage.then(|| self.record_failure(period, OutageCause::Broken, now, jitter_percent)).flatten()
    }

    /// Records that a call of `period` failed because of the pool. Returns the outage that begins.
    pub fn record_failure(
        &mut self,
        period: u64,
        cause: OutageCause,
        now: UnixMs,
        jitter_percent: u64,
    ) -> Option<Outage> {
        if period != self.period {
            return None;
        }
        let (streak, closed_at) = self.earlier;
        let earlier = match self.outage {
            Some(outage) => outage.streak,
            None if now - closed_at < STREAK_TIME => streak,
            None => 0,
        };
        let outage = Outage::after(earlier, cause, now, jitter_percent);
        self.begin(outage);
        Some(outage)
    }

    /// Records that a probe of `period` ended without a result, so that another call may probe.
    pub fn abandon_probe(&mut self, period: u64) {
        if period == self.period {
            self.probe_ends = UnixMs::default();
        }
    }

    /// Takes over an outage that another process has seen, if it ends later.
    pub fn learn(&mut self, outage: Outage, now: UnixMs) {
        let known_until = self.outage.map_or(UnixMs::default(), |known| known.until);
        if outage.until > now.max(known_until) {
            self.begin(outage);
        }
    }

    fn begin(&mut self, outage: Outage) {
        self.period += 1;
        self.doubtful_failures = 0;
        (self.outage, self.probe_ends) = (Some(outage), UnixMs::default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixMs = UnixMs::from_ms(1_000_000);

    fn after(s: u64) -> UnixMs {
        START + Millis::from_s(s)
    }

    /// A breaker that an error has opened at `START`, for a second.
    fn opened() -> CircuitBreaker {
        let mut breaker = CircuitBreaker::default();
        let Permission::Call(period) = breaker.ask(START) else { panic!("closed") };
        let outage = breaker.record_failure(period, OutageCause::Error, START, 0).expect("an outage");
        assert_eq!(outage.until, after(1));
        breaker
    }

    fn probe(breaker: &mut CircuitBreaker, now: UnixMs) -> u64 {
        match breaker.ask(now) {
            Permission::Probe(period, _) => period,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_call_at_a_time_probes_a_pool_after_its_outage() {
        let mut breaker = opened();
        assert!(matches!(breaker.ask(START), Permission::Open(_)));
        let period = probe(&mut breaker, after(1));
        assert!(matches!(breaker.ask(after(1)), Permission::Open(_)), "the probe runs");
        breaker.abandon_probe(period);
        let period = probe(&mut breaker, after(2));
        breaker.record_first_byte(period, after(2));
        assert!(matches!(breaker.ask(after(2)), Permission::Call(_)));
    }

    #[test]
    fn a_probe_that_never_ends_blocks_the_pool_for_a_limited_time() {
        let mut breaker = opened();
        probe(&mut breaker, after(1));
        assert!(matches!(breaker.ask(after(15)), Permission::Open(_)));
        probe(&mut breaker, after(16));
    }

    #[test]
    fn calls_from_before_an_outage_neither_end_nor_lengthen_it() {
        let mut breaker = CircuitBreaker::default();
        let Permission::Call(period) = breaker.ask(START) else { panic!("closed") };
        breaker.record_failure(period, OutageCause::Error, START, 0).expect("an outage");
        assert_eq!(breaker.record_failure(period, OutageCause::Error, START, 0), None);
        breaker.record_success(period, START);
        assert_eq!(breaker.open(START).map(|outage| (outage.streak, outage.until)), Some((1, after(1))));
    }

    #[test]
    fn a_pool_that_fails_again_soon_stays_out_for_longer() {
        let mut breaker = opened();
        let period = probe(&mut breaker, after(1));
        breaker.record_first_byte(period, after(1));
        let Permission::Call(period) = breaker.ask(after(2)) else { panic!("closed") };
        let second = breaker.record_failure(period, OutageCause::Error, after(2), 0).expect("an outage");
        assert_eq!((second.streak, second.until), (2, after(4)));
        let period = probe(&mut breaker, after(4));
        breaker.record_first_byte(period, after(4));
        let Permission::Call(period) = breaker.ask(after(100)) else { panic!("closed") };
        let later = breaker.record_failure(period, OutageCause::Error, after(100), 0).expect("an outage");
        assert_eq!(later.streak, 1, "a minute without an outage");
    }

    #[test]
    fn doubtful_failures_open_the_breaker_only_in_a_row() {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..5 {
            for _ in 1..MAX_DOUBTFUL_FAILURES {
                assert_eq!(breaker.record_doubtful_failure(0, START, 0), None);
            }
            breaker.record_success(0, START);
        }
        for _ in 1..MAX_DOUBTFUL_FAILURES {
            assert_eq!(breaker.record_doubtful_failure(0, START, 0), None);
        }
        let outage = breaker.record_doubtful_failure(0, START, 0).expect("an outage");
        assert_eq!(outage.cause, OutageCause::Broken);
        let period = probe(&mut breaker, after(1));
        assert!(breaker.record_doubtful_failure(period, after(1), 0).is_some(), "a probe has one try");
    }

    #[test]
    fn an_outage_of_another_process_counts_if_it_ends_later() {
        let mut breaker = opened();
        let outage = |s| Outage { cause: OutageCause::Silent, streak: 3, until: after(s) };
        breaker.learn(outage(0), START);
        assert_eq!(breaker.open(START).map(|known| known.cause), Some(OutageCause::Error));
        breaker.learn(outage(10), START);
        assert_eq!(breaker.open(after(9)), Some(outage(10)));
        let period = probe(&mut breaker, after(10));
        breaker.learn(outage(10), after(10));
        breaker.record_first_byte(period, after(10));
        assert_eq!(breaker.open(after(10)), None, "an outage that is over is not learned again");
    }

    proptest! {
        /// Whatever happens, a pool without new failures is used again within half a minute.
        #[test]
        fn a_pool_without_new_failures_is_asked_again(
            steps in proptest::collection::vec((0_u8..6, 0_u64..30_000), 0..60),
        ) {
            let (mut breaker, mut now, mut periods) = (CircuitBreaker::default(), START, vec![0]);
            for (step, pause_ms) in steps {
                now += Millis::from_ms(pause_ms);
                let period = periods[usize::from(step) % periods.len()];
                match step {
                    0 | 1 => match breaker.ask(now) {
                        Permission::Call(period) | Permission::Probe(period, _) => periods.push(period),
                        Permission::Open(outage) => prop_assert!(outage.until > now),
                    },
                    2 => breaker.record_success(period, now),
                    3 => drop(breaker.record_failure(period, OutageCause::Silent, now, 25)),
                    4 => drop(breaker.record_doubtful_failure(period, now, 25)),
                    _ => breaker.abandon_probe(period),
                }
            }
            now += Millis::from_s(30);
            prop_assert!(!matches!(breaker.ask(now), Permission::Open(_)));
        }
    }
}
