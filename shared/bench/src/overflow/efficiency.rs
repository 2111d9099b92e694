//! `spillway-bench overflow efficiency`: Lambda's milliseconds and the requests to AWS for each finished job.
//!
//! Messages are received from the queue in batches, as an event source mapping does, and handed to `drain::handle`, which
//! is what the Lambda does; its time is what Lambda bills. The stand-ins answer within a fraction of a millisecond, so the
//! milliseconds are the model's and our own.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use fastrand::Rng;
use serde_json::json;
use spillway::{
    app::App,
    dialect::Dialect,
    drain::{self, DrainEvent},
    job::{Call, NewJob, Priority, Status},
    queue::{Message, Queue},
    tenant::Class,
};

use super::{
    deployment::Deployment,
    figures,
    request::{Request, Speech},
    settings::Settings,
};

/// How much to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many jobs are done for each size of batch
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub jobs: u64,
    /// The largest batch of messages for one invocation
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    pub at_once: u64,
    /// Chooses the requests
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

const TENANT: &str = "t";
const MODEL: &str = "m";

/// The goals: how many times cheaper a job in a full batch is, and how many requests to AWS a job may cost at most.
const LEAST_GAIN: f64 = 5.0;
const MOST_REQUESTS: f64 = 20.0;

/// The time of an invocation (the template's timeout of the drain), in milliseconds.
const INVOCATION_MS: u64 = 900_000;

/// The longest that one receive waits, in seconds.
const WAIT_S: u32 = 1;

/// How long a message is hidden; longer than all of it takes.
const HIDDEN_S: u32 = 900;

/// What some jobs took.
#[derive(Debug, Default)]
struct Spent {
    jobs: u64,
    invocations: u64,
    billed: Duration,
    requests: BTreeMap<String, u64>,
}

/// Measures both sizes of batch and prints what a job takes.
///
/// # Errors
/// A goal is missed, or something cannot be measured.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let limits = "{ requests_per_minute = 1_000_000, tokens_per_minute = 1_000_000_000 }";
    let settings = Settings::default()
        .tenant(TENANT, "limits.requests_per_minute = 1_000_000\nlimits.tokens_per_minute = 1_000_000_000")
        .model(MODEL, 30_000, &[("us.amazon.nova-micro-v1:0", limits)])
        .simulator("time_to_first_token_ms = 200\ntokens_per_second = 100");
    let deployment = Deployment::without_broker(&settings).await?;
    let mut rng = Rng::with_seed(args.seed);
    // Connections and the registry's cache are warm before anything counts.
    measure(&deployment, 2, 1, &mut rng).await?;
    let one = measure(&deployment, args.jobs, 1, &mut rng).await?;
    let many = measure(&deployment, args.jobs, args.at_once, &mut rng).await?;
    print_rows(args, &one, &many);
    let gain = figures::ratio(one.ms_per_job(), many.ms_per_job());
    ensure!(gain >= LEAST_GAIN, "a job in a batch of {} is only {gain:.1} times cheaper", args.at_once);
    let most = one.requests_per_job().max(many.requests_per_job());
    ensure!(most <= MOST_REQUESTS, "a job costs {most:.2} requests to AWS");
    println!("\na job in a full batch takes {gain:.1} times less of Lambda's time, and at most {most:.2} requests: ok");
    Ok(())
}

impl Spent {
    fn per_job(&self, number: f64) -> f64 {
        figures::ratio(number, self.jobs as f64)
    }

    fn ms_per_job(&self) -> f64 {
        self.per_job(self.billed.as_secs_f64() * 1e3)
    }

    fn requests_per_job(&self) -> f64 {
        self.per_job(self.requests.values().sum::<u64>() as f64)
    }
}

fn print_rows(args: &Args, one: &Spent, many: &Spent) {
    println!("{:<40}{:>16}{:>16}", "for each finished job", "1 at once", format!("{} at once", args.at_once));
    let row = |name: &str, figure: &dyn Fn(&Spent) -> f64| {
        println!("{name:<40}{:>16.3}{:>16.3}", figure(one), figure(many));
    };
    row("Lambda, milliseconds", &Spent::ms_per_job);
    row("Lambda, invocations", &|spent| spent.per_job(spent.invocations as f64));
    let names: std::collections::BTreeSet<_> = one.requests.keys().chain(many.requests.keys()).collect();
    for name in names {
        row(name, &|spent| spent.per_job(spent.requests.get(name).copied().unwrap_or(0) as f64));
    }
    row("requests to AWS, together", &Spent::requests_per_job);
}

