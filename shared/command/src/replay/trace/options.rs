//! Options of a trace replay.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::ensure;

use crate::demo;

/// Options of a trace replay.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Replaying a trace")]
pub struct LoadArgs {
    /// Factor by which the replay is faster than the trace
    #[arg(long, value_name = "X", default_value = "1", value_parser = speed)]
    pub speed: f64,

    /// URL of the broker
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8787")]
    pub url: reqwest::Url,

    /// URL of the Bedrock simulator, whose token counts are compared with the broker's
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_BEDROCK_RUNTIME")]
    pub simulator: Option<reqwest::Url>,

    /// TOML file with a table [keys] of tenant = "key"; the demo keys when absent
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,

    /// Model for a class of the trace as CLASS=NAME, or a NAME for all classes. Can be repeated
    #[arg(long, value_name = "[CLASS=]NAME")]
    pub model: Vec<ModelChoice>,

    /// Wire format of the requests
    #[arg(long, value_enum, default_value = "mixed")]
    pub dialect: DialectChoice,

    /// Share of requests that ask for a stream
    #[arg(long, value_name = "0..1", default_value = "0.5", value_parser = share)]
    pub stream_share: f64,

    /// Share of requests that may become jobs (`Prefer: respond-async`)
    #[arg(long, value_name = "0..1", default_value = "1", value_parser = share)]
    pub async_share: f64,

    /// Let no request become a job; the same as --async-share 0
    #[arg(long, conflicts_with = "async_share")]
    pub wait: bool,

    /// Maximum output tokens of every request. The default is the next power of two above the
    /// output in the trace, at least 64
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u64>,

    /// Send only the first N rows
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// Maximum number of open requests. Further requests are held back, and the report counts them
    #[arg(long, value_name = "N", default_value = "900", value_parser = positive)]
    pub max_in_flight: usize,

    /// Seconds after which an unfinished request counts as an error
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub request_timeout: std::time::Duration,

    /// Seconds to wait for jobs after the last arrival
    #[arg(long, value_name = "SECONDS", default_value = "900", value_parser = seconds)]
    pub drain_timeout: std::time::Duration,

    /// Seconds for the token counts to agree after the last request has ended
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub settle_timeout: std::time::Duration,

    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
}

impl LoadArgs {
    /// Share of requests that may become jobs.
    pub fn async_share(&self) -> f64 {
        if self.wait { 0.0 } else { self.async_share }
    }

    /// Returns the model for `class`: the model given for the class, the model given for all
    /// classes, or the demo's model.
    pub fn model_for(&self, class: &str) -> Option<&str> {
        let chosen = |wanted: Option<&str>| {
            self.model.iter().rev().find(|choice| choice.class.as_deref() == wanted).map(|choice| choice.name.as_str())
        };
        let demo = || demo::MODELS.iter().find(|(demo_class, _)| *demo_class == class).map(|(_, name)| *name);
        chosen(Some(class)).or_else(|| chosen(None)).or_else(demo)
    }
}

/// Value of `--model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelChoice {
    class: Option<String>,
    name: String,
}

impl FromStr for ModelChoice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (class, name) = match text.split_once('=') {
            Some((class, name)) => (Some(class.to_owned()), name),
            None => (None, text),
        };
        ensure!(!name.is_empty() && class.as_deref() != Some(""), "must be CLASS=NAME or NAME");
        Ok(Self { class, name: name.to_owned() })
    }
}

/// Wire format of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DialectChoice {
    Openai,
    Anthropic,
    Bedrock,
    /// A third of the requests in each format
    Mixed,
}

fn speed(text: &str) -> anyhow::Result<f64> {
    let speed: f64 = text.parse()?;
    ensure!(speed.is_finite() && speed > 0.0, "must be greater than 0");
    Ok(speed)
}

fn share(text: &str) -> anyhow::Result<f64> {
    let share: f64 = text.parse()?;
    ensure!((0.0..=1.0).contains(&share), "must be between 0 and 1");
    Ok(share)
}

fn positive(text: &str) -> anyhow::Result<usize> {
    let number: usize = text.parse()?;
    // A Tokio semaphore cannot have more permits.
    ensure!((1..=tokio::sync::Semaphore::MAX_PERMITS).contains(&number), "must be at least 1");
    Ok(number)
}

fn seconds(text: &str) -> anyhow::Result<std::time::Duration> {
    Ok(std::time::Duration::try_from_secs_f64(text.parse()?)?)
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

    fn parse(flags: &[&str]) -> Result<LoadArgs, clap::Error> {
        Line::try_parse_from(["replay"].iter().chain(flags)).map(|line| line.load)
    }

    #[test]
    fn a_class_prefers_its_model_to_the_general_model_and_the_demo_model() {
        let none = parse(&[]).unwrap();
        assert_eq!(none.model_for("chat"), Some("demo-chat"));
        assert_eq!(none.model_for("unheard-of"), None);
        let general = parse(&["--model", "one", "--model", "chat=two"]).unwrap();
        assert_eq!(general.model_for("chat"), Some("two"));
        assert_eq!(general.model_for("unheard-of"), Some("one"));
    }

    #[test]
    fn invalid_values_are_rejected() {
        for flags in [
            ["--speed", "0"],
            ["--speed", "inf"],
            ["--stream-share", "1.1"],
            ["--async-share", "NaN"],
            ["--model", "chat="],
            ["--max-in-flight", "0"],
            ["--drain-timeout", "-1"],
            ["--url", "nowhere"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
        assert!(parse(&["--wait", "--async-share", "0.5"]).is_err());
    }

    #[test]
    fn wait_keeps_every_request_from_becoming_a_job() {
        assert_eq!(parse(&["--wait"]).unwrap().async_share(), 0.0);
        assert_eq!(parse(&[]).unwrap().async_share(), 1.0);
    }
}
