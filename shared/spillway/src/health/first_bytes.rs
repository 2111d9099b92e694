//! Calls that wait for the first byte of their answers, and whether their pool has fallen silent.
//!
//! A call that waits proves nothing: answers may take long. But if several calls wait for longer
//! than the slowest answer of late took, and no call that was sent with them has got a byte, the
//! pool is probably silent. The next calls then go elsewhere, long before the first of these calls
//! has waited for its whole time. A pool that is only slow loses them until its next byte.
//!
//! Pure: time is an argument.

use std::collections::VecDeque;

use super::CallKind;
use crate::units::{Millis, UnixMs};

/// Number of calls that must wait for too long. A single one may have an unusually long prompt.
const MIN_SILENT_CALLS: usize = 2;

/// Least and greatest time that is too long.
const MIN_PATIENCE: Millis = Millis::from_ms(250);
const MAX_PATIENCE: Millis = Millis::from_s(30);

/// The calls to one pool that wait for their first byte.
#[derive(Debug, Default)]
pub struct FirstBytes {
    waiting: VecDeque<SentCall>,
    next_number: u64,
    /// When the last first byte came.
    last_at: UnixMs,
    pace: Pace,
}

#[derive(Debug, Clone, Copy)]
struct SentCall {
    number: u64,
    kind: CallKind,
    sent_at: UnixMs,
}

impl FirstBytes {
    /// Adds a call that is sent at `now`. Returns its number.
    pub fn start(&mut self, kind: CallKind, now: UnixMs) -> u64 {
        self.next_number += 1;
        self.waiting.push_back(SentCall { number: self.next_number, kind, sent_at: now });
        self.next_number
    }

    /// Records that the first byte of call `number` came at `now`, also in the pace of the model.
    /// Returns whether the call still waited for it.
    pub fn record(&mut self, of_model: &mut Pace, number: u64, now: UnixMs) -> bool {
        let Some(call) = self.remove(number) else { return false };
        for pace in [&mut self.pace, of_model] {
            pace.record(call.kind, now - call.sent_at);
        }
        self.last_at = self.last_at.max(now);
        true
    }

    /// Removes call `number`, which waits no more.
    pub fn stop(&mut self, number: u64) {
        self.remove(number);
    }

    /// Whether the first byte of any call has come since `sent_at`.
    pub fn came_since(&self, sent_at: UnixMs) -> bool {
        self.last_at > sent_at
    }

    /// Whether the pool is probably silent at `now`. A pool without answers is compared with the
    /// other pools of the model.
    pub fn is_silent(&self, of_model: &Pace, now: UnixMs) -> bool {
        let waits_too_long = |call: &&SentCall| {
            !self.came_since(call.sent_at) && now - call.sent_at > self.patience(of_model, call.kind)
        };
        self.waiting.iter().filter(waits_too_long).nth(MIN_SILENT_CALLS - 1).is_some()
    }

    /// Returns the time after which a call waits for too long.
    fn patience(&self, of_model: &Pace, kind: CallKind) -> Millis {
        let own = self.pace.slowest(kind).map(|slowest| slowest * 5 / 4);
        let of_model = || of_model.slowest(kind).map(|slowest| slowest * 2);
        own.or_else(of_model).unwrap_or(MAX_PATIENCE).max(MIN_PATIENCE).min(MAX_PATIENCE)
    }

    fn remove(&mut self, number: u64) -> Option<SentCall> {
        let index = self.waiting.iter().position(|call| call.number == number)?;
        self.waiting.remove(index)
    }
}

/// Times to the first byte of the slowest recent calls. Each declines with every faster call.
#[derive(Debug, Default)]
pub struct Pace {
    stream: Option<Millis>,
    whole_answer: Option<Millis>,
}

impl Pace {
    fn record(&mut self, kind: CallKind, took: Millis) {
        let slowest = match kind {
            CallKind::Stream => &mut self.stream,
            CallKind::Whole => &mut self.whole_answer,
        };
        let declined = slowest.map_or(Millis::ZERO, |slowest| slowest * 31 / 32);
        *slowest = Some(declined.max(took));
    }

