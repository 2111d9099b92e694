//! The table of the chaos, and what of it misses a goal.

use std::collections::BTreeMap;

use spillway::job::{MAX_ATTEMPTS, Status};

use super::{
    Args,
    books::{Books, Fate, Tokens},
    evidence::Evidence,
};
use crate::overflow::watched::RESENT;

/// How many of the same kind are printed without `--verbose`.
const SHOWN: usize = 20;

/// Prints everything; gives the goals that are missed.
pub fn print(args: &Args, evidence: &Evidence, books: &Books, (submitted_s, ended_s): (f64, f64)) -> Vec<String> {
    println!("seed {}; accepted in {submitted_s:.1} s, all ended after {ended_s:.1} s\n", args.seed);
    let mut failures = jobs(evidence, books);
    disturbances(evidence);
    tokens(evidence, books);
    warnings(evidence);
    let wrong: Vec<&String> = evidence.wrong.iter().chain(&books.unexplained).collect();
    if !wrong.is_empty() {
        println!("\nnot explained:");
        wrong.iter().take(if args.verbose { usize::MAX } else { SHOWN }).for_each(|line| println!("  {line}"));
        failures.push(format!("{} things are not explained", wrong.len()));
    }
    failures
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("{name:<58}{value:>12}");
}

fn jobs(evidence: &Evidence, books: &Books) -> Vec<String> {
    let mut failures = Vec::new();
    let accepted = evidence.submitted.jobs.len();
    row("accepted as jobs (202)", accepted);
    row("answered at once (200)", evidence.submitted.answered);
    for (status, count) in &evidence.submitted.refused {
        row(&format!("refused ({status})"), count);
    }
    row("submissions without an answer", evidence.submitted.lost);
    let untold = evidence.jobs.len() - accepted;
    row("jobs whose acceptance was not told", untold);
    // Whoever got an error or nothing may have a job all the same.
    let broken: u64 = evidence.submitted.refused.iter().filter(|(status, _)| **status >= 500).map(|(_, n)| n).sum();
    if untold as u64 > broken + evidence.submitted.lost {
        failures.push(format!("{untold} jobs exist that nobody was told of"));
    }
    let mut by_status: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for seen in evidence.jobs.values() {
        let count = by_status.entry(seen.job.status.name()).or_default();
        *count = (count.0 + 1, count.1 + u64::from(seen.has_result));
        let has_answer = seen.has_result && (seen.usage.is_some() || seen.job.status == Status::Failed);
        if !seen.job.status.is_final() || (seen.job.status == Status::Succeeded && !has_answer) {
            failures.push(format!("job {} is {} and has no stored answer", seen.job.id, seen.told));
        }
    }
    for (status, (count, with_answer)) in &by_status {
        row(&format!("ended {status} ({with_answer} with a stored answer)"), count);
    }
    for (reason, count) in reasons(evidence) {
        row(&format!("  because: {reason}"), count);
    }
    let most = |calls: fn(&(u64, u64)) -> u64| books.calls_by_job.values().map(calls).max().unwrap_or(0);
    let sum: u64 = books.calls_by_job.values().map(|calls| calls.0).sum();
    row("calls that a model began, per job", format!("{:.3}", sum as f64 / evidence.jobs.len().max(1) as f64));
    row(&format!("  at most (the bound is {MAX_ATTEMPTS})"), most(|calls| calls.0));
    row("  at most, with those that were refused", most(|calls| calls.1));
    if most(|calls| calls.0) > u64::from(MAX_ATTEMPTS) {
        failures.push("a job called models more often than the bound".to_owned());
    }
    let claims: u64 = evidence.jobs.values().map(|seen| seen.job.fence).sum();
    let deferrals: u64 = evidence.jobs.values().map(|seen| u64::from(seen.job.deferrals)).sum();
    row("claims", claims);
    row("deferrals", deferrals);
    for seen in evidence.jobs.values().filter(|seen| !seen.job.status.is_final()).take(SHOWN) {
        println!("  {:?}", seen.job);
    }
    failures
}

fn reasons(evidence: &Evidence) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for error in evidence.jobs.values().filter_map(|seen| seen.job.error.clone()) {
        *reasons.entry(error).or_default() += 1;
    }
    reasons
}

fn disturbances(evidence: &Evidence) {
    println!();
    let refused = |ending: &str| {
        let struck = evidence.calls.iter().filter(|call| call.ending == ending);
        struck.fold((0, 0), |(before, within), call| match call.admitted {
            false => (before + 1, within),
            true => (before, within + 1),
        })
    };
    let ((throttled, throttled_within), (failed, cut)) = (refused("throttled"), refused("failed"));
    row("brokers killed", evidence.kills.len());
    row("calls throttled", throttled);
    row("calls failed (5xx)", failed);
    row("streams cut", cut);
    row("streams throttled", throttled_within);
    for (fault, count) in &evidence.queue_faults {
        row(&format!("messages {}", fault.replace('_', " ")), count);
    }
    row("requests to the store disturbed", evidence.store_faults);
    row("messages sent again by the sweep", evidence.said.warnings.get(RESENT).copied().unwrap_or(0));
}

fn tokens(evidence: &Evidence, books: &Books) {
    println!("\n{:<44}{:>10}{:>14}{:>14}", "calls that a model began", "calls", "input", "output");
    let line =
        |name: &str, calls: u64, input: u64, output: u64| println!("{name:<44}{calls:>10}{input:>14}{output:>14}");
    for (fate, tokens) in &books.fates {
        line(told(*fate), tokens.requests, tokens.input, tokens.output);
    }
    let all = books.fates.values().fold(Tokens::default(), |sum, tokens| sum.plus(*tokens));
    line("together", all.requests, all.input, all.output);
    let refused = evidence.calls.iter().filter(|call| !call.admitted).count() as u64;
    let simulated = evidence.simulated.values().fold(Tokens::default(), |sum, tokens| sum.plus(*tokens));
    line("the simulator's account", simulated.requests - refused, simulated.input, simulated.output);
    line("told by the brokers", books.told.requests, books.told.input, books.told.output);
    line("settled in the ledger", books.settled.requests, books.settled.input, books.settled.output);
    println!();
    let (unsure, happened) = books.uncertain;
    row("settlements that the broker was not sure of", unsure);
    row("  of which happened", happened);
    row("calls of killed brokers that were settled", books.killed_settled);
    row("tokens of the day that stay charged without an outcome", books.stays_charged);
}

fn told(fate: Fate) -> &'static str {
    match fate {
        Fate::Stored => "whose answer is stored",
        Fate::AtOnce => "answered at once",
        Fate::Unstored => "heard, then its broker was killed",
        Fate::Dropped => "heard, but another answer counts, or none",
        Fate::Broken => "broken off by the model",
        Fate::Unheard => "given up by the broker",
        Fate::Killed => "of a broker that was killed",
        Fate::Unexplained => "UNEXPLAINED",
    }
}

fn warnings(evidence: &Evidence) {
    if !evidence.said.warnings.is_empty() {
        println!("\nwarnings of the brokers:");
    }
    for (message, count) in &evidence.said.warnings {
        println!("{count:>10}  {message}");
    }
    evidence.said.other.iter().take(SHOWN).for_each(|line| println!("            {line}"));
}
