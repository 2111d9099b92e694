//! The concurrency window of a pool: how many calls may be in flight.
//!
//! Bedrock does not announce how many calls a pool accepts, so the window probes for it by additive
//! increase and multiplicative decrease (AIMD, as in RFC 5681, "TCP Congestion Control"): it grows
//! by one for each window of answers and is halved by a throttle. Processes that share a pool
//! converge to equal shares without knowing of each other.
//!
//! Pure: time is an argument.

use super::retry_pacer::MovingAverage;
use crate::units::{Millis, UnixMs};

/// Size of a new window.
const INITIAL_SIZE: u32 = 4;

/// Largest size of a window: calls in flight to one pool from one process.
pub const MAX_WINDOW_SIZE: u32 = 256;

/// Length of the cool-down after a throttle. It doubles with each further throttle until a call is
/// answered.
const MIN_COOL_DOWN: Millis = Millis::from_s(1);

/// How often the cool-down doubles at most: to 32 seconds.
const MAX_DOUBLINGS: u32 = 5;

/// Longest cool-down after one job did not fit the pool's limits. A smaller job may fit.
const MAX_REFUSAL_COOL_DOWN: Millis = Millis::from_s(5);

/// The limit of calls in flight to one pool.
#[derive(Debug, Clone)]
pub struct ConcurrencyWindow {
    max_size: u32,
    size: u32,
    in_flight: u32,
    /// Number of halvings. Throttles and answers of calls from before the last one carry no new
    /// information.
    epoch: u64,
    /// Answers since the window last grew.
    answers: u32,
    /// Whether a call was turned away since the window last grew. A window that is not filled does
    /// not grow.
    is_exhausted: bool,
    /// Whether the window was never throttled. Until then it doubles for each window of answers
    /// (slow start).
    is_slow_start: bool,
    /// Throttles without an answer in between.
    consecutive_throttles: u32,
    cool_down_ends: UnixMs,
    call_duration: MovingAverage,
}

/// A call in flight, as the window remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a started call occupies the window until it is released"]
pub struct Started {
    epoch: u64,
    at: UnixMs,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The pool answered.
    Answered,
    /// The pool throttled the call.
    Throttled,
    /// The call was not made, because the pool's limits have no room before `retry_after`.
    Refused { retry_after: Millis },
    /// The outcome says nothing about the pool's capacity.
    Ignored,
}

/// Why a call may not start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryAcquireError {
    /// The pool cools down. No call starts before `until`, even if others end.
    CoolingDown { until: UnixMs },
    /// All permits are taken. One is probably released by `until`.
    NoPermits { until: UnixMs },
}

impl ConcurrencyWindow {
    /// Creates a window that grows to at most `max_size` calls.
    pub fn new(max_size: u32) -> Self {
        let max_size = max_size.clamp(1, MAX_WINDOW_SIZE);
        Self {
            max_size,
            size: INITIAL_SIZE.min(max_size),
            in_flight: 0,
            epoch: 0,
            answers: 0,
            is_exhausted: false,
            is_slow_start: true,
            consecutive_throttles: 0,
            cool_down_ends: UnixMs::default(),
            call_duration: MovingAverage::default(),
        }
    }

    /// How many calls may be in flight.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How many calls are in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Starts a call if the window has room.
    ///
    /// # Errors
    /// Returns an error if the pool cools down or the window is full.
    pub fn try_acquire(&mut self, now: UnixMs) -> Result<Started, TryAcquireError> {
        if now < self.cool_down_ends {
            return Err(TryAcquireError::CoolingDown { until: self.cool_down_ends });
        }
        if self.in_flight >= self.size {
            self.is_exhausted = true;
            return Err(TryAcquireError::NoPermits { until: now + self.call_duration.get() });
        }
        self.in_flight += 1;
        Ok(Started { epoch: self.epoch, at: now })
    }

    /// Ends a call and adapts the window to its outcome.
    pub fn release(&mut self, started: Started, outcome: CallOutcome, now: UnixMs) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match outcome {
            CallOutcome::Answered => {
                self.call_duration.record(now - started.at);
                if started.epoch == self.epoch {
                    self.consecutive_throttles = 0;
                    self.grow();
                }
            }
            CallOutcome::Throttled if started.epoch == self.epoch => self.shrink(now),
            CallOutcome::Refused { retry_after } => self.cool_down(retry_after.min(MAX_REFUSAL_COOL_DOWN), now),
            CallOutcome::Throttled | CallOutcome::Ignored => {}
        }
    }

    /// Records that the pool throttled a call that needs no permit because a caller waits for its
    /// answer. Jobs make room for such calls.
    pub fn record_throttle(&mut self, now: UnixMs) {
        // Throttles during a cool-down have the same cause.
        if now >= self.cool_down_ends {
            self.shrink(now);
        }
    }

    /// End of the cool-down: when a call may start next, unless the window is full.
    pub fn cool_down_ends(&self) -> UnixMs {
        self.cool_down_ends
    }

    fn grow(&mut self) {
        if !self.is_exhausted {
            return;
        }
        self.answers += 1;
        let needed = if self.is_slow_start { 1 } else { self.size };
        if self.answers >= needed {
            self.answers = 0;
            self.size = (self.size + 1).min(self.max_size);
            // In slow start each answer of the window counts.
            self.is_exhausted = self.is_slow_start;
        }
    }

    fn shrink(&mut self, now: UnixMs) {
        self.cool_down(MIN_COOL_DOWN * (1 << self.consecutive_throttles.min(MAX_DOUBLINGS)), now);
        self.consecutive_throttles = self.consecutive_throttles.saturating_add(1);
        self.size = (self.size / 2).max(1);
        self.epoch += 1;
        self.answers = 0;
        self.is_slow_start = false;
    }

    fn cool_down(&mut self, length: Millis, now: UnixMs) {
        self.cool_down_ends = self.cool_down_ends.max(now + length);
    }
}

#[cfg(test)]
mod tests;
