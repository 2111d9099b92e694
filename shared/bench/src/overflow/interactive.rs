//! `spillway-bench overflow interactive`: measures synchronous calls while the queue is full, and
//! while it is empty.
//!
//! A pool has a limit. The jobs of a batch tenant may take the share of their class, and another
//! tenant calls synchronously. The phases with an empty and a full queue alternate, so that a noisy
//! machine affects both equally.

use std::time::{Duration, Instant};

use anyhow::ensure;
use fastrand::Rng;
use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;

use super::{
    client::Sent,
    deployment::{Deployment, LocalOptions},
    figures,
    request::Request,
    settings::Settings,
};

/// Arguments of `spillway-bench overflow interactive`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Number of jobs that fill the queue
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub jobs: u64,
    /// Number of rounds; each has both phases
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// Length of a phase in seconds
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub phase_s: u64,
    /// Requests per minute of the pool
    #[arg(long, default_value_t = 2_400, value_parser = clap::value_parser!(u64).range(60..=1_000_000))]
    pub pool_per_minute: u64,
    /// Synchronous calls as a percentage of the pool's limit
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=90))]
    pub share_percent: u64,
    /// Seed of the random requests and times
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Goal: maximum increase of a synchronous call's p95 while the queue is full.
const MAX_INCREASE: f64 = 0.10;

/// Difference in the share of refusals that counts as chance.
const CHANCE_SHARE: f64 = 0.01;

const MODEL: &str = "shared";
const SYNC_TENANT: &str = "sync";
const BATCH_TENANT: &str = "batch";

/// Number of concurrent requests that fill or empty the queue.
const CONCURRENCY: usize = 16;

/// Figures of a phase.
#[derive(Debug, Clone, Copy)]
struct Phase {
    calls: usize,
    p50_ms: u64,
    p95_ms: u64,
    refused: f64,
}

/// Measures all rounds and prints them.
///
/// # Errors
/// Returns an error if the goal is missed or a measurement fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let deployment = Deployment::start(&settings(args), LocalOptions::default()).await?;
    let mut rng = Rng::with_seed(args.seed);
    println!("{:<8}{:>8}{:>8}{:>12}{:>12}{:>10}", "queue", "jobs", "calls", "p50, ms", "p95, ms", "refused");
    // A warm-up opens connections and fills caches.
    measure(&deployment, args, &mut rng, Duration::from_secs(2)).await?;
    let (mut empty, mut full) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let duration = Duration::from_secs(args.phase_s);
        let phase = measure(&deployment, args, &mut rng, duration).await?;
        print("empty", 0, &phase);
        empty.push(phase);
        fill(&deployment, args, &mut rng).await;
        let queued = deployment.client.list(BATCH_TENANT, "queued").await?.len();
        let phase = measure(&deployment, args, &mut rng, duration).await?;
        print("full", queued, &phase);
        full.push(phase);
        let left = clear(&deployment).await?;
        ensure!(left > 0, "the queue was empty before the end of its phase; raise --jobs");
    }
    judge(&empty, &full)
}

fn settings(args: &Args) -> Settings {
    let limits = format!("{{ requests_per_minute = {} }}", args.pool_per_minute);
    Settings::default()
        .tenant(SYNC_TENANT, "class = \"interactive\"")
        .tenant(BATCH_TENANT, "class = \"batch\"")
        .model(MODEL, 30_000, &[("us.amazon.nova-micro-v1:0", &limits)])
        .simulator("time_to_first_token_ms = 100\ntokens_per_second = 200")
}

fn request(rng: &mut Rng, tenant: &str) -> Request {
    Request::mixed(rng.u64(..), &[MODEL], format!("A request of {tenant}, {:08x}.", rng.u32(..)), 20)
}

