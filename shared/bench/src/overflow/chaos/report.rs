//! Report of the chaos run, and its missed goals.

use std::collections::BTreeMap;

use spillway::job::{JobStatus, MAX_ATTEMPTS};

use super::{
    Args,
    evidence::Evidence,
    reconciliation::{Fate, Reconciliation},
    tokens::Tokens,
};
use crate::overflow::output::RESENT;

/// Maximum number of printed findings without `--verbose`.
const MAX_SHOWN: usize = 20;

/// Prints the report. Returns the missed goals.
pub fn print(
    args: &Args,
    evidence: &Evidence,
    reconciliation: &Reconciliation,
    (submitted_s, ended_s): (f64, f64),
) -> Vec<String> {
    println!("seed {}; accepted in {submitted_s:.1} s, all ended after {ended_s:.1} s\n", args.seed);
    let mut failures = jobs(evidence, reconciliation);
    faults(evidence);
    tokens(evidence, reconciliation);
    warnings(evidence);
    let errors: Vec<&String> = evidence.errors.iter().chain(&reconciliation.unexplained).collect();
    if !errors.is_empty() {
        println!("\nunexplained:");
        errors.iter().take(if args.verbose { usize::MAX } else { MAX_SHOWN }).for_each(|line| println!("  {line}"));
        failures.push(format!("{} findings are unexplained", errors.len()));
    }
    failures
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("{name:<58}{value:>12}");
}

fn jobs(evidence: &Evidence, reconciliation: &Reconciliation) -> Vec<String> {
    let mut failures = Vec::new();
    let accepted = evidence.submitted.jobs.len();
    row("accepted as jobs (202)", accepted);
    row("answered directly (200)", evidence.submitted.answered);
    for (status, count) in &evidence.submitted.refused {
        row(&format!("refused ({status})"), count);
    }
    row("submissions without a response", evidence.submitted.lost);
    let unknown = evidence.jobs.len() - accepted;
    row("jobs whose acceptance did not reach the client", unknown);
    // A client that got an error or no response may have a job nevertheless.
    let broken: u64 = evidence.submitted.refused.iter().filter(|(status, _)| **status >= 500).map(|(_, n)| n).sum();
    if unknown as u64 > broken + evidence.submitted.lost {
        failures.push(format!("{unknown} jobs exist that no client knows"));
    }
    let mut by_status: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for observed in evidence.jobs.values() {
        let count = by_status.entry(observed.job.status.name()).or_default();
        *count = (count.0 + 1, count.1 + u64::from(observed.has_result));
        let has_output = observed.has_result && (observed.usage.is_some() || observed.job.status == JobStatus::Failed);
        if !observed.job.status.is_final() || (observed.job.status == JobStatus::Succeeded && !has_output) {
            failures.push(format!("job {} is {} and has no stored result", observed.job.id, observed.status));
        }
    }
    let unexplained = evidence.jobs.values().filter(|observed| {
        matches!(observed.job.status, JobStatus::Failed | JobStatus::Expired) && observed.job.error.is_none()
    });
    failures.extend(unexplained.map(|observed| format!("job {} ended without a reason", observed.job.id)));
    for (status, (count, with_result)) in &by_status {
        row(&format!("ended {status} ({with_result} with a stored result)"), count);
    }
    for (reason, count) in reasons(evidence) {
        row(&format!("  because: {reason}"), count);
    }
    let maximum = |calls: fn(&(u64, u64)) -> u64| reconciliation.calls_by_job.values().map(calls).max().unwrap_or(0);
    let sum: u64 = reconciliation.calls_by_job.values().map(|calls| calls.0).sum();
    row("calls that a model started, per job", format!("{:.3}", sum as f64 / evidence.jobs.len().max(1) as f64));
    row(&format!("  maximum (the bound is {MAX_ATTEMPTS})"), maximum(|calls| calls.0));
    row("  maximum, with refused calls", maximum(|calls| calls.1));
    if maximum(|calls| calls.0) > u64::from(MAX_ATTEMPTS) {
        failures.push("a job called models more often than the bound allows".to_owned());
    }
    let claims: u64 = evidence.jobs.values().map(|observed| observed.job.fence).sum();
    let deferrals: u64 = evidence.jobs.values().map(|observed| u64::from(observed.job.deferrals)).sum();
    row("claims", claims);
    row("deferrals", deferrals);
    for observed in evidence.jobs.values().filter(|observed| !observed.job.status.is_final()).take(MAX_SHOWN) {
        println!("  {:?}", observed.job);
    }
    failures
}

