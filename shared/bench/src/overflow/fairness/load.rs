//! Load of the fairness check, and the times of its requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use fastrand::Rng;
use spillway::units::Millis;
use spillway_command::replay::trace::rows;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::Args;
use crate::overflow::{client::Sent, deployment::Deployment, request::Request};

/// Model that all requests call.
pub const MODEL: &str = "shared";

/// Tenant that floods the queue.
const BIG: &str = "big";

/// Delay of the small tenants' requests.
const SMALL_DELAY_MS: u64 = 1_000;

/// Maximum connections of a tenant.
const CONNECTIONS: usize = 32;

/// Minimum share of the requests of a big tenant in a trace.
const MIN_BIG_SHARE: f64 = 0.1;

/// Requests with their times.
#[derive(Debug, Clone)]
pub struct Load {
    arrivals: Vec<Arrival>,
    big: BTreeSet<String>,
    /// Lines of the simulator's table that set the speed of the model.
    model_speed: &'static str,
}

#[derive(Debug, Clone)]
struct Arrival {
    at_ms: u64,
    tenant: String,
    request: Request,
}

/// Times of requests in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Times {
    pub by_tenant: BTreeMap<String, Vec<u64>>,
    /// Number of requests of big tenants.
    pub big_requests: u64,
    /// Number of these that were answered before the last request of the small tenants.
    pub big_answered: u64,
}

/// Returns the load of a tenant with many requests, and of other tenants with few requests a second
/// later.
pub fn synthetic(args: &Args) -> Load {
    let mut rng = Rng::with_seed(args.seed);
    let mut arrivals = Vec::new();
    let mut add = |at_ms, tenant: &str, number: u64| {
        let text = format!("Request {number} of {tenant}.");
        let request = Request::mixed(rng.u64(..), &[MODEL], text, rng.u64(4..=20));
        arrivals.push(Arrival { at_ms, tenant: tenant.to_owned(), request });
    };
    (0..args.big).for_each(|number| add(0, BIG, number));
    for tenant in 0..args.tenants {
        (0..args.small).for_each(|number| add(SMALL_DELAY_MS, &format!("small-{tenant:02}"), number));
    }
    let model_speed = "time_to_first_token_ms = 20\ntokens_per_second = 500";
    Load { arrivals, big: BTreeSet::from([BIG.to_owned()]), model_speed }
}

/// Returns the unscaled window of a trace in which a single tenant sends the most requests.
pub fn from_trace(trace: &Path, args: &Args) -> anyhow::Result<Load> {
    let rows = rows::read_file(trace, usize::MAX)?;
    let window = |row: &rows::Row| row.arrival_ms / (args.window_s * 1_000);
    let mut sent: BTreeMap<(u64, &str), usize> = BTreeMap::new();
    rows.iter().for_each(|row| *sent.entry((window(row), &row.tenant)).or_default() += 1);
    let busiest = sent.iter().max_by_key(|(_, count)| **count).map(|((window, _), _)| *window);
    let mut rng = Rng::with_seed(args.seed);
    let arrival = |(number, row): (usize, &rows::Row)| {
        // Tenant names have lower-case letters.
        let tenant = row.tenant.to_ascii_lowercase();
        let text = format!("Request {number} of {tenant}.");
        let request = Request::mixed(rng.u64(..), &[MODEL], text, row.output_tokens.max(1));
        Arrival { at_ms: row.arrival_ms % (args.window_s * 1_000), tenant, request }
    };
    let rows = rows.iter().filter(|row| Some(window(row)) == busiest);
    let arrivals: Vec<_> = rows.enumerate().map(arrival).collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    arrivals.iter().for_each(|arrival| *counts.entry(arrival.tenant.clone()).or_default() += 1);
    let is_big = |count: usize| count as f64 >= MIN_BIG_SHARE * arrivals.len() as f64;
    let big = counts.into_iter().filter(|(_, count)| is_big(*count)).map(|(name, _)| name).collect();
    Ok(Load { arrivals, big, model_speed: "time_to_first_token_ms = 400\ntokens_per_second = 80" })
}

