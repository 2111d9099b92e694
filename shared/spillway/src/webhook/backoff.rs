//! Back-off: when a failed delivery is tried again.

use crate::units::Millis;

/// Pauses before each further attempt: the example schedule of Standard Webhooks ("Deliverability
/// and reliability"), three days in total.
const PAUSES: [Millis; 9] = [
    Millis::from_s(5),
    Millis::from_s(5 * 60),
    Millis::from_s(30 * 60),
    Millis::from_s(2 * 60 * 60),
    Millis::from_s(5 * 60 * 60),
    Millis::from_s(10 * 60 * 60),
    Millis::from_s(14 * 60 * 60),
    Millis::from_s(20 * 60 * 60),
    Millis::from_s(24 * 60 * 60),
];

/// Maximum pause that an endpoint can request with `Retry-After`.
const MAX_RETRY_AFTER: Millis = Millis::from_s(24 * 60 * 60);

/// Number of steps of the jitter.
pub const JITTER_STEPS: u64 = 1_000;

/// Returns the pause after attempt number `attempt`, counted from 1, or `None` after the last.
///
/// The pause is up to a tenth longer than in the schedule, by a jitter of 0 to [`JITTER_STEPS`], so
/// that deliveries that failed together are not repeated together. It is not shorter than
/// `retry_after`, which the endpoint requested.
pub fn pause(attempt: u32, jitter: u64, retry_after: Option<Millis>) -> Option<Millis> {
    let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
    let pause = *PAUSES.get(index)?;
    let jitter = pause / 10 * jitter.min(JITTER_STEPS) / JITTER_STEPS;
    Some((pause + jitter).max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_ATTEMPTS: u32 = PAUSES.len() as u32 + 1;

    #[test]
    fn the_schedule_is_that_of_standard_webhooks() {
        let mut since_start = Millis::ZERO;
        let mut times_s = Vec::new();
        for attempt in 1..MAX_ATTEMPTS {
            since_start += pause(attempt, 0, None).expect("another attempt");
            times_s.push(since_start.as_ms() / 1_000);
        }
        assert_eq!(times_s, [5, 305, 2_105, 9_305, 27_305, 63_305, 113_705, 185_705, 272_105]);
        assert_eq!(pause(MAX_ATTEMPTS, 0, None), None);
        assert_eq!(pause(0, 0, None), None, "attempts are counted from 1");
    }

    #[test]
    fn an_endpoint_can_request_a_longer_pause_but_not_a_shorter_one() {
        assert_eq!(pause(1, 0, Some(Millis::from_s(120))), Some(Millis::from_s(120)));
        assert_eq!(pause(3, 0, Some(Millis::from_s(1))), Some(Millis::from_s(1_800)));
        assert_eq!(pause(1, 0, Some(Millis::MAX)), Some(Millis::from_s(86_400)));
    }

    proptest! {
        #[test]
        fn a_pause_is_at_most_a_tenth_longer_than_in_the_schedule(attempt in 1..MAX_ATTEMPTS, jitter: u64) {
            let scheduled = pause(attempt, 0, None).expect("another attempt");
            let pause = pause(attempt, jitter, None).expect("another attempt");
            prop_assert!(pause >= scheduled && pause <= scheduled + scheduled / 10);
        }

        #[test]
        fn no_attempt_follows_the_last(attempt in MAX_ATTEMPTS.., jitter: u64, retry_after_s: Option<u64>) {
            prop_assert_eq!(pause(attempt, jitter, retry_after_s.map(Millis::from_s)), None);
        }
    }
}
