//! `spillway-bench overflow efficiency`: Lambda time and requests to AWS per finished job.
//!
//! Messages are received from the queue in batches, as an event source mapping does, and passed to
//! `drain::handle`, as in the Lambda function. Lambda bills the time of that call. The stand-ins
//! respond within a fraction of a millisecond, so the time is the time of the model and of the
//! drain.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use fastrand::Rng;
use serde_json::json;
use spillway::{
    app::App,
    dialect::{Api, Dialect},
    drain::{self, DrainEvent},
    job::{JobStatus, NewJob, Priority, StoredCall},
    queue::{Message, Queue},
    stored_headers::StoredHeaders,
    tenant::Class,
    units::Millis,
};

use super::{deployment::Deployment, figures, request::Request, settings::Settings};

/// Arguments of `spillway-bench overflow efficiency`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Number of jobs for each batch size
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub jobs: u64,
    /// Maximum number of messages per invocation
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    pub at_once: u64,
    /// Seed of the random requests
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

const TENANT: &str = "t";
const MODEL: &str = "m";

/// Goal: minimum factor by which a job in a full batch takes less Lambda time.
const MIN_GAIN: f64 = 5.0;
/// Goal: maximum requests to AWS per job.
const MAX_REQUESTS: f64 = 20.0;

/// Time limit of an invocation in milliseconds: the template's timeout of the drain.
const INVOCATION_MS: u64 = 900_000;

/// Duration of a long poll.
const LONG_POLL: Millis = Millis::from_s(1);

/// Visibility timeout of messages: longer than the whole measurement.
const VISIBILITY_TIMEOUT: Millis = Millis::from_s(900);

/// Totals of the measured jobs.
#[derive(Debug, Default)]
struct Totals {
    jobs: u64,
    invocations: u64,
    billed: Duration,
    requests: BTreeMap<String, u64>,
}

/// Measures both batch sizes and prints the figures per job.
///
/// # Errors
/// Returns an error if a goal is missed or a measurement fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let limits = "{ requests_per_minute = 1_000_000, tokens_per_minute = 1_000_000_000 }";
    let settings = Settings::default()
        .tenant(TENANT, "limits.requests_per_minute = 1_000_000\nlimits.tokens_per_minute = 1_000_000_000")
        .model(MODEL, 30_000, &[("us.amazon.nova-micro-v1:0", limits)])
        .simulator("time_to_first_token_ms = 200\ntokens_per_second = 100");
    let deployment = Deployment::without_broker(&settings).await?;
    let mut rng = Rng::with_seed(args.seed);
    // A warm-up opens connections and fills the registry's cache.
    measure(&deployment, 2, 1, &mut rng).await?;
    let single = measure(&deployment, args.jobs, 1, &mut rng).await?;
    let batched = measure(&deployment, args.jobs, args.at_once, &mut rng).await?;
    print_rows(args, &single, &batched);
    let gain = figures::ratio(single.ms_per_job(), batched.ms_per_job());
    ensure!(
        gain >= MIN_GAIN,
        "a job in a batch of {} takes only {gain:.1} times less Lambda time, not {MIN_GAIN}",
        args.at_once
    );
    let max_requests = single.requests_per_job().max(batched.requests_per_job());
    ensure!(max_requests <= MAX_REQUESTS, "a job costs {max_requests:.2} requests to AWS");
    println!(
        "\na job in a full batch takes {gain:.1} times less Lambda time, and at most {max_requests:.2} requests: ok"
    );
    Ok(())
}

