//! Report of a replay, as text and as JSON. Pure.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::Serialize;

use super::accounts::{Accounts, Tokens};
use super::tally::{Tally, Times};

/// Results of a replay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub trace: String,
    pub url: String,
    pub speed: f64,
    pub duration_ms: u64,
    pub sent: u64,
    pub answered: u64,
    pub queued: u64,
    pub queued_finished: u64,
    /// Jobs that ended without output, by status.
    pub queued_failed: BTreeMap<String, u64>,
    /// Jobs that had not ended when the replay stopped waiting, by their last known status. They
    /// are lost.
    pub queued_unfinished: BTreeMap<String, u64>,
    pub refused: u64,
    pub refused_per_limit: BTreeMap<String, u64>,
    pub errors: u64,
    pub errors_per_kind: BTreeMap<String, u64>,
    pub lost: u64,
    /// Complete responses with an unexpected property.
    pub oddities: BTreeMap<&'static str, u64>,
    pub pools: BTreeMap<String, PoolShare>,
    pub latency: Percentiles,
    pub first_token: Percentiles,
    pub queued_latency: Percentiles,
    pub generator_lag: Percentiles,
    /// Requests held back by `--max-in-flight`.
    pub held_back: u64,
    pub accounts: Accounts,
}

/// Requests and tokens of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PoolShare {
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Share of all tokens, from 0 to 1.
    pub share: f64,
}

/// Summary of a distribution; all zero without measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Report {
    /// Summarises a replay that took `duration`.
    pub fn new(trace: String, url: String, speed: f64, duration: Duration, tally: &Tally, accounts: Accounts) -> Self {
        Self {
            trace,
            url,
            speed,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            sent: tally.sent,
            answered: tally.answered,
            queued: tally.accepted,
            queued_finished: tally.finished,
            queued_failed: tally.jobs_ended.clone(),
            queued_unfinished: tally.given_up.clone(),
            refused: tally.refused,
            refused_per_limit: tally.refused_per_limit.clone(),
            errors: tally.errors(),
            errors_per_kind: tally.errors.clone(),
            lost: tally.lost(),
            oddities: tally.oddities.clone(),
            pools: pools(tally),
            latency: Percentiles::from_times(&tally.latency),
            first_token: Percentiles::from_times(&tally.first_token),
            queued_latency: Percentiles::from_times(&tally.job_latency),
            generator_lag: Percentiles::from_times(&tally.lag),
            held_back: tally.held_back,
            accounts,
        }
    }

    /// Returns the reason why the replay failed, or `None` if it succeeded.
    pub fn fault(&self) -> Option<String> {
        let unfinished: u64 = self.queued_unfinished.values().sum();
        let lost = (self.lost > 0).then(|| {
            format!("{} requests lost, including {unfinished} jobs that did not end within --drain-timeout", self.lost)
        });
        let accounts = match &self.accounts {
            Accounts::Differ { .. } => Some("the broker's tokens differ from the simulator's".to_owned()),
            Accounts::Unreadable { reason } => Some(format!("cannot compare the token counts: {reason}")),
            Accounts::Agree { .. } | Accounts::NotCompared => None,
        };
        let faults: Vec<String> = lost.into_iter().chain(accounts).collect();
        (!faults.is_empty()).then(|| faults.join("; "))
    }
}

fn pools(tally: &Tally) -> BTreeMap<String, PoolShare> {
    let tokens = |input: u64, output: u64| input.saturating_add(output) as f64;
    let total: f64 = tally.pools.values().map(|pool| tokens(pool.input_tokens, pool.output_tokens)).sum();
    let shares = tally.pools.iter().map(|(name, pool)| {
        let share = if total > 0.0 { tokens(pool.input_tokens, pool.output_tokens) / total } else { 0.0 };
        let share = PoolShare {
            requests: pool.requests,
            input_tokens: pool.input_tokens,
            output_tokens: pool.output_tokens,
            share,
        };
        (name.clone(), share)
    });
    shares.collect()
}

