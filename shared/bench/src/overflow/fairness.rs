//! `spillway-bench overflow fairness`: measures how long small tenants wait while another tenant
//! floods the queue.
//!
//! All tenants share a pool with a limit of requests per minute. The same load runs twice, in
//! separate deployments: with the big tenants and without them. The time of a request is from its
//! submission to its response, or to the stored response of its job.

mod load;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::ensure;
use load::{Load, Times};

use super::{
    deployment::{Deployment, LocalOptions},
    figures,
    settings::Settings,
};

/// Arguments of `spillway-bench overflow fairness`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Number of requests of the big tenant
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub big: u64,
    /// Number of small tenants
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(u64).range(1..=500))]
    pub tenants: u64,
    /// Number of requests of each small tenant, sent a second later
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub small: u64,
    /// Requests per minute of the pool
    #[arg(long, default_value_t = 1_800, value_parser = clap::value_parser!(u64).range(12..=1_000_000))]
    pub pool_per_minute: u64,
    /// Trace (CSV, plain or gzipped) that replaces the generated tenants, times and output lengths
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Length in seconds of the trace's window in which a single tenant sends the most requests
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub window_s: u64,
    /// Seconds to wait for the last job of the small tenants
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=7_200))]
    pub patience_s: u64,
    /// Seed of the random requests
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Goal: maximum ratio of the small tenants' p95 with the big tenants to their p95 without them.
const MAX_RATIO: f64 = 2.0;

/// Number of jobs that the drain runs concurrently: more than the pool admits during a call.
const DRAIN_CONCURRENCY: usize = 100;

/// Minimum number of requests for a meaningful p95.
const MIN_REQUESTS: usize = 5;

/// Measures both runs, and prints a row for each small tenant.
///
/// # Errors
/// Returns an error if the goal is missed or a measurement fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let load = match &args.trace {
        Some(trace) => load::from_trace(trace, args)?,
        None => load::synthetic(args),
    };
    let small = load.small_tenants();
    ensure!(!small.is_empty(), "the load has no small tenants");
    println!("{}\n", load.description());
    let alone = measure(args, &load.only(&small), &small).await?;
    let together = measure(args, &load, &small).await?;
    print_rows(&alone, &together, &small);
    let p95_ms = |times: &Times| figures::quantile(&times.for_tenants(&small), 0.95);
    let (alone_ms, together_ms) = (p95_ms(&alone), p95_ms(&together));
    let ratio = figures::ratio(together_ms as f64, alone_ms as f64);
    println!(
        "\n{} of {} requests of big tenants were answered before the last request of the small tenants",
        together.big_answered, together.big_requests
    );
    ensure!(
        ratio <= MAX_RATIO,
        "the small tenants' p95 is {ratio:.2} times their p95 without big tenants, not {MAX_RATIO}"
    );
    println!("small tenants' p95: {ratio:.2} times their p95 without big tenants, at most {MAX_RATIO}: ok");
    Ok(())
}

async fn measure(args: &Args, load: &Load, small: &[String]) -> anyhow::Result<Times> {
    let settings = load.tenants().iter().fold(Settings::default(), |settings, name| settings.tenant(name, ""));
    // The burst is minimal. Otherwise, small tenants without big tenants would be served from a
    // burst that the big tenants have used up in the other run.
    let limits = format!("{{ requests_per_minute = {} }}\nburst = {{ requests_s = 1 }}", args.pool_per_minute);
    let settings =
        settings.model(load::MODEL, 30_000, &[("us.amazon.nova-micro-v1:0", &limits)]).simulator(load.model_speed());
    let options = LocalOptions { drain_concurrency: DRAIN_CONCURRENCY, ..LocalOptions::default() };
    let deployment = Deployment::start(&settings, options).await?;
    load.play(&deployment, small, Duration::from_secs(args.patience_s)).await
}

fn print_rows(alone: &Times, together: &Times, small: &[String]) {
    println!(
        "{:<16}{:>10}{:>12}{:>12}{:>12}{:>12}{:>8}",
        "", "requests", "alone p50", "p95", "with p50", "p95", "ratio"
    );
    let row = |name: &str, alone: &[u64], together: &[u64]| {
        let figure = |times: &[u64], share| figures::quantile(times, share);
        print!("{name:<16}{:>10}", together.len());
        print!("{:>12}{:>12}", figure(alone, 0.5), figure(alone, 0.95));
        let ratio = figures::ratio(figure(together, 0.95) as f64, figure(alone, 0.95) as f64);
        println!("{:>12}{:>12}{ratio:>8.2}", figure(together, 0.5), figure(together, 0.95));
    };
    let none = Vec::new();
    let times_of = |times: &BTreeMap<String, Vec<u64>>, name: &String| times.get(name).unwrap_or(&none).clone();
    for name in small {
        let (alone, together) = (times_of(&alone.by_tenant, name), times_of(&together.by_tenant, name));
        if together.len() >= MIN_REQUESTS {
            row(name, &alone, &together);
        }
    }
    row("all small, ms", &alone.for_tenants(small), &together.for_tenants(small));
}