impl Totals {
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

fn print_rows(args: &Args, single: &Totals, batched: &Totals) {
    println!("{:<40}{:>16}{:>16}", "for each finished job", "batches of 1", format!("batches of {}", args.at_once));
    let row = |name: &str, figure: &dyn Fn(&Totals) -> f64| {
        println!("{name:<40}{:>16.3}{:>16.3}", figure(single), figure(batched));
    };
    row("Lambda, milliseconds", &Totals::ms_per_job);
    row("Lambda, invocations", &|totals| totals.per_job(totals.invocations as f64));
    let names: std::collections::BTreeSet<_> = single.requests.keys().chain(batched.requests.keys()).collect();
    for name in names {
        row(name, &|totals| totals.per_job(totals.requests.get(name).copied().unwrap_or(0) as f64));
    }
    row("requests to AWS, total", &Totals::requests_per_job);
}

async fn measure(deployment: &Deployment, jobs: u64, at_once: u64, rng: &mut Rng) -> anyhow::Result<Totals> {
    let app = &deployment.app;
    let queue = app.queue.clone().context("the deployment has no queue")?.with_visibility_timeout(VISIBILITY_TIMEOUT);
    let mut ids = Vec::new();
    for _ in 0..jobs {
        ids.push(submit(app, &queue, rng).await?);
    }
    let before = deployment.operations().await?;
    let mut totals = Totals { jobs, ..Totals::default() };
    let mut done = 0;
    while done < jobs {
        let messages = receive(&queue, at_once).await?;
        ensure!(!messages.is_empty(), "the queue is empty after {done} of {jobs} jobs");
        done += invoke(app, &queue, messages, &mut totals).await?;
    }
    let after = deployment.operations().await?;
    let since = |(name, count): (String, u64)| (name.clone(), count - before.get(&name).copied().unwrap_or(0));
    totals.requests = after.into_iter().map(since).filter(|(_, count)| *count > 0).collect();
    for id in ids {
        let job = app.jobs.get(&id).await?.context("a job is missing")?;
        ensure!(job.status == JobStatus::Succeeded, "job {id} is {}", job.status.name());
    }
    Ok(totals)
}

/// Stores a ready job and sends its message.
async fn submit(app: &App, queue: &Queue, rng: &mut Rng) -> anyhow::Result<String> {
    let request = Request {
        dialect: Dialect::OpenAi,
        model: MODEL.to_owned(),
        is_stream: rng.bool(),
        output_tokens: 20,
        text: format!("A job, {:08x}.", rng.u32(..)),
    };
    let now = app.clock.now();
    let call = StoredCall {
        api: Api::ChatCompletions,
        model: None,
        path: request.path(),
        base_path: String::new(),
        headers: StoredHeaders::default(),
        stream: request.is_stream,
    };
    let job = NewJob {
        id: None,
        tenant: TENANT.to_owned(),
        call,
        body: request.body().to_string().into(),
        created_at: now,
        ready_at: now,
        expires_at: now + Millis::from_s(3_600),
        is_parked: false,
        priority: Priority::default(),
        class: Class::Batch,
        member: None,
        wait: None,
    };
    let job = app.jobs.submit(&job).await?;
    queue.send(&job.id, TENANT, Millis::ZERO).await?;
    Ok(job.id)
}

/// Receives up to `max_messages`. A single receive returns at most ten.
async fn receive(queue: &Queue, max_messages: u64) -> anyhow::Result<Vec<Message>> {
    let mut messages = Vec::new();
    while (messages.len() as u64) < max_messages {
        let missing = usize::try_from(max_messages)? - messages.len();
        let more = queue.receive(missing, LONG_POLL).await?;
        if more.is_empty() {
            break;
        }
        messages.extend(more);
    }
    Ok(messages)
}

/// Runs an invocation and deletes its messages, as the event source mapping does. Returns the
/// number of messages.
async fn invoke(app: &App, queue: &Queue, messages: Vec<Message>, totals: &mut Totals) -> anyhow::Result<u64> {
    let record = |message: &Message| {
        json!({ "messageId": message.id, "receiptHandle": message.receipt_handle, "body": message.body,
            "attributes": { "ApproximateReceiveCount": message.receive_count.to_string() } })
    };
    let records: Vec<_> = messages.iter().map(record).collect();
    let event: DrainEvent = serde_json::from_value(json!({ "Records": records }))?;
    let began = Instant::now();
    let handled = drain::handle(app, event, Some(app.clock.now() + Millis::from_ms(INVOCATION_MS))).await?;
    totals.billed += began.elapsed();
    totals.invocations += 1;
    ensure!(handled.batch_item_failures.is_empty(), "{} messages failed", handled.batch_item_failures.len());
    for message in &messages {
        queue.delete(&message.receipt_handle).await?;
    }
    Ok(messages.len() as u64)
}
