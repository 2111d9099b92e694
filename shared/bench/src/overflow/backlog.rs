//! `spillway-bench overflow backlog`: what it costs to run the backlog of a tenant that has reached
//! its own limit.
//!
//! A tenant submits jobs all at once. Its limit lets them run over several minutes. A deferral is
//! an attempt that found no room. The figures include the submissions. With `--virtual-time` the
//! jobs are only simulated.

mod simulation;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, stream};
use spillway::{
    dialect::Dialect,
    job::{Job, JobStatus},
};

use super::{
    client::Sent,
    deployment::{Deployment, LocalOptions},
    figures,
    request::Request,
    settings::Settings,
};

/// Arguments of `spillway-bench overflow backlog`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Number of jobs
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub jobs: u64,
    /// Requests per minute of the tenant
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub per_minute: u64,
    /// Size of a burst of the tenant, in seconds of its even rate
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub burst_s: u64,
    /// Synchronous requests per minute of the same tenant, only in virtual time
    #[arg(long, default_value_t = 0, requires = "virtual_time", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub sync_per_minute: u64,
    /// Simulate the backlog in virtual time, with the product's decisions on one ledger item
    #[arg(long)]
    pub virtual_time: bool,
    /// Seed of the simulation
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds to wait for the last job, beyond the time that the limit takes
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=7_200))]
    pub patience_s: u64,
}

/// Goal: maximum deferrals per job.
const MAX_DEFERRALS: f64 = 1.5;

const TENANT: &str = "t";
const MODEL: &str = "m";

/// Number of concurrent submissions.
const CONNECTIONS: usize = 8;

/// Requests that change rows of a table.
const WRITES: [&str; 4] =
    ["DynamoDB PutItem", "DynamoDB UpdateItem", "DynamoDB DeleteItem", "DynamoDB TransactWriteItems"];

/// Submits the jobs, waits for their ends, and prints the figures.
///
/// # Errors
/// Returns an error if the goal is missed or a measurement fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let deferrals = if args.virtual_time { simulate(args)? } else { measure(args).await? };
    ensure!(deferrals <= MAX_DEFERRALS, "a job was deferred {deferrals:.2} times, not {MAX_DEFERRALS}");
    println!("\na job was deferred {deferrals:.2} times, at most {MAX_DEFERRALS}: ok");
    Ok(())
}

/// Simulates the backlog. Returns the deferrals per job.
fn simulate(args: &Args) -> anyhow::Result<f64> {
    let totals = simulation::run(args)?;
    let per_job = |count: u64| figures::ratio(count as f64, args.jobs as f64);
    println!("{} jobs of a tenant with {} requests per minute, in virtual time", args.jobs, args.per_minute);
    println!("{:<40}{:>10}", "last job ended after, s", totals.elapsed.as_ms() / 1_000);
    println!("{:<40}{:>10.2}", "deferrals per job", per_job(totals.deferrals));
    println!("{:<40}{:>10}", "most deferrals of a job", totals.most_deferrals);
    println!("{:<40}{:>10.2}", "turns per job", per_job(totals.turns));
    println!("{:<40}{:>10.2}", "messages per job", per_job(totals.messages));
    println!("{:<40}{:>10.2}", "writes of jobs and backlogs per job", per_job(totals.writes));
    Ok(per_job(totals.deferrals))
}

/// Runs the backlog in a deployment. Returns the deferrals per job.
async fn measure(args: &Args) -> anyhow::Result<f64> {
    let fields = format!("limits.requests_per_minute = {}\nburst.requests_s = {}", args.per_minute, args.burst_s);
    let settings = Settings::default()
        .tenant(TENANT, &fields)
        .model(MODEL, 30_000, &[("us.amazon.nova-micro-v1:0", "{ requests_per_minute = 1_000_000 }")])
        .simulator("time_to_first_token_ms = 20\ntokens_per_second = 1_000");
    let deployment = Deployment::start(&settings, LocalOptions::default()).await?;
    let before = deployment.operations().await?;
    let began = Instant::now();
    let ids = submit(&deployment, args.jobs).await?;
    let limit_time = Duration::from_secs(60 * (args.jobs / args.per_minute + 1));
    let jobs = ended(&deployment, &ids, began + limit_time + Duration::from_secs(args.patience_s)).await?;
    let elapsed = began.elapsed();
    let after = deployment.operations().await?;
    Ok(print_rows(args, &jobs, &since(&before, after), elapsed))
}

/// Submits requests until `count` of them have become jobs. Returns the ids of the jobs.
async fn submit(deployment: &Deployment, count: u64) -> anyhow::Result<Vec<String>> {
    let send = |number: u64| async move {
        let request = Request {
            dialect: Dialect::OpenAi,
            model: MODEL.to_owned(),
            is_stream: false,
            output_tokens: 10,
            text: format!("Job {number}."),
        };
        deployment.client.send(TENANT, &request, true).await
    };
    let mut sent = stream::iter(0..).map(send).buffer_unordered(CONNECTIONS);
    let mut ids = Vec::new();
    while (ids.len() as u64) < count {
        match sent.next().await.context("the numbers never end")? {
            Sent::Accepted(id) => ids.push(id),
            Sent::Answered(_) => {}
            failed => anyhow::bail!("a request was not accepted: {failed:?}"),
        }
    }
    Ok(ids)
}

/// Waits until all jobs have ended, and returns them.
async fn ended(deployment: &Deployment, ids: &[String], give_up: Instant) -> anyhow::Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for id in ids {
        let job = loop {
            let job = deployment.app.jobs.get(id).await?.context("a job is missing")?;
            if job.status.is_final() {
                break job;
            }
            ensure!(Instant::now() < give_up, "job {id} has not ended");
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        ensure!(job.status == JobStatus::Succeeded, "job {id} is {}", job.status.name());
        jobs.push(job);
    }
    Ok(jobs)
}

/// Returns the number of requests by operation since `before`.
fn since(before: &BTreeMap<String, u64>, after: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let since = |(name, count): (String, u64)| (name.clone(), count - before.get(&name).copied().unwrap_or(0));
    after.into_iter().map(since).filter(|(_, count)| *count > 0).collect()
}

/// Prints the figures. Returns the deferrals per job.
fn print_rows(args: &Args, jobs: &[Job], operations: &BTreeMap<String, u64>, elapsed: Duration) -> f64 {
    let per_job = |count: u64| figures::ratio(count as f64, jobs.len() as f64);
    let deferrals: Vec<u64> = jobs.iter().map(|job| job.deferrals.into()).collect();
    let operation = |name: &str| operations.get(name).copied().unwrap_or(0);
    println!("{} jobs of a tenant with {} requests per minute", jobs.len(), args.per_minute);
    println!("{:<40}{:>10}", "last job ended after, s", elapsed.as_secs());
    println!("{:<40}{:>10.2}", "deferrals per job", per_job(deferrals.iter().sum()));
    println!("{:<40}{:>10}", "most deferrals of a job", deferrals.iter().max().copied().unwrap_or(0));
    // The drain deletes each message once.
    println!("{:<40}{:>10.2}", "messages per job", per_job(operation("SQS DeleteMessage")));
    println!("{:<40}{:>10.2}", "writes to DynamoDB per job", per_job(WRITES.iter().map(|name| operation(name)).sum()));
    for (name, count) in operations {
        println!("{name:<40}{:>10.2}", per_job(*count));
    }
    per_job(deferrals.iter().sum())
}
