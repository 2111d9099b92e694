//! `spillway-bench overflow chaos`: runs jobs under many kinds of faults, and accounts for every
//! job.
//!
//! `spillway local` hosts the stand-ins and is not killed: the log of its simulator is the
//! reference for all comparisons. Further brokers with skewed clocks drain the same queue and are
//! killed at random.

mod evidence;
mod faults;
mod kills;
mod reconciliation;
mod report;
mod submission;
mod subset_sum;
mod tokens;

use std::time::{Duration, Instant};

use anyhow::ensure;
use faults::Outages;
use kills::Killer;

use super::{
    deployment::{Deployment, LocalOptions},
    settings::Settings,
};

/// Arguments of `spillway-bench overflow chaos`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Number of requests that must become jobs
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub jobs: u64,
    /// Number of tenants
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=500))]
    pub tenants: u64,
    /// Seconds in which the tenants' limits admit all jobs
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    pub seconds: u64,
    /// Number of brokers that are killed and restarted
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=8))]
    pub brokers: u64,
    /// Mean time between two kills in milliseconds
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(200..=600_000))]
    pub kill_every_ms: u64,
    /// Seconds to wait for the last job
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u64).range(10..=7_200))]
    pub patience_s: u64,
    /// Seed of the random faults
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print all unexplained findings instead of the first 20
    #[arg(long)]
    pub verbose: bool,
}

/// Models: a model with Claude's native format, a model with Converse, and a model with two pools.
const MODELS: [&str; 3] = ["claude", "nova", "laddered"];

/// Bedrock ids of their pools.
const POOLS: [&str; 4] = [
    "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "us.amazon.nova-micro-v1:0",
    "us.amazon.nova-lite-v1:0",
    "amazon.nova-lite-v1:0",
];

/// A model whose only pool always fails, and the Bedrock id of the pool.
const GONE: &str = "gone";
const GONE_POOL: &str = "us.amazon.nova-pro-v1:0";

/// One of this many requests asks for the model whose pool always fails.
const ONE_OF_GONE: u64 = 20;

/// Time in seconds after which a job whose pools keep failing ends.
const MAX_FAILING_S: u64 = 60;

/// Timeout of the models in milliseconds. It is short so that the leases of a killed drain's jobs
/// expire soon.
const TIMEOUT_MS: u64 = 10_000;

/// Runs the jobs and prints the result.
///
/// # Errors
/// Returns an error if a job or a token is lost, duplicated or unexplained, or if the jobs do not
/// end in time.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    let tenants: Vec<String> = (0..args.tenants).map(|number| format!("t{number:03}")).collect();
    let deployment =
        Deployment::start(&settings(args, &tenants), LocalOptions { keeps_state: true, ..LocalOptions::default() })
            .await?;
    deployment.advance_stand_ins(kills::STORE_AHEAD_MS).await?;
    faults::inject(&deployment, args).await?;
    let outages = Outages::begin(&deployment, args.seed);
    let killer = Killer::start(&deployment, args)?;
    let submitted = submission::submit(&deployment, args, &tenants).await?;
    let submitted_s = began.elapsed().as_secs_f64();
    // Unfinished jobs are reported together with all other findings.
    let late = deployment.client.settle(&tenants, Duration::from_secs(args.patience_s)).await;
    let ended_s = began.elapsed().as_secs_f64();
    let killed = killer.stop()?;
    drop(outages);
    deployment.clear_faults().await?;
    let mut evidence = evidence::gather(&deployment, &tenants, submitted, killed.killed_at_ms.clone()).await?;
    evidence.errors.extend(late.err().map(|late| late.to_string()));
    let reconciliation = reconciliation::reconcile(&evidence);
    let failures = report::print(args, &evidence, &reconciliation, (submitted_s, ended_s));
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    println!("\nevery accepted job ended once, and every token is accounted for: ok");
    Ok(())
}

/// Returns settings with tenants whose limits admit their jobs in the given time. All have a limit
/// of requests per minute, and every third has a limit of requests in flight.
fn settings(args: &Args, tenants: &[String]) -> Settings {
    let each = args.jobs.div_ceil(args.tenants);
    let per_minute = (each * 60).div_ceil(args.seconds).max(2);
    // A full burst would answer most requests before any overflows.
    let fields = |number: usize| {
        let in_flight = if number.is_multiple_of(3) { "limits.in_flight = 3\n" } else { "" };
        format!(
            "job_max_failing_s = {MAX_FAILING_S}\n{in_flight}limits.requests_per_minute = {per_minute}\n\
             burst.requests_s = 5\n"
        )
    };
    let settings = tenants
        .iter()
        .enumerate()
        .fold(Settings::default(), |settings, (number, name)| settings.tenant(name, &fields(number)));
    let wide = "{ tokens_per_minute = 100_000_000 }";
    let narrow = format!("{{ requests_per_minute = {} }}", (per_minute * args.tenants / 8).max(10));
    let [claude, nova, first, second] = POOLS;
    settings
        .model("claude", TIMEOUT_MS, &[(claude, wide)])
        .model("nova", TIMEOUT_MS, &[(nova, wide)])
        .model("laddered", TIMEOUT_MS, &[(first, &narrow), (second, wide)])
        .model(GONE, TIMEOUT_MS, &[(GONE_POOL, wide)])
        .simulator("time_to_first_token_ms = 20\ntokens_per_second = 500\ncall_log = true")
        .queue_faults(&format!(
            "duplicate_permille = 20\nundeleted_permille = 10\nout_of_order_permille = 50\nseed = {}",
            args.seed
        ))
}
