//! `spillway-bench utilisation`: replays traffic in virtual time, and measures how much of it a
//! provisioned pool serves before an on-demand pool is called.
//!
//! The product's own admission runs on an item in memory. Each request is charged what it uses when
//! it arrives. A request that finds no room is counted as spilled to an on-demand pool, which has
//! room for everything. The same traffic and seed give the same figures.

mod ledger;
mod outcome;
mod quota;
mod replay;
#[cfg(test)]
mod tests;
mod traffic;

use std::{path::PathBuf, thread};

use ledger::PoolLedger;
use outcome::Outcome;
use quota::Quota;
use replay::replay;
use spillway::{pool::PoolKind, quota::CARRY_EPOCH, units::Millis};
use traffic::Traffic;

use crate::goal::{self, Goal};

/// Arguments of `spillway-bench utilisation`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Trace (CSV, plain or gzipped) to replay; generated traffic if absent
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Tokens per minute of the provisioned pool
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000))]
    pub tokens_per_minute: u64,
    /// Time for which requests wait for room in the last table, in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=50))]
    pub hold_s: u64,
    /// Seed of the generated traffic
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Goal: minimum of the served tokens, as a share of what a token bucket serves.
const MIN_OF_BUCKET: f64 = 0.97;

/// Goal: minimum share of the tokens of large requests that the pool serves, as a share of the same
/// figure for all requests.
const MIN_LARGE: f64 = 0.9;

/// Goal: minimum utilisation of the pool in the minutes in which a request is not served.
const MIN_SPILLING_UTILISATION: f64 = 0.95;

/// Starts of the replay within an epoch. The figures of the product are the means over them.
const STARTS: u64 = 5;

/// Minutes of generated traffic.
const GENERATED_MINUTES: u64 = 24 * 60;

/// Replays the traffic, and prints three tables and the goals.
///
/// # Errors
/// Returns an error if a goal is missed or the trace is not valid.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let limit = args.tokens_per_minute;
    let traffic = match &args.trace {
        Some(trace) => Traffic::from_trace(trace)?,
        None => Traffic::generated(limit, GENERATED_MINUTES, args.seed),
    };
    println!("{}\n", traffic.description(limit));

    let reference = |name, quota| replay(name, &traffic, limit, None, quota, Millis::ZERO);
    let minute = reference("per minute", Quota::minute(limit));
    let bucket = reference("token bucket", Quota::bucket(limit));
    let (before, after) = both(|kind| Outcome::mean(&spilled(&traffic, limit, kind, STARTS)));
    let spilling = [before, after, minute, bucket];
    outcome::print("Requests without room are spilled", &spilling);

    let quotas = [Quota::bucket(limit), Quota::minute(limit), Quota::rolling(limit)];
    for (shape, quota) in ["a token bucket", "minutes of the clock", "any 60 seconds"].into_iter().zip(quotas) {
        let enforced = |kind| {
            replay(name(kind), &traffic, limit, Some(PoolLedger::new(limit, kind, 0)), quota.clone(), Millis::ZERO)
        };
        let (before, after) = both(enforced);
        outcome::print(&format!("The pool enforces its limit by {shape}"), &[before, after]);
    }

    let hold = Millis::from_s(args.hold_s);
    let waiting =
        |kind| replay(name(kind), &traffic, limit, Some(PoolLedger::new(limit, kind, 0)), Quota::Unlimited, hold);
    let (before, after) = both(waiting);
    let holding = [before, after];
    outcome::print(&format!("Requests without room wait for up to {} s", args.hold_s), &holding);
    goal::check(&goals(&spilling, &holding[1]))
}

/// Replays the traffic with the ledger of a pool of `kind`, from several starts within an epoch.
fn spilled(traffic: &Traffic, limit: u64, kind: PoolKind, starts: u64) -> Vec<Outcome> {
    let from = |start: u64| {
        let ledger = PoolLedger::new(limit, kind, start * CARRY_EPOCH.as_ms() / starts);
        replay(name(kind), traffic, limit, Some(ledger), Quota::Unlimited, Millis::ZERO)
    };
    (0..starts).map(from).collect()
}

/// Name of the column of a pool with the defaults of `kind`.
fn name(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::OnDemand => "burst 5 s",
        PoolKind::Provisioned => "default",
    }
}

/// Measures a pool that is spent like an on-demand pool, and a provisioned pool, on two threads.
fn both<T: Send>(measure: impl Fn(PoolKind) -> T + Sync) -> (T, T) {
    thread::scope(|scope| {
        let before = scope.spawn(|| measure(PoolKind::OnDemand));
        let after = measure(PoolKind::Provisioned);
        (before.join().expect("the replay must not panic"), after)
    })
}

/// Goals of the default: `spilling` are the outcomes before, after, with minutes and with a bucket.
fn goals([_, after, _, bucket]: &[Outcome; 4], holding: &Outcome) -> Vec<Goal> {
    let of_bucket = after.served_share() / bucket.served_share();
    vec![
        Goal::at_least("tokens that the pool serves / a token bucket serves", of_bucket, MIN_OF_BUCKET),
        Goal::at_least(
            "utilisation in minutes in which requests are not served",
            after.spilling_utilisation(),
            MIN_SPILLING_UTILISATION,
        ),
        Goal::at_least("share of large requests / share of all requests", after.large_of_share(), MIN_LARGE),
        Goal::at_least("the same if requests wait", holding.large_of_share(), MIN_LARGE),
    ]
}