impl Load {
    /// All tenants.
    pub fn tenants(&self) -> BTreeSet<String> {
        self.arrivals.iter().map(|arrival| arrival.tenant.clone()).collect()
    }

    /// Tenants that do not flood the queue.
    pub fn small_tenants(&self) -> Vec<String> {
        self.tenants().into_iter().filter(|name| !self.big.contains(name)).collect()
    }

    /// Returns only the requests of `tenants`, at the same times.
    pub fn only(&self, tenants: &[String]) -> Self {
        let arrivals = self.arrivals.iter().filter(|arrival| tenants.contains(&arrival.tenant)).cloned();
        Self { arrivals: arrivals.collect(), ..self.clone() }
    }

    /// Simulator settings that set the speed of the model.
    pub fn model_speed(&self) -> &'static str {
        self.model_speed
    }

    /// Describes the load in a sentence.
    pub fn description(&self) -> String {
        let big_requests = self.arrivals.iter().filter(|arrival| self.big.contains(&arrival.tenant)).count();
        format!(
            "{} requests, {big_requests} of them from {} big tenants; times in ms from submission to response.",
            self.arrivals.len(),
            self.big.len()
        )
    }

    /// Sends every request at its time, and waits until all requests of the `small` tenants are
    /// answered.
    ///
    /// # Errors
    /// Returns an error if a request of a small tenant is refused, fails or takes too long.
    pub async fn play(&self, deployment: &Deployment, small: &[String], timeout: Duration) -> anyhow::Result<Times> {
        let began = Instant::now();
        let mut connections: BTreeMap<String, Arc<Semaphore>> = BTreeMap::new();
        let mut running = JoinSet::new();
        for arrival in self.arrivals.clone() {
            let permits =
                connections.entry(arrival.tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(CONNECTIONS)));
            let (permits, client, clock) =
                (Arc::clone(permits), deployment.client.clone(), deployment.app.clock.clone());
            running.spawn(async move {
                sleep_until(began + Duration::from_millis(arrival.at_ms)).await;
                // The time starts before the request has a connection, because waiting for it
                // counts.
                let sent_at = clock.now();
                let _connection = permits.acquire_owned().await;
                let sent = client.send(&arrival.tenant, &arrival.request, true).await;
                (arrival.tenant, sent_at, clock.now(), sent)
            });
        }
        let mut times = Times::default();
        let mut jobs = Vec::new();
        while let Some(sent) = running.join_next().await {
            let (tenant, sent_at, answered_at, sent) = sent?;
            let is_small = small.contains(&tenant);
            times.big_requests += u64::from(!is_small);
            match sent {
                Sent::Answered(_) if is_small => times.add(tenant, answered_at - sent_at),
                Sent::Answered(_) => times.big_answered += 1,
                Sent::Accepted(id) => jobs.push((tenant, id, sent_at)),
                sent => ensure!(!is_small, "a request of {tenant} was not accepted: {sent:?}"),
            }
        }
        deployment.client.settle(small, timeout).await?;
        for (tenant, id, sent_at) in jobs {
            let job = deployment.app.jobs.get(&id).await?.with_context(|| format!("job {id} is missing"))?;
            match job.finished_at {
                Some(finished_at) if small.contains(&tenant) => times.add(tenant, finished_at - sent_at),
                finished_at => times.big_answered += u64::from(finished_at.is_some()),
            }
        }
        Ok(times)
    }
}

impl Times {
    /// Returns the times of all these tenants.
    pub fn for_tenants(&self, tenants: &[String]) -> Vec<u64> {
        tenants.iter().filter_map(|name| self.by_tenant.get(name)).flatten().copied().collect()
    }

    fn add(&mut self, tenant: String, time: Millis) {
        self.by_tenant.entry(tenant).or_default().push(time.as_ms());
    }
}
