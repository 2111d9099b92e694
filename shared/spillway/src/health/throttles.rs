//! Throttles of a pool in a row.
//!
//! A throttle is no outage: the pool may have room for the next call. But a pool that throttles one
//! call after the other costs each caller a round trip. So it is tried after the other pools for a
//! moment, and after each further throttle for longer.
//!
//! Pure: time is an argument.

use crate::units::{Millis, UnixMs};

/// Number of throttles in a row after which the pool is tried last.
const MIN_THROTTLES: u32 = 3;

/// Throttles that are further apart are not in a row.
const MAX_GAP: Millis = Millis::from_s(10);

/// How long the pool is tried last, at first and at most.
const FIRST_PAUSE: Millis = Millis::from_ms(250);
const MAX_PAUSE: Millis = Millis::from_s(4);

/// Time in which one call tries the pool in its place.
const TRIAL: Millis = Millis::from_s(1);

/// The throttles of one pool since its last answer.
#[derive(Debug, Default)]
pub struct Throttles {
    in_a_row: u32,
    last_at: UnixMs,
    /// Start and end of the time in which the pool is tried last.
    pause: (UnixMs, UnixMs),
}

impl Throttles {
    /// Records that a call that was sent at `sent_at` was throttled.
    pub fn record(&mut self, sent_at: UnixMs, now: UnixMs) {
        if now - self.last_at > MAX_GAP {
            self.in_a_row = 0;
        }
        // Calls from before the pause add no evidence to it.
        if sent_at < self.pause.0 {
            return;
        }
        self.in_a_row += 1;
        self.last_at = now;
        if let Some(doublings) = self.in_a_row.checked_sub(MIN_THROTTLES) {
            let length = (FIRST_PAUSE * (1 << doublings.min(8))).min(MAX_PAUSE);
            self.pause = (now, now + length);
        }
    }

    /// Records that the pool answers.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the pool is tried after the other pools at `now`.
    pub fn are_frequent(&self, now: UnixMs) -> bool {
        now < self.pause.1
    }

    /// Records that a call is sent at `now`. If it is the first after a pause, the others wait for
    /// its outcome.
    pub fn start(&mut self, now: UnixMs) {
        if self.in_a_row >= MIN_THROTTLES && !self.are_frequent(now) {
            self.pause.1 = now + TRIAL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMs = UnixMs::from_ms(1_000_000);

    fn after_ms(ms: u64) -> UnixMs {
        START + Millis::from_ms(ms)
    }

    /// Three calls that were throttled 10 ms after they were sent.
    fn throttled() -> Throttles {
        let mut throttles = Throttles::default();
        for ms in [0, 100, 200] {
            assert!(!throttles.are_frequent(after_ms(ms)));
            throttles.start(after_ms(ms));
            throttles.record(after_ms(ms), after_ms(ms + 10));
        }
        throttles
    }

    #[test]
    fn a_pool_is_tried_last_after_three_throttles_in_a_row() {
        let throttles = throttled();
        assert!(throttles.are_frequent(after_ms(459)));
        assert!(!throttles.are_frequent(after_ms(460)));
    }

    #[test]
    fn an_answer_between_throttles_ends_the_row() {
        let mut throttles = Throttles::default();
        for ms in 0..20 {
            throttles.record(after_ms(ms), after_ms(ms));
            assert!(!throttles.are_frequent(after_ms(ms)));
            if ms % 2 == 1 {
                throttles.clear();
            }
        }
    }

    #[test]
    fn throttles_that_are_far_apart_are_not_in_a_row() {
        let mut throttles = Throttles::default();
        for ms in (0..10).map(|minute| 60_000 * minute) {
            throttles.record(after_ms(ms), after_ms(ms));
            assert!(!throttles.are_frequent(after_ms(ms)));
        }
    }

    #[test]
    fn each_further_throttle_doubles_the_pause_up_to_four_seconds() {
        let mut throttles = throttled();
        let mut ms = 460;
        for pause_ms in [500, 1_000, 2_000, 4_000, 4_000] {
            assert!(!throttles.are_frequent(after_ms(ms)));
            throttles.start(after_ms(ms));
            throttles.record(after_ms(ms), after_ms(ms));
            assert!(throttles.are_frequent(after_ms(ms + pause_ms - 1)));
            ms += pause_ms;
        }
    }

    #[test]
    fn calls_from_before_the_pause_do_not_lengthen_it() {
        let mut throttles = throttled();
        throttles.record(after_ms(205), after_ms(300));
        assert!(!throttles.are_frequent(after_ms(460)));
    }

    #[test]
    fn one_call_tries_the_pool_after_the_pause() {
        let mut throttles = throttled();
        throttles.start(after_ms(460));
        assert!(throttles.are_frequent(after_ms(461)), "the others wait for its outcome");
        assert!(!throttles.are_frequent(after_ms(1_460)), "a call without an outcome blocks no other");
        throttles.clear();
        assert!(!throttles.are_frequent(after_ms(461)));
    }
}
