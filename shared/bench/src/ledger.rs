//! `spillway-bench ledger`: simulates admission in virtual time. It runs the product's own
//! algorithm and three alternatives under the same load, on items in memory.
//!
//! The simulation covers the properties of the store that matter: a write takes milliseconds, an
//! item takes 1,000 writes a second, and a failed condition costs a write. The same seed gives the
//! same figures.

mod accounts;
mod encoding;
mod figures;
mod fleet;
mod goals;
mod item;
mod load;
mod scenario;
mod simulation;
mod slab;
mod table;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

use encoding::Encoding;
use fleet::Fleet;
use load::{Kind, MAX_SIZED_TOKENS, Sizing};
use scenario::Scenario;
use simulation::Outcome;
use table::Table;

use crate::goal::{self, Goal};

/// Arguments of `spillway-bench ledger`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seed of the random numbers; the same seed gives the same figures
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Length of each scenario in virtual seconds; the first third is not measured
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(3..=3_600))]
    pub seconds: u64,
}

/// Simulates all scenarios, and prints five tables and the goals.
///
/// # Errors
/// Returns an error if a goal is missed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let groups = [tenants(args), pools(args), storm(args), batching(args), right_sizing(args)];
    let sizes = groups.each_ref().map(Vec::len);
    let mut outcomes = run_all(groups.into_iter().flatten().collect()).into_iter();
    let [tenants, pools, storm, batching, right_sizing] =
        sizes.map(|size| outcomes.by_ref().take(size).collect::<Vec<_>>());

    println!("{} virtual seconds, the last two thirds measured, seed {}\n", args.seconds, args.seed);
    println!("{}", tenants_table(&tenants));
    println!("{}", pools_table(&pools));
    println!("{}", storm_table(&storm));
    println!("{}", batching_table(&batching));
    println!("{}", right_sizing_table(&right_sizing));
    let [off, _, ordinary, _, adversary] = &right_sizing[..] else { unreachable!("five scenarios") };
    let goals: Vec<Goal> = goals::for_tenants(&tenants[0])
        .into_iter()
        .chain(goals::for_pools(&pools[1]))
        .chain(goals::for_right_sizing(off, ordinary, adversary))
        .collect();
    goal::check(&goals)
}

/// Runs all `scenarios`, one per core at a time.
fn run_all(scenarios: Vec<Scenario>) -> Vec<Outcome> {
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = scenarios.len();
    let waiting = Mutex::new(scenarios.into_iter().enumerate());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut outcomes = Vec::new();
        while let Some((index, scenario)) = next() {
            outcomes.push((index, simulation::run(scenario)));
        }
        outcomes
    };
    let mut outcomes = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.min(count)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the simulation must not panic")).collect::<Vec<_>>()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Tenants without pools: the product, the product with idle instances chosen at random, and the
/// alternatives.
fn tenants(args: &Args) -> Vec<Scenario> {
    let shipped = |name| Scenario::new(name, load::many_tenants(1), args.seconds, args.seed);
    vec![
        shipped("staircase"),
        Scenario { fleet: Fleet::AnyInstance, ..shipped("any instance") },
        Scenario { encoding: Encoding::Gcra, ..shipped("GCRA") },
        Scenario { encoding: Encoding::FixedWindows, ..shipped("fixed windows") },
        Scenario { encoding: Encoding::CompareAndSwap, ..shipped("swap") },
        Scenario { encoding: Encoding::CompareAndSwap, hot_shards: Some(32), ..shipped("swap, 32 items") },
    ]
}

/// Tenants and two pools that the hot tenant alone would fill.
fn pools(args: &Args) -> Vec<Scenario> {
    let with = |name, excess_percent| Scenario {
        model: Some(load::two_pools(1, excess_percent)),
        ..Scenario::new(name, load::many_tenants(1), args.seconds, args.seed)
    };
    vec![with("excess 100 %", 100), with("excess 90 %", 90)]
}

/// A tenant that sends 200 times the requests that it is allowed.
fn storm(args: &Args) -> Vec<Scenario> {
    let storm = |name, remembers_refusals| Scenario {
        remembers_refusals,
        ..Scenario::new(name, vec![load::hot(2_000, 10, 0)], args.seconds, args.seed)
    };
    vec![storm("no memory", false), storm("memory", true)]
}

/// A hot tenant, served by eight processes.
fn batching(args: &Args) -> Vec<Scenario> {
    let served = |name, processes, batches, hot_shards| Scenario {
        fleet: Fleet::Processes(processes),
        batches,
        hot_shards,
        ..Scenario::new(name, vec![load::hot(2_000, 1_500, 0)], args.seconds, args.seed)
    };
    vec![
        served("one by one", 8, false, None),
        served("batched", 8, true, None),
        served("1 process", 1, true, None),
        served("2 items", 8, true, Some(2)),
    ]
}

/// A tenant with short answers, and one that has had short answers and then asks for long ones. The
/// limit without a bound shows what the bound prevents.
fn right_sizing(args: &Args) -> Vec<Scenario> {
    let sized = |name, per_s, reserved_tokens, output_tokens, is_bounded| {
        let sizing = Sizing { reserved_tokens, output_tokens, is_bounded };
        Scenario::new(name, vec![load::sized(per_s, sizing)], args.seconds, args.seed)
    };
    let (short, long) = (100..=300, MAX_SIZED_TOKENS..=MAX_SIZED_TOKENS);
    vec![
        sized("off", 10.0, MAX_SIZED_TOKENS, short.clone(), true),
        sized("no bound", 10.0, 300, short.clone(), false),
        sized("shipped", 10.0, 300, short, true),
        sized("long, no bound", 100.0, 1, long.clone(), false),
        sized("long, shipped", 100.0, 1, long, true),
    ]
}

