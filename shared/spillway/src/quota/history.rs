//! History: answer lengths and input estimates of a tenant's recent requests to one model.
//!
//! A history covers two days: the current UTC day and the day before. Each day has its own
//! attributes, so nothing is ever reset.

use super::{Attribute, Image, Update, Write, period::day, reserve::signed};
use crate::units::UnixMs;

/// Minimum number of answers for a 99th percentile of their lengths.
const MIN_ANSWERS: u64 = 100;

/// Minimum number of estimated input tokens for a correction of the next estimate.
const MIN_ESTIMATED_TOKENS: u64 = 20_000;

/// Range of the correction of an estimate, in percent of it. A larger error means that the requests
/// have changed in kind.
const CORRECTION_PERCENT: std::ops::RangeInclusive<u64> = 50..=200;

/// Buckets of answer lengths in a day. Each bucket is a quarter octave wide, so a length read from
/// it is at most 19 % too high.
const BUCKETS: u64 = 64;

/// Token counts of one answered request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Output tokens.
    pub output_tokens: u64,
    /// Input tokens as estimated, without correction.
    pub estimated_input_tokens: u64,
    /// Input tokens as the model counted them.
    pub measured_input_tokens: u64,
}

/// Statistics of a tenant's recent requests to one model, for sizing the next request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// 99th percentile of the output tokens of recent answers; `None` if there are too few answers.
    pub p99_output_tokens: Option<u64>,
    /// Correction of an estimate of input tokens, in percent of it.
    pub input_percent: Option<u64>,
}

impl History {
    /// Reads the history from `image` at `now`.
    pub fn read(image: &Image, now: UnixMs) -> Self {
        let days = [day(now).saturating_sub(1), day(now)];
        let sum = |attribute: fn(u64) -> Attribute| days.iter().map(|day| image.get(attribute(*day))).sum::<u64>();
        let (estimated, measured) = (sum(Attribute::EstimatedInput), sum(Attribute::MeasuredInput));
        let percent =
            || (measured * 100).div_ceil(estimated).clamp(*CORRECTION_PERCENT.start(), *CORRECTION_PERCENT.end());
        Self {
            p99_output_tokens: p99(|bucket| days.iter().map(|day| image.get(answers(*day, bucket))).sum()),
            input_percent: (estimated >= MIN_ESTIMATED_TOKENS).then(percent),
        }
    }

    /// Corrects `estimate`, a number of input tokens.
    pub fn correct(&self, estimate: u64) -> u64 {
        self.input_percent.map_or(estimate, |percent| (estimate.saturating_mul(percent)).div_ceil(100).max(1))
    }
}

/// Returns the write that adds `observations` to a history at `now`. It also removes old days that
/// `image`, an earlier state of the item, shows.
pub fn record(observations: &[Observation], image: &Image, now: UnixMs) -> Write {
    let today = day(now);
    let mut write = Write::default();
    for observation in observations {
        let addition = Write {
            conditions: Vec::new(),
            updates: vec![
                Update::Add(answers(today, bucket(observation.output_tokens)), 1),
                Update::Add(Attribute::EstimatedInput(today), signed(observation.estimated_input_tokens)),
                Update::Add(Attribute::MeasuredInput(today), signed(observation.measured_input_tokens)),
            ],
        };
        write = write.then(&addition).unwrap_or(write);
    }
    let is_old = |attribute: Attribute| match attribute {
        Attribute::Answers(index) => index / BUCKETS + 1 < today,
        Attribute::EstimatedInput(day) | Attribute::MeasuredInput(day) => day + 1 < today,
        _ => false,
    };
    let old = image.iter().map(|(attribute, _)| attribute).filter(|attribute| is_old(*attribute));
    write.updates.extend(old.map(Update::Remove));
    write
}

fn answers(day: u64, bucket: u64) -> Attribute {
    Attribute::Answers(day * BUCKETS + bucket)
}

/// Returns the lowest bucket whose upper end is not below this length.
fn bucket(output_tokens: u64) -> u64 {
    (0..BUCKETS - 1).find(|bucket| upper_end(*bucket) >= output_tokens).unwrap_or(BUCKETS - 1)
}

/// Returns the longest answer of a bucket, in tokens: `2^(bucket / 4)`.
fn upper_end(bucket: u64) -> u64 {
    2_f64.powf(bucket as f64 / 4.0).ceil() as u64
}

/// Returns the 99th percentile; `None` also if it is in the last bucket, which has no upper end.
fn p99(count: impl Fn(u64) -> u64) -> Option<u64> {
    let total: u64 = (0..BUCKETS).map(&count).sum();
    if total < MIN_ANSWERS {
        return None;
    }
    let mut counted = 0;
    let reached = (0..BUCKETS - 1).find(|bucket| {
        counted += count(*bucket);
        counted * 100 >= total * 99
    })?;
    Some(upper_end(reached))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::Millis;

    const NOW: UnixMs = UnixMs::from_ms(1_764_000_000_000);
    const DAY: Millis = Millis::from_s(86_400);

    fn history(outputs: &[u64]) -> Image {
        let mut image = Image::default();
        for output_tokens in outputs {
            let observation =
                Observation { output_tokens: *output_tokens, estimated_input_tokens: 300, measured_input_tokens: 240 };
            assert!(image.apply(&record(&[observation], &image, NOW)));
        }
        image
    }

    proptest! {
        #[test]
        fn the_p99_is_at_most_a_quarter_octave_above_the_exact_percentile(
            mut outputs in proptest::collection::vec(1u64..40_000, 100..400),
        ) {
            let estimate = History::read(&history(&outputs), NOW).p99_output_tokens.expect("enough answers");
            outputs.sort_unstable();
            let exact = outputs[(outputs.len() * 99).div_ceil(100) - 1];
            let max_estimate = (exact as f64 * 1.19).ceil() + 1.0;
            prop_assert!(exact <= estimate && estimate as f64 <= max_estimate, "{exact} estimated as {estimate}");
        }
    }

    #[test]
    fn too_few_answers_give_no_statistics() {
        let history = History::read(&history(&[10; 99][..60]), NOW);
        assert_eq!(history, History::default());
        assert_eq!(history.correct(77), 77);
    }

    #[test]
    fn an_estimate_is_corrected_by_measured_counts() {
        let history = History::read(&history(&[10; 100]), NOW);
        assert_eq!(history.input_percent, Some(80));
        assert_eq!(history.correct(1_000), 800);
    }

    #[test]
    fn days_before_yesterday_are_removed() {
        let mut image = history(&[10; 100]);
        assert_eq!(History::read(&image, NOW + DAY).p99_output_tokens, Some(10));
        assert_eq!(History::read(&image, NOW + DAY * 2), History::default());
        let observation = Observation { output_tokens: 1, estimated_input_tokens: 1, measured_input_tokens: 1 };
        assert!(image.apply(&record(&[observation], &image.clone(), NOW + DAY * 2)));
        assert_eq!(image.iter().count(), 3);
    }

    #[test]
    fn answers_above_the_last_bucket_are_not_right_sized() {
        assert_eq!(History::read(&history(&[10_000_000; 100]), NOW).p99_output_tokens, None);
    }
}
