//! Counts the outcomes of requests. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

const MAX_TIME_US: u64 = 24 * 3600 * 1_000_000;

/// Event in the life of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was started; `held_back` if it first had to wait for another request to end.
    Sent { held_back: bool },
    /// It was sent this long after its arrival time.
    Lag(Duration),
    /// It was accepted as a job.
    Accepted,
    /// Its job had not ended when the replay stopped waiting; with its last known status.
    GivenUp { last_seen: String },
    /// It ended. At most once per request.
    Ended(End),
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Answered while the caller waited.
    Answered(Answer),
    /// Became a job that succeeded, and its result was read.
    Finished(Answer),
    /// Became a job that ended as `failed`, `cancelled` or `expired`.
    JobEnded { status: String },
    /// Refused by these limits, with a `Retry-After`.
    Refused { limits: Vec<String> },
    /// Any other error, by kind.
    Failed { kind: String },
}

/// A complete response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Pool that served it.
    pub pool: Option<String>,
    /// Usage in the response, if it reports one.
    pub usage: Option<super::answer::Usage>,
    /// Output tokens that the simulator was asked for.
    pub expected_output_tokens: u64,
    /// Time from sending the request to the last byte, or to the result of the job.
    pub latency: Duration,
    /// Time from sending the request to the first content of a stream.
    pub first_token: Option<Duration>,
}

/// Counts of a replay.
#[derive(Debug)]
pub struct Tally {
    pub sent: u64,
    pub held_back: u64,
    pub answered: u64,
    pub accepted: u64,
    pub finished: u64,
    pub jobs_ended: BTreeMap<String, u64>,
    pub given_up: BTreeMap<String, u64>,
    pub refused: u64,
    pub refused_per_limit: BTreeMap<String, u64>,
    pub errors: BTreeMap<String, u64>,
    pub oddities: BTreeMap<&'static str, u64>,
    pub pools: BTreeMap<String, PoolUse>,
    pub latency: Times,
    pub first_token: Times,
    pub job_latency: Times,
    pub lag: Times,
}

/// Requests and tokens of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolUse {
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

impl Tally {
    /// Creates a tally without events.
    pub fn new() -> Self {
        Self {
            sent: 0,
            held_back: 0,
            answered: 0,
            accepted: 0,
            finished: 0,
            jobs_ended: BTreeMap::new(),
            given_up: BTreeMap::new(),
            refused: 0,
            refused_per_limit: BTreeMap::new(),
            errors: BTreeMap::new(),
            oddities: BTreeMap::new(),
            pools: BTreeMap::new(),
            latency: Times::new(),
            first_token: Times::new(),
            job_latency: Times::new(),
            lag: Times::new(),
        }
    }

    /// Counts an event.
    pub fn record(&mut self, event: Event) {
        match event {
            Event::Sent { held_back } => {
                self.sent += 1;
                self.held_back += u64::from(held_back);
            }
            Event::Lag(lag) => self.lag.record(lag),
            Event::Accepted => self.accepted += 1,
            Event::GivenUp { last_seen } => count(&mut self.given_up, last_seen),
            Event::Ended(end) => self.record_end(end),
        }
    }

