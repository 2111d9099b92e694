//! Who submits what and when, and how long it takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use fastrand::Rng;
use spillway_command::replay::trace::rows;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::Args;
use crate::overflow::{client::Sent, deployment::Deployment, request::Request};

/// The model that all call.
pub const MODEL: &str = "shared";

/// The tenant that floods.
const BIG: &str = "big";

/// How much later the small tenants come.
const LATER_MS: u64 = 1_000;

/// Connections of one tenant.
const CONNECTIONS: usize = 32;

/// A tenant of a trace is big from this share of its requests on.
const BIG_SHARE: f64 = 0.1;

/// Requests in time.
#[derive(Debug, Clone)]
pub struct Load {
    arrivals: Vec<Arrival>,
    big: BTreeSet<String>,
    /// Lines of the simulator's table.
    model_speed: &'static str,
}

#[derive(Debug, Clone)]
struct Arrival {
    at_ms: u64,
    tenant: String,
    request: Request,
}

/// How long requests took, in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Times {
    pub by_tenant: BTreeMap<String, Vec<u64>>,
    /// Requests of other tenants.
    pub others: u64,
    /// Those of them that were answered when the last small tenant had its last answer.
    pub others_ended: u64,
}

/// One tenant with very many requests, and others with few a little later.
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
        (0..args.small).for_each(|number| add(LATER_MS, &format!("small-{tenant:02}"), number));
    }
    let model_speed = "time_to_first_token_ms = 20\ntokens_per_second = 500";
    Load { arrivals, big: BTreeSet::from([BIG.to_owned()]), model_speed }
}

/// The window of a trace in which one tenant sends the most, as it was: nothing is scaled.
pub fn of_trace(trace: &Path, args: &Args) -> anyhow::Result<Load> {
    let rows = rows::read_file(trace, usize::MAX)?;
    let window = |row: &rows::Row| row.arrival_ms / (args.window_s * 1_000);
    let mut sent: BTreeMap<(u64, &str), usize> = BTreeMap::new();
    rows.iter().for_each(|row| *sent.entry((window(row), &row.tenant)).or_default() += 1);
    let busiest = sent.iter().max_by_key(|(_, count)| **count).map(|((window, _), _)| *window);
    let mut rng = Rng::with_seed(args.seed);
    let arrival = |(number, row): (usize, &rows::Row)| {
        // Names of tenants are small letters.
        let tenant = row.tenant.to_ascii_lowercase();
        let text = format!("Request {number} of {tenant}.");
        let request = Request::mixed(rng.u64(..), &[MODEL], text, row.output_tokens.max(1));
        Arrival { at_ms: row.arrival_ms % (args.window_s * 1_000), tenant, request }
    };
    let rows = rows.iter().filter(|row| Some(window(row)) == busiest);
    let arrivals: Vec<_> = rows.enumerate().map(arrival).collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    arrivals.iter().for_each(|arrival| *counts.entry(arrival.tenant.clone()).or_default() += 1);
    let is_big = |count: usize| count as f64 >= BIG_SHARE * arrivals.len() as f64;
    let big = counts.into_iter().filter(|(_, count)| is_big(*count)).map(|(name, _)| name).collect();
    Ok(Load { arrivals, big, model_speed: "time_to_first_token_ms = 400\ntokens_per_second = 80" })
}

impl Load {
    /// Everyone in it.
    pub fn tenants(&self) -> BTreeSet<String> {
        self.arrivals.iter().map(|arrival| arrival.tenant.clone()).collect()
    }

    /// Those that do not flood.
    pub fn small_tenants(&self) -> Vec<String> {
        self.tenants().into_iter().filter(|name| !self.big.contains(name)).collect()
    }

    /// The requests of `tenants` alone, at the same times.
    pub fn only(&self, tenants: &[String]) -> Self {
        let arrivals = self.arrivals.iter().filter(|arrival| tenants.contains(&arrival.tenant)).cloned();
        Self { arrivals: arrivals.collect(), ..self.clone() }
    }

    /// How fast the model answers, as the simulator is told.
    pub fn model_speed(&self) -> &'static str {
        self.model_speed
    }

    /// In a sentence.
    pub fn described(&self) -> String {
        let of_big = self.arrivals.iter().filter(|arrival| self.big.contains(&arrival.tenant)).count();
        format!(
            "{} requests, of which {of_big} by {} big tenants; times in ms from submission to answer.",
            self.arrivals.len(),
            self.big.len()
        )
    }

    /// Submits everything at its time, and waits until all that `small` tenants submitted is answered.
    ///
    /// # Errors
    /// A request of a small tenant is neither answered nor accepted, or it takes too long.
    pub async fn play(&self, deployment: &Deployment, small: &[String], patience: Duration) -> anyhow::Result<Times> {
        let began = Instant::now();
        let mut rooms: BTreeMap<String, Arc<Semaphore>> = BTreeMap::new();
        let mut running = JoinSet::new();
        for arrival in self.arrivals.clone() {
            let room = rooms.entry(arrival.tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(CONNECTIONS)));
            let (room, client, clock) = (Arc::clone(room), deployment.client.clone(), deployment.app.clock.clone());
            running.spawn(async move {
                sleep_until(began + Duration::from_millis(arrival.at_ms)).await;
                // Before there is a connection: who waits for one waits.
                let at_ms = clock.now_ms();
                let _connection = room.acquire_owned().await;
                let sent = client.send(&arrival.tenant, &arrival.request, true).await;
                (arrival.tenant, at_ms, clock.now_ms(), sent)
            });
        }
        let mut times = Times::default();
        let mut jobs = Vec::new();
        while let Some(sent) = running.join_next().await {
            let (tenant, at_ms, answered_ms, sent) = sent?;
            let is_small = small.contains(&tenant);
            times.others += u64::from(!is_small);
            match sent {
                Sent::Answered(_) if is_small => times.add(tenant, answered_ms - at_ms),
                Sent::Answered(_) => times.others_ended += 1,
                Sent::Accepted(id) => jobs.push((tenant, id, at_ms)),
                sent => ensure!(!is_small, "a request of {tenant} was not accepted: {sent:?}"),
            }
        }
        deployment.client.settle(small, patience).await?;
        for (tenant, id, at_ms) in jobs {
            let job = deployment.app.jobs.get(&id).await?.with_context(|| format!("job {id} is gone"))?;
            match job.finished_ms {
                Some(finished_ms) if small.contains(&tenant) => times.add(tenant, finished_ms.saturating_sub(at_ms)),
                finished_ms => times.others_ended += u64::from(finished_ms.is_some()),
            }
        }
        Ok(times)
    }
}

impl Times {
    /// All of these tenants together.
    pub fn of(&self, tenants: &[String]) -> Vec<u64> {
        tenants.iter().filter_map(|name| self.by_tenant.get(name)).flatten().copied().collect()
    }

    fn add(&mut self, tenant: String, ms: u64) {
        self.by_tenant.entry(tenant).or_default().push(ms);
    }
}
