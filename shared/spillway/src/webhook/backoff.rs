//! When a webhook that was not taken is sent again.

/// The pauses before each further attempt, in seconds: the example schedule of Standard Webhooks ("Deliverability and
/// reliability"), three days in all.
const PAUSES_S: [u64; 9] =
    [5, 5 * 60, 30 * 60, 2 * 60 * 60, 5 * 60 * 60, 10 * 60 * 60, 14 * 60 * 60, 20 * 60 * 60, 24 * 60 * 60];

/// How many attempts there are at most.
pub const MOST_ATTEMPTS: u32 = PAUSES_S.len() as u32 + 1;

/// The longest that an endpoint may put an attempt off with `Retry-After`, in seconds.
const LONGEST_RETRY_AFTER_S: u64 = 24 * 60 * 60;

/// The steps of `spread`.
pub const SPREAD: u64 = 1_000;

/// How long to wait after attempt number `attempt`, counted from 1, in milliseconds; `None` if it was the last. The pause
/// is up to a tenth longer than the schedule's, by `spread` of 0 to [`SPREAD`], so that those who failed together do not
/// come back together; and no shorter than what the endpoint asked for.
pub fn pause_ms(attempt: u32, spread: u64, retry_after_s: Option<u64>) -> Option<u64> {
    let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
    let pause_ms = PAUSES_S.get(index)? * 1_000;
    let spread_ms = pause_ms / 10 * spread.min(SPREAD) / SPREAD;
    let asked_ms = retry_after_s.unwrap_or_default().min(LONGEST_RETRY_AFTER_S) * 1_000;
    Some((pause_ms + spread_ms).max(asked_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_schedule_is_that_of_standard_webhooks() {
        let mut since_start_s = 0;
        let mut times = Vec::new();
        for attempt in 1..MOST_ATTEMPTS {
            since_start_s += pause_ms(attempt, 0, None).expect("another attempt") / 1_000;
            times.push(since_start_s);
        }
        assert_eq!(times, [5, 305, 2_105, 9_305, 27_305, 63_305, 113_705, 185_705, 272_105]);
        assert_eq!(pause_ms(MOST_ATTEMPTS, 0, None), None);
        assert_eq!(pause_ms(0, 0, None), None, "attempts are counted from 1");
    }

    #[test]
    fn an_endpoint_can_ask_for_more_time_but_not_for_less() {
        assert_eq!(pause_ms(1, 0, Some(120)), Some(120_000));
        assert_eq!(pause_ms(3, 0, Some(1)), Some(1_800_000));
        assert_eq!(pause_ms(1, 0, Some(u64::MAX)), Some(86_400_000));
    }

    proptest! {
        #[test]
        fn a_pause_is_at_most_a_tenth_longer_than_the_schedule_says(attempt in 1..MOST_ATTEMPTS, spread: u64) {
            let least_ms = pause_ms(attempt, 0, None).expect("another attempt");
            let pause_ms = pause_ms(attempt, spread, None).expect("another attempt");
            prop_assert!(pause_ms >= least_ms && pause_ms <= least_ms + least_ms / 10);
        }

        #[test]
        fn any_number_of_attempts_comes_to_an_end(attempt in MOST_ATTEMPTS.., spread: u64, asked: Option<u64>) {
            prop_assert_eq!(pause_ms(attempt, spread, asked), None);
        }
    }
}