async fn measure(deployment: &Deployment, jobs: u64, at_once: u64, rng: &mut Rng) -> anyhow::Result<Spent> {
    let app = &deployment.app;
    let queue = app.queue.clone().context("there is no queue")?.hiding_for(HIDDEN_S);
    let mut ids = Vec::new();
    for _ in 0..jobs {
        ids.push(submit(app, &queue, rng).await?);
    }
    let before = deployment.operations().await?;
    let mut spent = Spent { jobs, ..Spent::default() };
    let mut done = 0;
    while done < jobs {
        let messages = receive(&queue, at_once).await?;
        ensure!(!messages.is_empty(), "the queue is empty after {done} of {jobs} jobs");
        done += invoke(app, &queue, messages, &mut spent).await?;
    }
    let after = deployment.operations().await?;
    let since = |(name, count): (String, u64)| (name.clone(), count - before.get(&name).copied().unwrap_or(0));
    spent.requests = after.into_iter().map(since).filter(|(_, count)| *count > 0).collect();
    for id in ids {
        let job = app.jobs.get(&id).await?.context("a job is gone")?;
        ensure!(job.status == Status::Succeeded, "job {id} is {}", job.status.name());
    }
    Ok(spent)
}

/// A job that is ready, and its message.
async fn submit(app: &App, queue: &Queue, rng: &mut Rng) -> anyhow::Result<String> {
    let request = Request {
        speech: Speech::OpenAi,
        model: MODEL.to_owned(),
        is_stream: rng.bool(),
        output_tokens: 20,
        text: format!("A job, {:08x}.", rng.u32(..)),
    };
    let now_ms = app.clock.now_ms();
    let call = Call {
        dialect: Dialect::OpenAi,
        method: "POST".to_owned(),
        path: request.path(),
        headers: Vec::new(),
        stream: request.is_stream,
    };
    let new = NewJob {
        id: None,
        tenant: TENANT.to_owned(),
        call,
        body: request.body().to_string().into(),
        created_ms: now_ms,
        ready_ms: now_ms,
        expires_ms: now_ms + 3_600_000,
        priority: Priority::default(),
        class: Class::Batch,
        member: None,
    };
    let job = app.jobs.submit(&new).await?;
    queue.send(&job.id, TENANT, 0).await?;
    Ok(job.id)
}

/// Up to so many messages; one receive gives ten at most.
async fn receive(queue: &Queue, most: u64) -> anyhow::Result<Vec<Message>> {
    let mut messages = Vec::new();
    while (messages.len() as u64) < most {
        let missing = u32::try_from(most - messages.len() as u64)?;
        let more = queue.receive(missing, WAIT_S).await?;
        if more.is_empty() {
            break;
        }
        messages.extend(more);
    }
    Ok(messages)
}

/// One invocation, and what the event source mapping does after it. Gives how many messages are done with.
async fn invoke(app: &App, queue: &Queue, messages: Vec<Message>, spent: &mut Spent) -> anyhow::Result<u64> {
    let record = |message: &Message| {
        json!({ "messageId": message.id, "receiptHandle": message.receipt_handle, "body": message.body,
            "attributes": { "ApproximateReceiveCount": message.receive_count.to_string() } })
    };
    let records: Vec<_> = messages.iter().map(record).collect();
    let event: DrainEvent = serde_json::from_value(json!({ "Records": records }))?;
    let began = Instant::now();
    let handled = drain::handle(app, event, Some(app.clock.now_ms() + INVOCATION_MS)).await?;
    spent.billed += began.elapsed();
    spent.invocations += 1;
    ensure!(handled.batch_item_failures.is_empty(), "{} messages failed", handled.batch_item_failures.len());
    for message in &messages {
        queue.delete(&message.receipt_handle).await?;
    }
    Ok(messages.len() as u64)
}
