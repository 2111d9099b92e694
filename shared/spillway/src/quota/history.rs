//! What recent requests of one tenant to one model turned out to be: how long their answers were, and how far the estimates
//! of their input were off.
//!
//! Two days are recent: the UTC day that runs, and the one before. Each has its own attributes, so nothing is ever reset.

use super::{Attribute, Image, Update, Write, period::day, reserve::signed};

/// Answers needed before their lengths say anything about the longest hundredth.
const LEAST_ANSWERS: u64 = 100;

/// Estimated input tokens needed before the measured ones say anything about the next estimate.
const LEAST_ESTIMATED_TOKENS: u64 = 20_000;

/// How far an estimate may be corrected, in percent of itself: what is further off is another kind of request.
const CORRECTION_PERCENT: std::ops::RangeInclusive<u64> = 50..=200;

/// Buckets of answer lengths in a day. Each is a quarter octave wide, so a length read from one is at most 19 % too high.
const BUCKETS: u64 = 64;

/// One request as it turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turnout {
    /// Output tokens.
    pub output_tokens: u64,
    /// Input tokens as estimated, without correction.
    pub estimated_input_tokens: u64,
    /// Input tokens as the model counted them.
    pub measured_input_tokens: u64,
}

/// What recent requests of one tenant to one model tell about the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// The output tokens that 99 of 100 recent answers did not exceed; `None` as long as there are too few.
    pub p99_output_tokens: Option<u64>,
    /// By how much to correct an estimate of input tokens, in percent of itself.
    pub input_percent: Option<u64>,
}

impl History {
    /// Reads what `image` tells at `now_ms`.
    pub fn read(image: &Image, now_ms: u64) -> Self {
        let days = [day(now_ms).saturating_sub(1), day(now_ms)];
        let sum = |attribute: fn(u64) -> Attribute| days.iter().map(|day| image.get(attribute(*day))).sum::<u64>();
        let (estimated, measured) = (sum(Attribute::EstimatedInput), sum(Attribute::MeasuredInput));
        let percent =
            || (measured * 100).div_ceil(estimated).clamp(*CORRECTION_PERCENT.start(), *CORRECTION_PERCENT.end());
        Self {
            p99_output_tokens: p99(|bucket| days.iter().map(|day| image.get(answers(*day, bucket))).sum()),
            input_percent: (estimated >= LEAST_ESTIMATED_TOKENS).then(percent),
        }
    }

    /// `estimate` as the history corrects it, in tokens.
    pub fn correct(&self, estimate: u64) -> u64 {
        self.input_percent.map_or(estimate, |percent| (estimate.saturating_mul(percent)).div_ceil(100).max(1))
    }
}

/// The write that adds `turnouts` to a history at `now_ms`, and forgets the days before the recent ones that `seen` shows.
pub fn record(turnouts: &[Turnout], seen: &Image, now_ms: u64) -> Write {
    let today = day(now_ms);
    let mut write = Write::default();
    for turnout in turnouts {
        let one = Write {
            conditions: Vec::new(),
            updates: vec![
                Update::Add(answers(today, bucket(turnout.output_tokens)), 1),
                Update::Add(Attribute::EstimatedInput(today), signed(turnout.estimated_input_tokens)),
                Update::Add(Attribute::MeasuredInput(today), signed(turnout.measured_input_tokens)),
            ],
        };
        write = write.then(&one).unwrap_or(write);
    }
    let is_old = |attribute: Attribute| match attribute {
        Attribute::Answers(index) => index / BUCKETS + 1 < today,
        Attribute::EstimatedInput(day) | Attribute::MeasuredInput(day) => day + 1 < today,
        _ => false,
    };
    let old = seen.iter().map(|(attribute, _)| attribute).filter(|attribute| is_old(*attribute));
    write.updates.extend(old.map(Update::Remove));
    write
}

fn answers(day: u64, bucket: u64) -> Attribute {
    Attribute::Answers(day * BUCKETS + bucket)
}

/// The bucket of a length: the lowest whose upper end is not below it.
fn bucket(output_tokens: u64) -> u64 {
    (0..BUCKETS - 1).find(|bucket| upper_end(*bucket) >= output_tokens).unwrap_or(BUCKETS - 1)
}

/// The longest answer of a bucket, in tokens: `2^(bucket / 4)`.
fn upper_end(bucket: u64) -> u64 {
    2_f64.powf(bucket as f64 / 4.0).ceil() as u64
}

/// `None` also when the longest hundredth reaches the last bucket, which has no upper end.
fn p99(count: impl Fn(u64) -> u64) -> Option<u64> {
    let total: u64 = (0..BUCKETS).map(&count).sum();
    if total < LEAST_ANSWERS {
        return None;
    }
    let mut seen = 0;
    let reached = (0..BUCKETS - 1).find(|bucket| {
        seen += count(*bucket);
        seen * 100 >= total * 99
    })?;
    Some(upper_end(reached))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_764_000_000_000;
    const DAY_MS: u64 = 86_400_000;

    fn history(outputs: &[u64]) -> Image {
        let mut image = Image::default();
        for output_tokens in outputs {
            let turnout =
                Turnout { output_tokens: *output_tokens, estimated_input_tokens: 300, measured_input_tokens: 240 };
            assert!(image.apply(&record(&[turnout], &image, NOW_MS)));
        }
        image
    }

    proptest! {
        #[test]
        fn the_p99_is_never_below_the_true_one_and_at_most_a_quarter_octave_above(
            mut outputs in proptest::collection::vec(1u64..40_000, 100..400),
        ) {
            let told = History::read(&history(&outputs), NOW_MS).p99_output_tokens.expect("enough answers");
            outputs.sort_unstable();
            let truth = outputs[(outputs.len() * 99).div_ceil(100) - 1];
            prop_assert!(truth <= told && told as f64 <= (truth as f64 * 1.19).ceil() + 1.0, "{truth} told as {told}");
        }
    }

    #[test]
    fn too_few_answers_tell_nothing() {
        let history = History::read(&history(&[10; 99][..60]), NOW_MS);
        assert_eq!(history, History::default());
        assert_eq!(history.correct(77), 77);
    }

    #[test]
    fn an_estimate_is_corrected_by_what_was_measured() {
        let history = History::read(&history(&[10; 100]), NOW_MS);
        assert_eq!(history.input_percent, Some(80));
        assert_eq!(history.correct(1_000), 800);
    }

    #[test]
    fn what_is_older_than_yesterday_is_forgotten() {
        let mut image = history(&[10; 100]);
        assert_eq!(History::read(&image, NOW_MS + DAY_MS).p99_output_tokens, Some(10));
        assert_eq!(History::read(&image, NOW_MS + 2 * DAY_MS), History::default());
        let turnout = Turnout { output_tokens: 1, estimated_input_tokens: 1, measured_input_tokens: 1 };
        assert!(image.apply(&record(&[turnout], &image.clone(), NOW_MS + 2 * DAY_MS)));
        assert_eq!(image.iter().count(), 3);
    }

    #[test]
    fn answers_beyond_every_bucket_are_not_right_sized() {
        assert_eq!(History::read(&history(&[10_000_000; 100]), NOW_MS).p99_output_tokens, None);
    }
}