    fn slowest(&self, kind: CallKind) -> Option<Millis> {
        match kind {
            CallKind::Stream => self.stream,
            CallKind::Whole => self.whole_answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CallKind::{Stream, Whole};

    const START: UnixMs = UnixMs::from_ms(1_000_000);

    fn after_ms(ms: u64) -> UnixMs {
        START + Millis::from_ms(ms)
    }

    fn record(calls: &mut FirstBytes, number: u64, now: UnixMs) -> bool {
        calls.record(&mut Pace::default(), number, now)
    }

    /// Whether the pool is silent if its model has no other pool.
    fn is_silent(calls: &FirstBytes, now: UnixMs) -> bool {
        calls.is_silent(&Pace::default(), now)
    }

    /// A pool whose streams begin after 400 ms, and whose whole answers take 2 s.
    fn known() -> FirstBytes {
        let mut calls = FirstBytes::default();
        for (kind, ms) in [(Stream, 400), (Whole, 2_000)] {
            let call = calls.start(kind, START);
            assert!(record(&mut calls, call, after_ms(ms)));
            assert!(!record(&mut calls, call, after_ms(ms)), "it waits no more");
        }
        calls
    }

    #[test]
    fn a_pool_is_silent_if_several_calls_wait_for_longer_than_the_slowest_recent_answer() {
        let mut calls = known();
        calls.start(Stream, after_ms(3_000));
        assert!(!is_silent(&calls, after_ms(60_000)), "one call may have a long prompt");
        calls.start(Stream, after_ms(3_100));
        assert!(!is_silent(&calls, after_ms(3_600)));
        assert!(is_silent(&calls, after_ms(3_601)));
    }

    #[test]
    fn a_stream_and_a_whole_answer_wait_each_for_the_time_of_its_kind() {
        let mut calls = known();
        calls.start(Whole, after_ms(3_000));
        calls.start(Stream, after_ms(3_000));
        assert!(!is_silent(&calls, after_ms(5_500)));
        assert!(is_silent(&calls, after_ms(5_501)));
    }

    #[test]
    fn a_byte_of_any_later_call_shows_that_the_pool_works() {
        for kind in [Stream, Whole] {
            let mut calls = known();
            calls.start(Stream, after_ms(3_000));
            calls.start(Stream, after_ms(3_000));
            let later = calls.start(kind, after_ms(3_300));
            assert!(is_silent(&calls, after_ms(3_600)));
            record(&mut calls, later, after_ms(3_600));
            assert!(!is_silent(&calls, after_ms(3_600)), "{kind:?}");
        }
    }

    #[test]
    fn a_pool_without_answers_yet_has_half_a_minute() {
        let mut calls = FirstBytes::default();
        let first = calls.start(Stream, START);
        calls.start(Whole, START);
        assert!(!is_silent(&calls, after_ms(30_000)));
        assert!(is_silent(&calls, after_ms(30_001)));
        calls.stop(first);
        assert!(!is_silent(&calls, after_ms(30_001)));
    }

    #[test]
    fn a_pool_without_answers_yet_has_twice_the_time_of_the_other_pools() {
        let (mut first, mut second, mut model) = (FirstBytes::default(), FirstBytes::default(), Pace::default());
        let call = first.start(Stream, START);
        first.record(&mut model, call, after_ms(400));
        second.start(Stream, after_ms(1_000));
        second.start(Stream, after_ms(1_000));
        assert!(!second.is_silent(&model, after_ms(1_800)));
        assert!(second.is_silent(&model, after_ms(1_801)));
    }

    #[test]
    fn fast_answers_leave_a_quarter_of_a_second() {
        let mut calls = FirstBytes::default();
        let call = calls.start(Stream, START);
        record(&mut calls, call, after_ms(20));
        calls.start(Stream, after_ms(100));
        calls.start(Stream, after_ms(100));
        assert!(!is_silent(&calls, after_ms(350)));
        assert!(is_silent(&calls, after_ms(351)));
    }

    #[test]
    fn a_slow_answer_is_remembered_for_a_while() {
        let mut calls = known();
        let slow = calls.start(Stream, START);
        record(&mut calls, slow, after_ms(5_000));
        for _ in 0..10 {
            let quick = calls.start(Stream, after_ms(5_000));
            record(&mut calls, quick, after_ms(5_100));
        }
        calls.start(Stream, after_ms(6_000));
        calls.start(Stream, after_ms(6_000));
        assert!(!is_silent(&calls, after_ms(10_000)), "5 s, declined ten times, is more than 3.5 s");
        assert!(is_silent(&calls, after_ms(11_000)));
    }
}