/// Sends calls at random times for `duration`, whether or not earlier calls have ended.
async fn measure(deployment: &Deployment, args: &Args, rng: &mut Rng, duration: Duration) -> anyhow::Result<Phase> {
    let per_s = args.pool_per_minute as f64 * args.share_percent as f64 / 6_000.0;
    let began = Instant::now();
    let mut calls = JoinSet::new();
    while began.elapsed() < duration {
        let (client, request) = (deployment.client.clone(), request(rng, SYNC_TENANT));
        calls.spawn(async move {
            let sent = Instant::now();
            (client.send(SYNC_TENANT, &request, false).await, sent.elapsed())
        });
        // Exponential gaps make a Poisson process.
        tokio::time::sleep(Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / per_s)).await;
    }
    let (mut times_ms, mut refused) = (Vec::new(), 0);
    while let Some(call) = calls.join_next().await {
        match call? {
            (Sent::Answered(_), took) => times_ms.push(u64::try_from(took.as_millis())?),
            (Sent::Refused(429), _) => refused += 1,
            (sent, _) => anyhow::bail!("a synchronous call ended with {sent:?}"),
        }
    }
    let calls = times_ms.len() + refused;
    let quantile = |share| figures::quantile(&times_ms, share);
    Ok(Phase {
        calls,
        p50_ms: quantile(0.5),
        p95_ms: quantile(0.95),
        refused: figures::ratio(refused as f64, calls as f64),
    })
}

/// Submits requests until the given number are jobs.
async fn fill(deployment: &Deployment, args: &Args, rng: &mut Rng) {
    let mut accepted = 0;
    // Direct responses use up the pool's share, so a few rounds suffice. The bound rules out an
    // endless loop.
    for _ in 0..20 {
        let missing = args.jobs.saturating_sub(accepted);
        let requests: Vec<_> = (0..missing).map(|_| request(rng, BATCH_TENANT)).collect();
        let sent = stream::iter(&requests).map(|request| deployment.client.send(BATCH_TENANT, request, true));
        let jobs =
            sent.buffer_unordered(CONCURRENCY).filter(|sent| std::future::ready(matches!(sent, Sent::Accepted(_))));
        accepted += jobs.count().await as u64;
    }
}

/// Cancels the remaining jobs. Returns their number.
async fn clear(deployment: &Deployment) -> anyhow::Result<usize> {
    let queued = deployment.client.list(BATCH_TENANT, "queued").await?;
    let cancelled =
        stream::iter(&queued).map(|id| deployment.client.cancel(BATCH_TENANT, id)).buffer_unordered(CONCURRENCY);
    let cancelled = cancelled.filter(|cancelled| std::future::ready(*cancelled)).count().await;
    deployment.client.settle(&[BATCH_TENANT.to_owned()], Duration::from_secs(120)).await?;
    Ok(cancelled)
}

fn print(queue: &str, jobs: usize, phase: &Phase) {
    let Phase { calls, p50_ms, p95_ms, refused } = phase;
    println!("{queue:<8}{jobs:>8}{calls:>8}{p50_ms:>12}{p95_ms:>12}{:>9.2}%", refused * 100.0);
}

fn judge(empty: &[Phase], full: &[Phase]) -> anyhow::Result<()> {
    let median =
        |phases: &[Phase], figure: fn(&Phase) -> f64| figures::median(&phases.iter().map(figure).collect::<Vec<_>>());
    let p95 = |phases: &[Phase]| median(phases, |phase| phase.p95_ms as f64);
    let refused = |phases: &[Phase]| median(phases, |phase| phase.refused);
    let increase = figures::ratio(p95(full), p95(empty)) - 1.0;
    println!("\nmedian p95 {:.0} ms empty, {:.0} ms full: {:+.1} %", p95(empty), p95(full), increase * 100.0);
    println!("median share refused {:.2} % empty, {:.2} % full", refused(empty) * 100.0, refused(full) * 100.0);
    ensure!(
        increase <= MAX_INCREASE,
        "synchronous calls take {:.1} % longer while the queue is full",
        increase * 100.0
    );
    ensure!(
        refused(full) <= (refused(empty) * (1.0 + MAX_INCREASE)).max(refused(empty) + CHANCE_SHARE),
        "more synchronous calls are refused while the queue is full"
    );
    println!("a full queue costs synchronous calls at most {:.0} %: ok", MAX_INCREASE * 100.0);
    Ok(())
}