/// Counts the errors of jobs that differ in more than numbers.
fn reasons(evidence: &Evidence) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for error in evidence.jobs.values().filter_map(|observed| observed.job.error.as_deref()) {
        let mut reason = error.replace(|char: char| char.is_ascii_digit(), "0");
        while reason.contains("00") {
            reason = reason.replace("00", "0");
        }
        *reasons.entry(reason).or_default() += 1;
    }
    reasons
}

fn faults(evidence: &Evidence) {
    println!();
    let refused = |ending: &str| {
        let calls = evidence.calls.iter().filter(|call| call.ending == ending);
        calls.fold((0, 0), |(before, within), call| match call.admitted {
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
    row("faulty requests to the store", evidence.store_faults);
    row("messages sent again by the sweep", evidence.output.warnings.get(RESENT).copied().unwrap_or(0));
}

fn tokens(evidence: &Evidence, reconciliation: &Reconciliation) {
    println!("\n{:<44}{:>10}{:>14}{:>14}", "calls that a model started", "calls", "input", "output");
    let line =
        |name: &str, calls: u64, input: u64, output: u64| println!("{name:<44}{calls:>10}{input:>14}{output:>14}");
    for (fate, tokens) in &reconciliation.fates {
        line(name(*fate), tokens.requests, tokens.input, tokens.output);
    }
    let total = reconciliation.fates.values().fold(Tokens::default(), |sum, tokens| sum.plus(*tokens));
    line("total", total.requests, total.input, total.output);
    let refused = evidence.calls.iter().filter(|call| !call.admitted).count() as u64;
    let simulated = evidence.simulated.values().fold(Tokens::default(), |sum, tokens| sum.plus(*tokens));
    line("the simulator's totals", simulated.requests - refused, simulated.input, simulated.output);
    line(
        "reported by the brokers",
        reconciliation.reported.requests,
        reconciliation.reported.input,
        reconciliation.reported.output,
    );
    line(
        "settled in the ledger",
        reconciliation.settled.requests,
        reconciliation.settled.input,
        reconciliation.settled.output,
    );
    println!();
    let (unknown, happened) = reconciliation.uncertain;
    row("settlements with an unknown result", unknown);
    row("  of these, happened", happened);
    row("calls of killed brokers that were settled", reconciliation.killed_settled);
    row("tokens of the day that stay charged without an outcome", reconciliation.stays_charged);
}

fn name(fate: Fate) -> &'static str {
    match fate {
        Fate::Stored => "with a stored response",
        Fate::Direct => "answered directly",
        Fate::NotStored => "received, then the broker was killed",
        Fate::Dropped => "received, but the job has another result or none",
        Fate::BrokenOff => "broken off by the model",
        Fate::GivenUp => "given up by the broker",
        Fate::Killed => "broker killed during the call",
        Fate::Unexplained => "UNEXPLAINED",
    }
}

fn warnings(evidence: &Evidence) {
    if !evidence.output.warnings.is_empty() {
        println!("\nwarnings of the brokers:");
    }
    for (message, count) in &evidence.output.warnings {
        println!("{count:>10}  {message}");
    }
    evidence.output.unparsed.iter().take(MAX_SHOWN).for_each(|line| println!("            {line}"));
}