fn tenants_table(outcomes: &[Outcome]) -> Table<'_> {
    let table = Table::new("300 tenants without pools, one request per instance", outcomes);
    traffic(table)
        .row("hot tenant: use of its limit", 3, |outcome| outcome.hot.utilisation)
        .row("  worst 60 s / limit", 3, |outcome| outcome.hot.worst_60_s)
        .row("  worst 10 s / (limit / 6)", 2, |outcome| outcome.hot.worst_10_s)
        .row("token-limited tenants: use of their limits", 3, |outcome| outcome.token_limited.utilisation)
        .row("  worst 60 s / limit", 3, |outcome| outcome.token_limited.worst_60_s)
        .row("  worst 10 s / (limit / 6)", 2, |outcome| outcome.token_limited.worst_10_s)
        .percent("in-flight limit held by dead requests, on average", |outcome| outcome.dead_share)
        .row("longest time that a dead request held a slot, s", 1, |outcome| outcome.longest_held_s)
        .row("slots of dead requests that were freed", 0, |outcome| outcome.freed as f64)
}

fn pools_table(outcomes: &[Outcome]) -> Table<'_> {
    let table = Table::new("Tenants and two pools that the hot tenant oversubscribes", outcomes);
    traffic(table)
        .row("provisioned pool: use of its limit", 3, |outcome| outcome.pools[0].utilisation)
        .row("  worst 60 s / limit", 3, |outcome| outcome.pools[0].worst_60_s)
        .row("  worst 10 s / (limit / 6)", 2, |outcome| outcome.pools[0].worst_10_s)
        .row("on-demand pool: use of its limit", 3, |outcome| outcome.pools[1].utilisation)
        .row("  worst 60 s / limit", 3, |outcome| outcome.pools[1].worst_60_s)
        .row("  worst 10 s / (limit / 6)", 2, |outcome| outcome.pools[1].worst_10_s)
        .percent("sparse tenants: found no pool", |outcome| outcome.overflowed_share(Kind::Sparse))
        .percent("medium tenants: found no pool", |outcome| outcome.overflowed_share(Kind::Medium))
        .percent("both in the first third: found no pool", Outcome::overflowed_at_first_share)
        .percent("hot tenant: found no pool", |outcome| outcome.overflowed_share(Kind::Hot))
        .percent("hot tenant: admitted", |outcome| outcome.admitted_share(Kind::Hot))
}

fn storm_table(outcomes: &[Outcome]) -> Table<'_> {
    let table =
        Table::new("A storm: 2,000 requests/s from a tenant with a limit of 10, with and without memory", outcomes);
    traffic(table).row("use of the limit", 3, |outcome| outcome.hot.utilisation).row(
        "worst 60 s / limit",
        3,
        |outcome| outcome.hot.worst_60_s,
    )
}

fn batching_table(outcomes: &[Outcome]) -> Table<'_> {
    let table = Table::new(
        "A hot tenant on 8 processes: a write per request, or a write per batch (last two: 1 process; 2 items)",
        outcomes,
    );
    traffic(table).row("use of the limit", 3, |outcome| outcome.hot.utilisation)
}

fn right_sizing_table(outcomes: &[Outcome]) -> Table<'_> {
    let table = Table::new(
        "Right-sizing: short answers, and an adversary that changes to long answers (200,000 tokens/min, cap 8,000)",
        outcomes,
    );
    traffic(table)
        .row("use of the limit", 3, |outcome| outcome.token_limited.utilisation)
        .row("  worst window / limit", 3, |outcome| outcome.token_limited.worst_window)
        .row("  worst 60 s / limit", 3, |outcome| outcome.token_limited.worst_60_s)
        .row("writes refused by the bound/s", 1, |outcome| outcome.per_s(outcome.tally.in_full))
}

/// Adds the rows that every table starts with.
fn traffic(table: Table<'_>) -> Table<'_> {
    table
        .row("requests/s", 0, |outcome| outcome.per_s(outcome.offered()))
        .row("admitted/s", 0, |outcome| outcome.per_s(outcome.admitted()))
        .row("writes per admitted request, without refusals", 3, Outcome::writes_without_refusals)
        .row("writes per admitted request", 3, Outcome::writes_per_admitted)
        .row("reads/s", 0, |outcome| outcome.per_s(outcome.tally.reads))
        .row("throttled/s", 1, |outcome| outcome.per_s(outcome.tally.throttled))
        .row("retries per request: guess, race, conflict", 4, Outcome::retries_per_offered)
        .row("total retries: a new epoch began", 0, |outcome| outcome.tally.epoch_retries as f64)
        .row("total retries: to free the slots of dead requests", 0, |outcome| outcome.tally.reaping as f64)
        .row("admission p50, ms", 1, |outcome| outcome.admit_ms(0.5))
        .row("admission p99, ms", 1, |outcome| outcome.admit_ms(0.99))
        .row("refused/s by the tenant's limits", 0, |outcome| outcome.per_s(outcome.refused()))
        .percent("  of these, without a write", Outcome::remembered_share)
        .row("answered \"busy\"/s", 1, |outcome| outcome.per_s(outcome.tally.busy))
}
