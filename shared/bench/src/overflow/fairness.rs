//! `spillway-bench overflow fairness`: what a tenant that floods the queue costs those beside it.
//!
//! All share one pool that lets through so many requests per minute. The same load runs twice in deployments of their
//! own: with the big tenants and without them. A request's time is from its submission to its answer, which is stored if it
//! became a job.

mod load;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::ensure;
use load::{Load, Times};

use super::{
    deployment::{Deployment, Start},
    figures,
    settings::Settings,
};

/// What load.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many requests the big tenant submits
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub big: u64,
    /// How many small tenants there are
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(u64).range(1..=500))]
    pub tenants: u64,
    /// How many requests each of them submits, a second later
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub small: u64,
    /// How many requests per minute the pool lets through
    #[arg(long, default_value_t = 1_800, value_parser = clap::value_parser!(u64).range(12..=1_000_000))]
    pub pool_per_minute: u64,
    /// Take tenants, times and lengths of answers from this trace instead (CSV, plain or gzipped)
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Of the trace, the so many seconds in which one tenant sends the most
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub window_s: u64,
    /// How long to wait for the small tenants' last job, in seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=7_200))]
    pub patience_s: u64,
    /// Chooses the requests
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The goal: how many times as long as alone 95 of 100 requests of small tenants may take.
const MOST_TIMES: f64 = 2.0;

/// How many jobs the drain runs at once: more than the pool lets through while one is answered.
const JOBS_AT_ONCE: usize = 100;

/// Fewer requests than these have no p95 worth a row.
const LEAST_REQUESTS: usize = 5;

/// Measures both, and prints a row for each small tenant.
///
/// # Errors
/// The goal is missed, or something cannot be measured.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let load = match &args.trace {
        Some(trace) => load::of_trace(trace, args)?,
        None => load::synthetic(args),
    };
    let small = load.small_tenants();
    ensure!(!small.is_empty(), "the load has no small tenants");
    println!("{}\n", load.described());
    let alone = measure(args, &load.only(&small), &small).await?;
    let together = measure(args, &load, &small).await?;
    print_rows(&alone, &together, &small);
    let p95_ms = |times: &Times| figures::quantile(&times.of(&small), 0.95);
    let (alone_ms, together_ms) = (p95_ms(&alone), p95_ms(&together));
    let times = figures::ratio(together_ms as f64, alone_ms as f64);
    println!(
        "\n{} of {} requests of big tenants were answered when the last small tenant had its last answer",
        together.others_ended, together.others
    );
    ensure!(
        times <= MOST_TIMES,
        "95 of 100 requests of small tenants take {times:.2} times as long as alone, not {MOST_TIMES}"
    );
    println!("small tenants' p95 beside the big ones: {times:.2} times that alone, at most {MOST_TIMES}: ok");
    Ok(())
}

async fn measure(args: &Args, load: &Load, small: &[String]) -> anyhow::Result<Times> {
    let settings = load.tenants().iter().fold(Settings::default(), |settings, name| settings.tenant(name, ""));
    // Next to no burst: else the small ones alone are answered from what the big one has used up when they come.
    let limits = format!("{{ requests_per_minute = {} }}\nburst = {{ requests_s = 1 }}", args.pool_per_minute);
    let settings =
        settings.model(load::MODEL, 30_000, &[("us.amazon.nova-micro-v1:0", &limits)]).simulator(load.model_speed());
    let how = Start { jobs_at_once: JOBS_AT_ONCE, ..Start::default() };
    let deployment = Deployment::start(&settings, how).await?;
    load.play(&deployment, small, Duration::from_secs(args.patience_s)).await
}

fn print_rows(alone: &Times, together: &Times, small: &[String]) {
    println!(
        "{:<16}{:>10}{:>12}{:>12}{:>12}{:>12}{:>8}",
        "", "requests", "alone p50", "p95", "beside p50", "p95", "times"
    );
    let row = |name: &str, alone: &[u64], together: &[u64]| {
        let figure = |times: &[u64], share| figures::quantile(times, share);
        print!("{name:<16}{:>10}", together.len());
        print!("{:>12}{:>12}", figure(alone, 0.5), figure(alone, 0.95));
        let times = figures::ratio(figure(together, 0.95) as f64, figure(alone, 0.95) as f64);
        println!("{:>12}{:>12}{times:>8.2}", figure(together, 0.5), figure(together, 0.95));
    };
    let none = Vec::new();
    let of = |times: &BTreeMap<String, Vec<u64>>, name: &String| times.get(name).unwrap_or(&none).clone();
    for name in small {
        let (alone, together) = (of(&alone.by_tenant, name), of(&together.by_tenant, name));
        if together.len() >= LEAST_REQUESTS {
            row(name, &alone, &together);
        }
    }
    row("all small, ms", &alone.of(small), &together.of(small));
}
