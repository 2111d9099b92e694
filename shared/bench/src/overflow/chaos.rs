//! `spillway-bench overflow chaos`: jobs through everything that can go wrong, and an account of each of them.
//!
//! `spillway local` keeps the stand-ins and is not killed: its simulator's memory is the account that everything is
//! compared with. Further brokers drain the same queue, with clocks that are off, and die at random.

mod books;
mod disturbances;
mod evidence;
mod kills;
mod report;
mod residue;
mod submission;

use std::time::{Duration, Instant};

use anyhow::ensure;
use kills::Killer;

use super::{
    deployment::{Deployment, Start},
    settings::Settings,
};

/// How much chaos.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many requests have to become jobs
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub jobs: u64,
    /// How many tenants they belong to
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=500))]
    pub tenants: u64,
    /// How long the tenants' limits take to let all jobs through, in seconds
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    pub seconds: u64,
    /// How many brokers are killed and started again
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=8))]
    pub brokers: u64,
    /// The mean time between two kills, in milliseconds
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(200..=600_000))]
    pub kill_every_ms: u64,
    /// How long to wait for the last job, in seconds
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u64).range(10..=7_200))]
    pub patience_s: u64,
    /// Chooses when what goes wrong
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print every call that nothing explains, not only the first ones
    #[arg(long)]
    pub verbose: bool,
}

/// The models: Claude's own format, Converse, and one with a second rung.
const MODELS: [&str; 3] = ["claude", "nova", "laddered"];

/// A call that takes longer than this counts as lost, in milliseconds; so a killed drain's jobs are free again soon.
const TIMEOUT_MS: u64 = 10_000;

/// Runs the chaos and prints what became of everything.
///
/// # Errors
/// Something is lost, doubled or unexplained, or the jobs do not end in time.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    let tenants: Vec<String> = (0..args.tenants).map(|number| format!("t{number:03}")).collect();
    let deployment =
        Deployment::start(&settings(args, &tenants), Start { keeps_state: true, ..Start::default() }).await?;
    deployment.advance_stand_ins(kills::STORE_AHEAD_MS).await?;
    disturbances::begin(&deployment, args).await?;
    let killer = Killer::start(&deployment, args)?;
    let submitted = submission::submit(&deployment, args, &tenants).await?;
    let submitted_s = began.elapsed().as_secs_f64();
    // What does not end is told with everything else.
    let late = deployment.client.settle(&tenants, Duration::from_secs(args.patience_s)).await;
    let ended_s = began.elapsed().as_secs_f64();
    let killed = killer.stop()?;
    deployment.end_disturbances().await?;
    let mut evidence = evidence::gather(&deployment, &tenants, submitted, killed.lives.clone()).await?;
    evidence.wrong.extend(late.err().map(|late| late.to_string()));
    let books = books::close(&evidence);
    let failures = report::print(args, &evidence, &books, (submitted_s, ended_s));
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    println!("\neverything accepted ended once, and every token is accounted for: ok");
    Ok(())
}

/// Tenants whose limits let their jobs through in the time given: by requests per minute all, by requests in flight every
/// third as well.
fn settings(args: &Args, tenants: &[String]) -> Settings {
    let each = args.jobs.div_ceil(args.tenants);
    let per_minute = (each * 60).div_ceil(args.seconds).max(2);
    // A minute's worth at once would answer most requests before anything overflows.
    let fields = |number: usize| {
        let in_flight = if number.is_multiple_of(3) { "limits.in_flight = 3\n" } else { "" };
        format!("{in_flight}limits.requests_per_minute = {per_minute}\nburst.requests_s = 5\n")
    };
    let settings = tenants
        .iter()
        .enumerate()
        .fold(Settings::default(), |settings, (number, name)| settings.tenant(name, &fields(number)));
    let wide = "{ tokens_per_minute = 100_000_000 }";
    let narrow = format!("{{ requests_per_minute = {} }}", (per_minute * args.tenants / 8).max(10));
    settings
        .model("claude", TIMEOUT_MS, &[("anthropic.claude-sonnet-4-5-20250929-v1:0", wide)])
        .model("nova", TIMEOUT_MS, &[("us.amazon.nova-micro-v1:0", wide)])
        .model("laddered", TIMEOUT_MS, &[("us.amazon.nova-lite-v1:0", &narrow), ("amazon.nova-lite-v1:0", wide)])
        .simulator("time_to_first_token_ms = 20\ntokens_per_second = 500\ncall_log = true")
        .queue_faults(&format!(
            "duplicate_permille = 20\nundeleted_permille = 10\nout_of_order_permille = 50\nseed = {}",
            args.seed
        ))
}
