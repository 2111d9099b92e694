//! Calls that wait for the first byte of their answers, and whether their pool has fallen silent.
//!
//! A call that waits proves nothing: answers may take long. But if several calls wait for much
//! longer than the slowest answer of late took, and no call that was sent with them has got a byte,
//! the pool is probably silent. The next calls then go elsewhere, long before the first of these
//! calls has waited for its whole time.
//!
//! Pure: time is an argument.

use std::collections::VecDeque;

use crate::units::{Millis, UnixMs};

/// Number of calls that must wait for too long. A single one may have an unusually long prompt.
const MIN_SILENT_CALLS: usize = 2;

/// A call has waited for too long after this multiple of the slowest recent answer.
const MAX_SLOWDOWN: u64 = 4;

/// Least and greatest time that is too long.
const MIN_PATIENCE: Millis = Millis::from_s(1);
const MAX_PATIENCE: Millis = Millis::from_s(30);

/// The calls of one kind to one pool that wait for their first byte.
#[derive(Debug, Default)]
pub struct FirstBytes {
    /// When the waiting calls were sent, in this order, each with its number.
    waiting: VecDeque<(u64, UnixMs)>,
    next_number: u64,
    /// When the last first byte came.
    last_at: UnixMs,
    /// Time to the first byte of the slowest recent call. It declines with each faster call.
    slowest: Option<Millis>,
}

impl FirstBytes {
    /// Adds a call that is sent at `now`. Returns its number.
    pub fn start(&mut self, now: UnixMs) -> u64 {
        self.next_number += 1;
        self.waiting.push_back((self.next_number, now));
        self.next_number
    }

    /// Records that the first byte of call `number` came at `now`.
    pub fn record(&mut self, number: u64, now: UnixMs) {
        if let Some(sent_at) = self.stop(number) {
            let declined = self.slowest.map_or(Millis::ZERO, |slowest| slowest * 15 / 16);
            self.slowest = Some(declined.max(now - sent_at));
            self.last_at = self.last_at.max(now);
        }
    }

    /// Removes call `number`, which waits no more. Returns when it was sent.
    pub fn stop(&mut self, number: u64) -> Option<UnixMs> {
        let index = self.waiting.iter().position(|(waiting, _)| *waiting == number)?;
        self.waiting.remove(index).map(|(_, sent_at)| sent_at)
    }

    /// Whether a first byte has come since `sent_at`.
    pub fn came_since(&self, sent_at: UnixMs) -> bool {
        self.last_at > sent_at
    }

    /// Whether the pool is probably silent at `now`.
    pub fn is_silent(&self, now: UnixMs) -> bool {
        let slowest = self.slowest.map_or(MAX_PATIENCE, |slowest| slowest * MAX_SLOWDOWN);
        let patience = slowest.max(MIN_PATIENCE).min(MAX_PATIENCE);
        let last_needed = self.waiting.get(MIN_SILENT_CALLS - 1);
        last_needed.is_some_and(|(_, sent_at)| !self.came_since(*sent_at) && now - *sent_at > patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMs = UnixMs::from_ms(1_000_000);

    fn after_ms(ms: u64) -> UnixMs {
        START + Millis::from_ms(ms)
    }

    /// A pool whose slowest recent answer began after half a second.
    fn known() -> FirstBytes {
        let mut calls = FirstBytes::default();
        let call = calls.start(START);
        calls.record(call, after_ms(500));
        calls
    }

    #[test]
    fn a_pool_is_silent_if_several_calls_wait_for_much_longer_than_the_slowest_recent_answer() {
        let mut calls = known();
        calls.start(after_ms(1_000));
        assert!(!calls.is_silent(after_ms(60_000)), "one call may have a long prompt");
        calls.start(after_ms(1_100));
        assert!(!calls.is_silent(after_ms(3_100)));
        assert!(calls.is_silent(after_ms(3_101)));
    }

    #[test]
    fn a_byte_of_any_later_call_shows_that_the_pool_works() {
        let mut calls = known();
        calls.start(after_ms(1_000));
        calls.start(after_ms(1_000));
        let later = calls.start(after_ms(3_000));
        assert!(calls.is_silent(after_ms(4_000)));
        calls.record(later, after_ms(4_000));
        assert!(!calls.is_silent(after_ms(4_000)));
    }

    #[test]
    fn a_pool_without_answers_yet_has_half_a_minute() {
        let mut calls = FirstBytes::default();
        let first = calls.start(START);
        calls.start(START);
        assert!(!calls.is_silent(after_ms(30_000)));
        assert!(calls.is_silent(after_ms(30_001)));
        calls.stop(first);
        assert!(!calls.is_silent(after_ms(30_001)));
    }

    #[test]
    fn a_slow_answer_is_remembered_for_a_while() {
        let mut calls = known();
        let slow = calls.start(START);
        calls.record(slow, after_ms(5_000));
        for _ in 0..10 {
            let quick = calls.start(after_ms(5_000));
            calls.record(quick, after_ms(5_100));
        }
        calls.start(after_ms(6_000));
        calls.start(after_ms(6_000));
        assert!(!calls.is_silent(after_ms(8_500)), "5 s, declined ten times, is more than 2.5 s");
        assert!(calls.is_silent(after_ms(17_000)));
    }
}