    /// Number of requests that were sent but have not ended.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.ended())
    }

    /// Number of requests that have ended.
    pub fn ended(&self) -> u64 {
        self.answered + self.finished + self.jobs_failed() + self.refused + self.errors()
    }

    /// Number of requests that ended in an error.
    pub fn errors(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Number of jobs that ended without output.
    pub fn jobs_failed(&self) -> u64 {
        self.jobs_ended.values().sum()
    }

    fn record_end(&mut self, end: End) {
        match end {
            End::Answered(answer) => {
                self.answered += 1;
                self.latency.record(answer.latency);
                // The content of a job arrives in one piece, so its first token is not timed.
                if let Some(first_token) = answer.first_token {
                    self.first_token.record(first_token);
                }
                self.record_answer(&answer);
            }
            End::Finished(answer) => {
                self.finished += 1;
                self.job_latency.record(answer.latency);
                self.record_answer(&answer);
            }
            End::JobEnded { status } => count(&mut self.jobs_ended, status),
            End::Refused { limits } => {
                self.refused += 1;
                limits.into_iter().for_each(|limit| count(&mut self.refused_per_limit, limit));
            }
            End::Failed { kind } => count(&mut self.errors, kind),
        }
    }

    fn record_answer(&mut self, answer: &Answer) {
        if answer.pool.is_none() {
            count(&mut self.oddities, "answers that name no pool");
        }
        match answer.usage {
            None => count(&mut self.oddities, "answers without usage"),
            Some(usage) if usage.output_tokens != answer.expected_output_tokens => {
                count(&mut self.oddities, "answers longer or shorter than asked for");
            }
            Some(_) => {}
        }
        let name = answer.pool.clone().unwrap_or_else(|| "(not named)".to_owned());
        let pool = self.pools.entry(name).or_default();
        let usage = answer.usage.unwrap_or_default();
        pool.requests += 1;
        pool.input_tokens += usage.input_tokens;
        pool.output_tokens += usage.output_tokens;
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    *counts.entry(key).or_default() += 1;
}

/// Histogram of durations with three significant digits.
#[derive(Debug)]
pub struct Times {
    histogram_us: Histogram<u64>,
}

impl Times {
    fn new() -> Self {
        Self { histogram_us: Histogram::new_with_max(MAX_TIME_US, 3).expect("constant bounds within the library's") }
    }

    fn record(&mut self, time: Duration) {
        self.histogram_us.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Number of recorded durations.
    pub fn count(&self) -> u64 {
        self.histogram_us.len()
    }

    /// Returns a quantile in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.histogram_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Maximum in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.histogram_us.max() as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replay::trace::answer::Usage;

    fn answer(pool: &str, output_tokens: u64) -> Answer {
        Answer {
            pool: Some(pool.to_owned()),
            usage: Some(Usage { input_tokens: 10, output_tokens }),
            expected_output_tokens: 5,
            latency: Duration::from_millis(20),
            first_token: None,
        }
    }

    fn tally(events: impl IntoIterator<Item = Event>) -> Tally {
        let mut tally = Tally::new();
        events.into_iter().for_each(|event| tally.record(event));
        tally
    }

    fn sent() -> Event {
        Event::Sent { held_back: false }
    }

    #[test]
    fn a_request_without_an_end_is_lost() {
        let tally = tally([sent(), sent(), Event::Ended(End::Answered(answer("a", 5)))]);
        assert_eq!((tally.sent, tally.ended(), tally.lost()), (2, 1, 1));
    }

    #[test]
    fn an_unfinished_job_is_lost() {
        let tally = tally([sent(), Event::Accepted, Event::GivenUp { last_seen: "queued".into() }]);
        assert_eq!((tally.accepted, tally.lost()), (1, 1));
        assert_eq!(tally.given_up["queued"], 1);
    }

    #[test]
    fn a_refusal_counts_once_and_each_of_its_limits_once() {
        let limits = vec!["in_flight".to_owned(), "tokens_per_minute".to_owned()];
        let tally = tally([sent(), Event::Ended(End::Refused { limits })]);
        assert_eq!((tally.refused, tally.lost()), (1, 0));
        assert_eq!(tally.refused_per_limit.values().sum::<u64>(), 2);
    }

    #[test]
    fn pools_add_up_answers_and_finished_jobs() {
        let tally = tally([Event::Ended(End::Answered(answer("a", 5))), Event::Ended(End::Finished(answer("a", 5)))]);
        assert_eq!(tally.pools["a"], PoolUse { requests: 2, input_tokens: 20, output_tokens: 10 });
        assert_eq!((tally.latency.count(), tally.job_latency.count()), (1, 1));
        assert!(tally.oddities.is_empty());
    }

    #[test]
    fn the_first_token_is_timed_for_callers_that_waited() {
        let streamed = Answer { first_token: Some(Duration::from_millis(9)), ..answer("a", 5) };
        let tally = tally([Event::Ended(End::Answered(streamed.clone())), Event::Ended(End::Finished(streamed))]);
        assert_eq!(tally.first_token.count(), 1);
    }

    #[test]
    fn responses_with_unexpected_properties_are_counted() {
        let silent = Answer { pool: None, usage: None, ..answer("a", 5) };
        let tally = tally([Event::Ended(End::Answered(answer("a", 4))), Event::Ended(End::Answered(silent))]);
        assert_eq!(tally.oddities.len(), 3);
        assert!(tally.oddities.values().all(|count| *count == 1));
    }

    #[test]
    fn quantiles_are_in_milliseconds() {
        let lags = (1..=100).map(|ms| Event::Lag(Duration::from_millis(ms)));
        let tally = tally(lags);
        assert!((tally.lag.quantile_ms(0.5) - 50.0).abs() < 0.1);
        assert!((tally.lag.max_ms() - 100.0).abs() < 0.1);
        assert_eq!(tally.first_token.max_ms(), 0.0);
    }

    proptest! {
        #[test]
        fn lost_requests_were_sent_and_have_not_ended(ends in proptest::collection::vec(0_u8..6, 0..200)) {
            let mut tally = Tally::new();
            for end in &ends {
                tally.record(sent());
                let end = match end {
                    0 => End::Answered(answer("a", 5)),
                    1 => End::Finished(answer("b", 5)),
                    2 => End::JobEnded { status: "failed".into() },
                    3 => End::Refused { limits: Vec::new() },
                    4 => End::Failed { kind: "timeout".into() },
                    _ => continue,
                };
                tally.record(Event::Ended(end));
            }
            prop_assert_eq!(tally.lost(), ends.iter().filter(|end| **end == 5).count() as u64);
        }
    }
}
