//! Spaces the retries of jobs whose tenant already runs as many jobs as it may.
//!
//! Pure: time is an argument.

use crate::units::{Millis, UnixMs};

/// Longest delay until a retry. SQS does not delay a message longer (Amazon SQS Developer Guide,
/// "Amazon SQS delay queues").
pub(super) const MAX_RETRY_DELAY: Millis = Millis::from_s(900);

/// Assumed duration of a call or job until one has been measured.
const TYPICAL_DURATION: Millis = Millis::from_s(3);

/// Gives each waiting job of a tenant a separate retry time: the times are as far apart as jobs
/// finish, so that not all jobs retry at the same time for one free slot.
#[derive(Debug, Clone, Default)]
pub struct RetryPacer {
    last_retry: UnixMs,
    job_duration: MovingAverage,
}

impl RetryPacer {
    /// Returns the retry time of the next job of a tenant that may run `max_in_flight` jobs.
    pub fn next_retry(&mut self, max_in_flight: u64, now: UnixMs) -> UnixMs {
        let interval = (self.job_duration.get() / max_in_flight.max(1)).max(Millis::from_ms(1));
        let retry = self.last_retry.max(now) + interval;
        // Jobs beyond the longest delay share one time: their messages come back until then.
        self.last_retry = retry.min(now + MAX_RETRY_DELAY);
        self.last_retry
    }

    /// Records how long a job took.
    pub fn record(&mut self, duration: Millis) {
        self.job_duration.record(duration);
    }
}

/// Exponentially weighted moving average of durations, with a weight of 1/8 for the newest, as for
/// the round-trip time in RFC 6298.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MovingAverage {
    eighths: Option<Millis>,
}

impl MovingAverage {
    /// Returns the average, or a typical duration if none was recorded.
    pub(super) fn get(&self) -> Millis {
        self.eighths.map_or(TYPICAL_DURATION, |eighths| eighths / 8)
    }

    /// Adds a duration to the average.
    pub(super) fn record(&mut self, duration: Millis) {
        let previous = self.eighths.map_or(duration * 7, |eighths| eighths - eighths / 8);
        self.eighths = Some(previous + duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_as_far_apart_as_jobs_finish() {
        let mut pacer = RetryPacer::default();
        for _ in 0..100 {
            pacer.record(Millis::from_s(10));
        }
        let mut next_retry_ms = |now_ms| pacer.next_retry(2, UnixMs::from_ms(now_ms)).as_ms();
        assert!(next_retry_ms(0).abs_diff(5_000) < 10 && next_retry_ms(0).abs_diff(10_000) < 20);
        assert!(next_retry_ms(60_000).abs_diff(65_000) < 10, "times that have passed delay no job");
        for _ in 0..1_000 {
            assert!(next_retry_ms(60_000) <= 60_000 + MAX_RETRY_DELAY.as_ms());
        }
    }
}
