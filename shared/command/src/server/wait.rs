//! The time that a client may keep the server waiting.

use std::{
    num::NonZero,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The slowest pace at which a client may send or read.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Maximum time without progress.
    pub max_wait: Duration,
    /// Bytes that pay for a second of waiting.
    pub min_bytes_per_s: NonZero<u32>,
}

impl Pace {
    /// Returns how long a client may keep the server waiting, if it had `left`, took `waited` of it
    /// and then moved `bytes`. So all waits together are at most `max_wait`, plus the time of all
    /// bytes at the least rate.
    fn after(self, left: Duration, waited: Duration, bytes: usize) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let earned_us = bytes.saturating_mul(1_000_000) / u64::from(self.min_bytes_per_s.get());
        left.saturating_sub(waited).saturating_add(Duration::from_micros(earned_us)).min(self.max_wait)
    }
}

/// The waits for one client in one direction.
pub struct Wait {
    pace: Pace,
    left: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    /// Returns the state before the first wait.
    pub fn new(pace: Pace) -> Self {
        Self { pace, left: pace.max_wait, since: None, timer: None }
    }

    /// Notes that the server waits from now on, unless it already does.
    pub fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// Notes that the client has moved `bytes`, which ends the wait.
    pub fn end(&mut self, bytes: usize) {
        let waited = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.left = self.pace.after(self.left, waited, bytes);
    }

    /// Is ready when the wait has taken too long.
    pub fn poll_too_long(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(since) = self.since else { return Poll::Pending };
        let ends_at = since + self.left;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(ends_at)));
        if timer.deadline() != ends_at {
            timer.as_mut().reset(ends_at);
        }
        timer.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace { max_wait: Duration::from_secs(30), min_bytes_per_s: NonZero::new(10_000).unwrap() };

    /// Returns the time of all waits, until one is too long, and whether one is.
    fn waits(parts: &[(Duration, usize)]) -> (Duration, bool) {
        let (mut left, mut total) = (PACE.max_wait, Duration::ZERO);
        for &(waited, bytes) in parts {
            if waited > left {
                return (total + left, true);
            }
            total += waited;
            left = PACE.after(left, waited, bytes);
        }
        (total, false)
    }

    fn parts() -> impl Strategy<Value = Vec<(Duration, usize)>> {
        prop::collection::vec((0..40_000_u64, 0..100_000_usize), 0..200)
            .prop_map(|parts| parts.into_iter().map(|(ms, bytes)| (Duration::from_millis(ms), bytes)).collect())
    }

    proptest! {
        #[test]
        fn all_waits_together_are_bounded_by_the_bytes(parts in parts()) {
            let bytes: usize = parts.iter().map(|part| part.1).sum();
            let (total, _) = waits(&parts);
            prop_assert!(total <= PACE.max_wait + Duration::from_millis(bytes as u64 / 10 + 1), "{total:?} {bytes}");
        }

        #[test]
        fn a_client_above_the_least_rate_is_never_cut_off(
            sizes in prop::collection::vec(1..300_000_usize, 1..300),
            rate in 10_000..1_000_000_u64,
        ) {
            let parts: Vec<_> =
                sizes.into_iter().map(|bytes| (Duration::from_micros(bytes as u64 * 1_000_000 / rate), bytes)).collect();
            prop_assert!(!waits(&parts).1);
        }

        #[test]
        fn a_client_below_the_least_rate_is_cut_off(bytes in 1..50_000_usize, rate in 1..9_900_u64) {
            let part = (Duration::from_micros(bytes as u64 * 1_000_000 / rate), bytes);
            prop_assert!(waits(&vec![part; 400_000 / bytes * 100 + 100]).1);
        }
    }

    #[test]
    fn a_slow_upload_of_the_largest_request_is_accepted() {
        let second = (Duration::from_secs(1), 50_000);
        assert_eq!(waits(&[second; 126]), (Duration::from_secs(126), false));
    }
}
