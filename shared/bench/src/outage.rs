//! `spillway-bench outage`: outage drills.
//!
//! Two brokers and two regions are processes, and each region is behind a gate that can break its
//! connections. Callers send calls, streams, jobs and a batch while the near region fails and
//! returns. Time is real.

mod account;
mod callers;
mod deployment;
mod drill;
mod fault;
mod gate;
mod jobs;
mod report;

use std::time::Duration;

use anyhow::ensure;
use deployment::Deployment;
use fault::Fault;

/// Arguments of `spillway-bench outage`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Drills to run; all if absent
    #[arg(long, value_enum)]
    drill: Vec<Fault>,
    /// Seconds before each outage, in which all pools are well
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=600))]
    healthy_s: u64,
    /// Seconds of each outage
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=600))]
    outage_s: u64,
    /// Number of callers of each broker
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=200))]
    callers: u64,
}

/// Lengths of the phases of a drill.
#[derive(Debug, Clone, Copy)]
pub struct Phases {
    healthy: Duration,
    outage: Duration,
}

/// Runs the drills, each in a new deployment, and prints a row for each.
///
/// # Errors
/// Returns an error if a goal is missed, or a process does not start.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let phases = Phases { healthy: Duration::from_secs(args.healthy_s), outage: Duration::from_secs(args.outage_s) };
    let faults = if args.drill.is_empty() { Fault::ALL.to_vec() } else { args.drill.clone() };
    report::print_header(phases, args.callers);
    let mut missed = Vec::new();
    for fault in faults {
        let deployment = Deployment::start().await?;
        let figures = drill::run(&deployment, fault, phases, args.callers).await?;
        report::print_row(fault, &figures);
        missed.extend(report::missed(fault, &figures));
    }
    ensure!(missed.is_empty(), "{}", missed.join("; "));
    println!("\nall goals are met");
    Ok(())
}