impl Percentiles {
    fn from_times(times: &Times) -> Self {
        Self {
            count: times.count(),
            p50_ms: times.quantile_ms(0.5),
            p90_ms: times.quantile_ms(0.9),
            p99_ms: times.quantile_ms(0.99),
            max_ms: times.max_ms(),
        }
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let seconds = self.duration_ms as f64 / 1000.0;
        writeln!(out, "replayed {} at speed {} against {} in {seconds:.1} s", self.trace, self.speed, self.url)?;
        writeln!(out)?;
        self.write_ends(out)?;
        self.write_pools(out)?;
        self.write_times(out)?;
        self.write_accounts(out)
    }
}

impl Report {
    fn write_ends(&self, out: &mut Formatter) -> fmt::Result {
        line(out, "sent", self.sent)?;
        line(out, "answered", self.answered)?;
        line(out, "queued", self.queued)?;
        line(out, "  finished", self.queued_finished)?;
        lines(out, &self.queued_failed)?;
        for (last_seen, count) in &self.queued_unfinished {
            line(out, &format!("  not ended, last seen: {last_seen}"), *count)?;
        }
        line(out, "refused, with a time", self.refused)?;
        lines(out, &self.refused_per_limit)?;
        line(out, "errors", self.errors)?;
        lines(out, &self.errors_per_kind)?;
        line(out, "lost", self.lost)?;
        if !self.oddities.is_empty() {
            writeln!(out, "\nodd")?;
            lines(out, &self.oddities)?;
        }
        Ok(())
    }

    fn write_pools(&self, out: &mut Formatter) -> fmt::Result {
        writeln!(out, "\n{:<28}{:>10}{:>14}{:>14}{:>9}", "pool", "requests", "input", "output", "share")?;
        for (name, pool) in &self.pools {
            let percent = pool.share * 100.0;
            let PoolShare { requests, input_tokens, output_tokens, .. } = pool;
            writeln!(out, "{name:<28}{requests:>10}{input_tokens:>14}{output_tokens:>14}{percent:>8.1}%")?;
        }
        Ok(())
    }

    fn write_times(&self, out: &mut Formatter) -> fmt::Result {
        writeln!(out, "\n{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}", "milliseconds", "count", "p50", "p90", "p99", "max")?;
        let rows = [
            ("latency, answered", &self.latency),
            ("first token, streams", &self.first_token),
            ("until seen finished, queued", &self.queued_latency),
            ("generator lag", &self.generator_lag),
        ];
        for (name, times) in rows {
            let Percentiles { count, p50_ms, p90_ms, p99_ms, max_ms } = times;
            writeln!(out, "{name:<28}{count:>10}{p50_ms:>10.1}{p90_ms:>10.1}{p99_ms:>10.1}{max_ms:>10.1}")?;
        }
        if self.held_back > 0 {
            writeln!(out, "{} requests were held back by --max-in-flight", self.held_back)?;
        }
        Ok(())
    }

    fn write_accounts(&self, out: &mut Formatter) -> fmt::Result {
        writeln!(out)?;
        match &self.accounts {
            Accounts::Agree { broker, simulator } => write_sides(out, broker, simulator, "agree"),
            Accounts::Differ { broker, simulator } => write_sides(out, broker, simulator, "DIFFER"),
            Accounts::Unreadable { reason } => writeln!(out, "accounts: cannot be compared: {reason}"),
            Accounts::NotCompared => {
                writeln!(out, "accounts: not compared, because no simulator is given (--simulator URL)")
            }
        }
    }
}

fn write_sides(out: &mut Formatter, broker: &Tokens, simulator: &Tokens, verdict: &str) -> fmt::Result {
    writeln!(out, "{:<28}{:>14}{:>14}", "accounts", "input", "output")?;
    for (name, tokens) in [("broker, settled", broker), ("simulator, served", simulator)] {
        writeln!(out, "{name:<28}{:>14}{:>14}", tokens.input_tokens, tokens.output_tokens)?;
    }
    writeln!(out, "{verdict}")
}

