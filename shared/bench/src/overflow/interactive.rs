//! `spillway-bench overflow interactive`: what a full queue costs those who wait for their answers.
//!
//! One pool with a limit, a patient tenant whose jobs may take their class's share of it, and another that calls
//! synchronously. The queue is filled and emptied in turn, so that a noisy machine disturbs both phases alike.

use std::time::{Duration, Instant};

use anyhow::ensure;
use fastrand::Rng;
use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;

use super::{
    client::Sent,
    deployment::{Deployment, Start},
    figures,
    request::Request,
    settings::Settings,
};

/// How much load.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many jobs fill the queue
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub jobs: u64,
    /// How often both phases are measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// How long a phase lasts, in seconds
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub phase_s: u64,
    /// How many requests per minute the pool lets through
    #[arg(long, default_value_t = 2_400, value_parser = clap::value_parser!(u64).range(60..=1_000_000))]
    pub pool_per_minute: u64,
    /// Which share of them is called synchronously, in percent
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=90))]
    pub share_percent: u64,
    /// Chooses the requests and their times
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The goal: how much more a synchronous call may take under a full queue.
const MOST_MORE: f64 = 0.10;

/// As many refusals as these, of all calls, are chance.
const CHANCE: f64 = 0.01;

const MODEL: &str = "shared";
const WAITS: &str = "waits";
const PATIENT: &str = "patient";

/// How many requests fill or empty the queue at once.
const AT_ONCE: usize = 16;

/// One phase.
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
/// The goal is missed, or something cannot be measured.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let deployment = Deployment::start(&settings(args), Start::default()).await?;
    let mut rng = Rng::with_seed(args.seed);
    println!("{:<8}{:>8}{:>8}{:>12}{:>12}{:>10}", "queue", "jobs", "calls", "p50, ms", "p95, ms", "refused");
    // Connections and caches are warm before anything counts.
    measure(&deployment, args, &mut rng, Duration::from_secs(2)).await?;
    let (mut empty, mut full) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let lasting = Duration::from_secs(args.phase_s);
        let phase = measure(&deployment, args, &mut rng, lasting).await?;
        print("empty", 0, &phase);
        empty.push(phase);
        fill(&deployment, args, &mut rng).await;
        let queued = deployment.client.list(PATIENT, "queued").await?.len();
        let phase = measure(&deployment, args, &mut rng, lasting).await?;
        print("full", queued, &phase);
        full.push(phase);
        let left = clear(&deployment).await?;
        ensure!(left > 0, "the queue was empty before its phase was over: fill it with more --jobs");
    }
    judge(&empty, &full)
}

fn settings(args: &Args) -> Settings {
    let limits = format!("{{ requests_per_minute = {} }}", args.pool_per_minute);
    Settings::default()
        .tenant(WAITS, "class = \"interactive\"")
        .tenant(PATIENT, "class = \"batch\"")
        .model(MODEL, 30_000, &[("us.amazon.nova-micro-v1:0", &limits)])
        .simulator("time_to_first_token_ms = 100\ntokens_per_second = 200")
}

fn request(rng: &mut Rng, whose: &str) -> Request {
    Request::mixed(rng.u64(..), &[MODEL], format!("A request of {whose}, {:08x}.", rng.u32(..)), 20)
}

/// Calls at random times, independent of the answers, for `lasting`.
async fn measure(deployment: &Deployment, args: &Args, rng: &mut Rng, lasting: Duration) -> anyhow::Result<Phase> {
    let per_s = args.pool_per_minute as f64 * args.share_percent as f64 / 6_000.0;
    let began = Instant::now();
    let mut calls = JoinSet::new();
    while began.elapsed() < lasting {
        let (client, request) = (deployment.client.clone(), request(rng, WAITS));
        calls.spawn(async move {
            let sent = Instant::now();
            (client.send(WAITS, &request, false).await, sent.elapsed())
        });
        // Exponential gaps make a Poisson process.
        tokio::time::sleep(Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / per_s)).await;
    }
    let (mut times_ms, mut refused) = (Vec::new(), 0);
    while let Some(call) = calls.join_next().await {
        match call? {
            (Sent::Answered(_), took) => times_ms.push(u64::try_from(took.as_millis())?),
            (Sent::Refused(429), _) => refused += 1,
            (sent, _) => anyhow::bail!("a synchronous call came to {sent:?}"),
        }
    }
    let calls = times_ms.len() + refused;
    let p = |share| figures::quantile(&times_ms, share);
    Ok(Phase { calls, p50_ms: p(0.5), p95_ms: p(0.95), refused: figures::ratio(refused as f64, calls as f64) })
}

/// Submits until so many are jobs.
async fn fill(deployment: &Deployment, args: &Args, rng: &mut Rng) {
    let mut accepted = 0;
    // What is answered at once fills the share of the pool; a bound all the same.
    for _ in 0..20 {
        let missing = args.jobs.saturating_sub(accepted);
        let requests: Vec<_> = (0..missing).map(|_| request(rng, PATIENT)).collect();
        let sent = stream::iter(&requests).map(|request| deployment.client.send(PATIENT, request, true));
        let jobs = sent.buffer_unordered(AT_ONCE).filter(|sent| std::future::ready(matches!(sent, Sent::Accepted(_))));
        accepted += jobs.count().await as u64;
    }
}

/// Takes back what is left; gives how many those were.
async fn clear(deployment: &Deployment) -> anyhow::Result<usize> {
    let queued = deployment.client.list(PATIENT, "queued").await?;
    let cancelled = stream::iter(&queued).map(|id| deployment.client.cancel(PATIENT, id)).buffer_unordered(AT_ONCE);
    let cancelled = cancelled.filter(|cancelled| std::future::ready(*cancelled)).count().await;
    deployment.client.settle(&[PATIENT.to_owned()], Duration::from_secs(120)).await?;
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
    let more = figures::ratio(p95(full), p95(empty)) - 1.0;
    println!("\nmedian p95 {:.0} ms empty, {:.0} ms full: {:+.1} %", p95(empty), p95(full), more * 100.0);
    println!("median share refused {:.2} % empty, {:.2} % full", refused(empty) * 100.0, refused(full) * 100.0);
    ensure!(more <= MOST_MORE, "synchronous calls take {:.1} % longer under a full queue", more * 100.0);
    ensure!(
        refused(full) <= (refused(empty) * (1.0 + MOST_MORE)).max(refused(empty) + CHANCE),
        "more synchronous calls are refused under a full queue"
    );
    println!("a full queue costs synchronous calls at most {:.0} %: ok", MOST_MORE * 100.0);
    Ok(())
}
