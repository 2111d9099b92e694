//! Plans the requests for the rows of a trace: their time, key, model and dialect. Pure.

use std::time::Duration;

use anyhow::Context;
use http::HeaderValue;
use spillway::dialect::Dialect;

use super::keys::Keys;
use super::options::{DialectChoice, LoadArgs};
use super::rows::Row;

const MIN_MAX_TOKENS: u64 = 64;

/// A request to send.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Time when it is sent, from the start of the replay.
    pub due: Duration,
    /// Value of its `Authorization` header.
    pub authorization: HeaderValue,
    /// Public name of the model.
    pub model: String,
    /// Wire format.
    pub dialect: Dialect,
    /// Whether it asks for a stream.
    pub streams: bool,
    /// Whether it may become a job.
    pub may_queue: bool,
    /// Length of its prompt.
    pub input_tokens: u64,
    /// Length of the output that it asks the simulator for.
    pub output_tokens: u64,
    /// Its maximum of output tokens.
    pub max_tokens: u64,
}

/// Plans every row. The same rows and options give the same requests on every run.
///
/// # Errors
/// Returns an error if the class of a row has no model.
pub fn plan(rows: &[Row], keys: &Keys, args: &LoadArgs) -> anyhow::Result<Vec<Planned>> {
    rows.iter().zip(0..).map(|(row, index)| plan_row(row, index, keys, args)).collect()
}

fn plan_row(row: &Row, index: u64, keys: &Keys, args: &LoadArgs) -> anyhow::Result<Planned> {
    let model = args.model_for(&row.model_class).with_context(|| {
        format!("the trace's class {0:?} has no model; give --model {0}=NAME or --model NAME", row.model_class)
    })?;
    let max_tokens = args.max_tokens.unwrap_or_else(|| default_max_tokens(row.output_tokens));
    Ok(Planned {
        due: Duration::try_from_secs_f64(row.arrival_ms as f64 / 1000.0 / args.speed)
            .context("the arrival time is too large for this speed")?,
        authorization: keys.authorization(&row.tenant),
        model: model.to_owned(),
        dialect: dialect(args.dialect, index),
        streams: draw(index, b's') < args.stream_share,
        may_queue: draw(index, b'q') < args.async_share(),
        input_tokens: row.input_tokens,
        output_tokens: row.output_tokens,
        max_tokens,
    })
}

/// Returns the maximum that a careful client would send: somewhat above the output that it expects.
fn default_max_tokens(output_tokens: u64) -> u64 {
    output_tokens.max(MIN_MAX_TOKENS).checked_next_power_of_two().unwrap_or(u64::MAX)
}

fn dialect(choice: DialectChoice, index: u64) -> Dialect {
    match choice {
        DialectChoice::Openai => Dialect::OpenAi,
        DialectChoice::Anthropic => Dialect::Anthropic,
        DialectChoice::Bedrock => Dialect::Bedrock,
        DialectChoice::Mixed => match (draw(index, b'd') * 3.0) as u8 {
            0 => Dialect::OpenAi,
            1 => Dialect::Anthropic,
            _ => Dialect::Bedrock,
        },
    }
}

/// Returns a number in `0..1` that depends only on the row and on `salt` (the finisher of
/// SplitMix64).
fn draw(index: u64, salt: u8) -> f64 {
    let mut bits = index.wrapping_mul(256).wrapping_add(u64::from(salt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn plan_with(flags: &[&str], rows: &[Row]) -> anyhow::Result<Vec<Planned>> {
        let line = Line::try_parse_from(["replay"].iter().chain(flags)).unwrap();
        plan(rows, &Keys::demo().unwrap(), &line.load)
    }

    fn row(arrival_ms: u64, output_tokens: u64) -> Row {
        Row { arrival_ms, tenant: "tiny".into(), model_class: "chat".into(), input_tokens: 5, output_tokens }
    }

    #[test]
    fn speed_divides_the_arrival_times() {
        let planned = plan_with(&["--speed", "30"], &[row(0, 1), row(60_000, 1)]).unwrap();
        assert_eq!(planned[0].due, Duration::ZERO);
        assert_eq!(planned[1].due, Duration::from_secs(2));
    }

    #[test]
    fn max_tokens_is_above_the_expected_output() {
        let planned = plan_with(&[], &[row(0, 0), row(0, 64), row(0, 65), row(0, 1000)]).unwrap();
        assert_eq!(planned.iter().map(|request| request.max_tokens).collect::<Vec<_>>(), [64, 64, 128, 1024]);
        assert_eq!(plan_with(&["--max-tokens", "7"], &[row(0, 9)]).unwrap()[0].max_tokens, 7);
    }

    #[test]
    fn shares_hold_over_many_rows_and_are_independent() {
        let rows = vec![row(0, 1); 20_000];
        let planned = plan_with(&["--stream-share", "0.3", "--async-share", "0.8"], &rows).unwrap();
        let share = |wanted: &dyn Fn(&Planned) -> bool| {
            planned.iter().filter(|request| wanted(request)).count() as f64 / rows.len() as f64
        };
        let near = |measured: f64, expected: f64| assert!((measured - expected).abs() < 0.02, "{measured} {expected}");
        near(share(&|request| request.streams), 0.3);
        near(share(&|request| request.may_queue), 0.8);
        near(share(&|request| request.streams && request.may_queue), 0.24);
        near(share(&|request| request.dialect == Dialect::Bedrock), 1.0 / 3.0);
        near(share(&|request| request.dialect == Dialect::OpenAi && request.streams), 0.1);
    }

    #[test]
    fn shares_of_0_and_1_are_exact() {
        let rows = vec![row(0, 1); 1_000];
        let planned = plan_with(&["--stream-share", "1", "--wait"], &rows).unwrap();
        assert!(planned.iter().all(|request| request.streams && !request.may_queue));
    }

    #[test]
    fn a_class_without_a_model_is_named() {
        let mut unknown = row(0, 1);
        unknown.model_class = "huge".into();
        assert!(plan_with(&[], &[unknown]).unwrap_err().to_string().contains("--model huge=NAME"));
    }

    #[test]
    fn an_arrival_time_that_is_too_large_is_an_error_and_not_a_panic() {
        assert!(plan_with(&["--speed", "1e-300"], &[row(1, 1)]).is_err());
    }
}