fn line(out: &mut Formatter, name: &str, count: u64) -> fmt::Result {
    writeln!(out, "{name:<48} {count:>8}")
}

fn lines<N: AsRef<str>>(out: &mut Formatter, counts: &BTreeMap<N, u64>) -> fmt::Result {
    counts.iter().try_for_each(|(name, count)| line(out, &format!("  {}", name.as_ref()), *count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::trace::answer::Usage;
    use crate::replay::trace::tally::{Answer, End, Event};

    const SAME: Tokens = Tokens { input_tokens: 30, output_tokens: 12 };

    fn answer(pool: &str, input_tokens: u64) -> Answer {
        Answer {
            pool: Some(pool.into()),
            usage: Some(Usage { input_tokens, output_tokens: 4 }),
            expected_output_tokens: 4,
            latency: Duration::from_millis(1_500),
            first_token: Some(Duration::from_millis(250)),
        }
    }

    fn report(events: Vec<Event>, accounts: Accounts) -> Report {
        let mut tally = Tally::new();
        for event in events {
            tally.record(Event::Sent { held_back: false });
            tally.record(event);
        }
        let duration = Duration::from_millis(61_250);
        Report::new("a.csv".into(), "http://localhost:1/".into(), 30.0, duration, &tally, accounts)
    }

    #[test]
    fn the_report_names_every_end_and_every_limit() {
        let events = vec![
            Event::Ended(End::Answered(answer("provisioned", 26))),
            Event::Ended(End::Finished(answer("on-demand", 6))),
            Event::Ended(End::JobEnded { status: "expired".into() }),
            Event::Ended(End::Refused { limits: vec!["tokens_per_minute".into()] }),
            Event::Ended(End::Failed { kind: "http 500".into() }),
            Event::GivenUp { last_seen: "queued".into() },
        ];
        let text = report(events, Accounts::Agree { broker: SAME, simulator: SAME }).to_string();
        let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "replayed a.csv at speed 30 against http://localhost:1/ in 61.2 s",
            "sent 6 answered 1 queued 0 finished 1 expired 1 not ended, last seen: queued 1",
            "refused, with a time 1 tokens_per_minute 1 errors 1 http 500 1 lost 1",
            "on-demand 1 6 4 25.0% provisioned 1 26 4 75.0%",
            "simulator, served 30 12 agree",
        ] {
            assert!(squeezed.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn a_replay_without_responses_has_a_report() {
        let report = report(vec![Event::Ended(End::Failed { kind: "timeout".into() })], Accounts::NotCompared);
        assert!(report.to_string().contains("not compared"));
        assert_eq!(report.latency.max_ms, 0.0);
        assert!(serde_json::to_string(&report).unwrap().contains("\"lost\":0"));
    }

    #[test]
    fn lost_requests_and_differing_accounts_are_faults() {
        let different = Tokens { input_tokens: 31, ..SAME };
        let agree = Accounts::Agree { broker: SAME, simulator: SAME };
        let differ = Accounts::Differ { broker: SAME, simulator: different };
        let ended = || vec![Event::Ended(End::Failed { kind: "timeout".into() })];
        assert_eq!(report(ended(), agree.clone()).fault(), None);
        assert_eq!(report(ended(), Accounts::NotCompared).fault(), None);
        assert!(report(vec![Event::Accepted], agree).fault().unwrap().contains("1 requests lost, including 0 jobs"));
        assert!(report(ended(), differ.clone()).fault().unwrap().contains("differ"));
        assert!(report(ended(), differ).to_string().contains("DIFFER"));
        assert!(report(ended(), Accounts::Unreadable { reason: "gone".into() }).fault().unwrap().contains("gone"));
    }
}
