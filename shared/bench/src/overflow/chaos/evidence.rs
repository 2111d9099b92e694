//! Evidence at the end of a run: jobs, calls, ledger, output and faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use spillway::{job::Job, quota::Image, store::ledger::tenant_account};

use super::{submission::Submitted, tokens::Tokens};
use crate::overflow::{deployment::Deployment, output::Output};

/// Everything that the reconciliation compares.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Submitted requests.
    pub submitted: Submitted,
    /// Every job by its ID, including jobs whose acceptance did not reach the client.
    pub jobs: BTreeMap<String, ObservedJob>,
    /// Call log of the simulator.
    pub calls: Vec<Call>,
    /// Totals of the simulator by pool.
    pub simulated: BTreeMap<String, Tokens>,
    /// Items of the ledger by tenant.
    pub ledger: BTreeMap<String, Vec<Image>>,
    /// Output of the processes.
    pub output: Output,
    /// Times of the kills by the name of the broker process, in milliseconds of the stand-ins'
    /// clock.
    pub kills: BTreeMap<String, u64>,
    /// Number of faults of the queue by kind.
    pub queue_faults: BTreeMap<String, u64>,
    /// Number of faulty requests to the store.
    pub store_faults: u64,
    /// Errors found while gathering.
    pub errors: Vec<String>,
}

/// A job in the API and in the store.
#[derive(Debug, Clone)]
pub struct ObservedJob {
    pub job: Job,
    /// Status in the API.
    pub status: String,
    /// Whether the API has a result.
    pub has_result: bool,
    /// Usage that the result reports.
    pub usage: Option<Tokens>,
}

/// A call in the simulator's log.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    pub model_id: String,
    pub request_id: Option<String>,
    /// Name of the broker process that made it.
    pub app: Option<String>,
    pub tenant: Option<String>,
    pub admitted: bool,
    pub ending: String,
    pub begun_ms: u64,
    pub ended_ms: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// Number of jobs that are read concurrently.
const READ_CONCURRENCY: usize = 16;

/// Gathers the evidence.
///
/// # Errors
/// Returns an error if a source is unavailable.
pub async fn gather(
    deployment: &Deployment,
    tenants: &[String],
    submitted: Submitted,
    kills: BTreeMap<String, u64>,
) -> anyhow::Result<Evidence> {
    let simulated = wait_until_quiet(deployment).await?;
    let mut evidence = Evidence { submitted, kills, ..Evidence::default() };
    let owners = evidence.owners(deployment, tenants).await?;
    let jobs =
        stream::iter(owners).map(|(id, tenant)| observe(deployment, id, tenant)).buffer_unordered(READ_CONCURRENCY);
    let jobs: Vec<(ObservedJob, Option<String>)> = jobs.try_collect().await?;
    for (observed, error) in jobs {
        evidence.errors.extend(error);
        evidence.jobs.insert(observed.job.id.clone(), observed);
    }
    let bedrock = &deployment.endpoints.bedrock_runtime;
    let mut log: BTreeMap<String, Vec<Call>> = deployment.read_control(bedrock, "calls").await?;
    evidence.calls = log.remove("calls").unwrap_or_default();
    evidence.simulated = simulated.models.iter().map(|(pool, stats)| (pool.clone(), stats.tokens())).collect();
    let mut accounts = deployment.app.ledger.accounts().await?;
    let ledger = tenants.iter().map(|name| (name.clone(), accounts.remove(&tenant_account(name)).unwrap_or_default()));
    evidence.ledger = ledger.collect();
    let faults: Value = deployment.read_control(&deployment.endpoints.sqs, "faults").await?;
    evidence.queue_faults = serde_json::from_value(faults["struck"].clone()).unwrap_or_default();
    let store: Value = deployment.read_control(&deployment.endpoints.dynamodb, "stats").await?;
    evidence.store_faults = store["struck"].as_u64().unwrap_or(0);
    evidence.output = deployment.output.snapshot();
    Ok(evidence)
}

/// Totals of the simulator.
#[derive(Deserialize)]
struct SimulatorStats {
    total: PoolStats,
    models: BTreeMap<String, PoolStats>,
}

#[derive(Deserialize)]
struct PoolStats {
    requests: u64,
    in_flight: u64,
    input_tokens: u64,
    cache_read_input_tokens: u64,
    cache_write_input_tokens: u64,
    output_tokens: u64,
}

impl PoolStats {
    fn tokens(&self) -> Tokens {
        let input = self.input_tokens + self.cache_read_input_tokens + self.cache_write_input_tokens;
        Tokens { requests: self.requests, input, output: self.output_tokens }
    }
}

/// Time without events after which every settlement has ended, in seconds. It is longer than a
/// settlement takes behind other settlements of the same account, each of which may wait for a
/// response that does not arrive.
const MIN_QUIET_S: u64 = 12;

/// Waits until no call is in flight and no process prints events. Returns the totals of the
/// simulator.
async fn wait_until_quiet(deployment: &Deployment) -> anyhow::Result<SimulatorStats> {
    let mut quiet_s = 0;
    let mut previous_events = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stats: SimulatorStats = deployment.read_control(&deployment.endpoints.bedrock_runtime, "stats").await?;
        let events = deployment.output.snapshot().events.len();
        quiet_s = if stats.total.in_flight == 0 && events == previous_events { quiet_s + 1 } else { 0 };
        previous_events = events;
        if quiet_s >= MIN_QUIET_S {
            return Ok(stats);
        }
    }
}

impl Evidence {
    /// Returns all jobs that were accepted or that the API lists, with their tenants.
    async fn owners(
        &mut self,
        deployment: &Deployment,
        tenants: &[String],
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let mut owners = self.submitted.jobs.clone();
        for tenant in tenants {
            let listed = deployment.client.list(tenant, "queued,running,succeeded,failed,cancelled,expired").await?;
            let accepted = self.submitted.jobs.iter().filter(|(_, owner)| *owner == tenant);
            let missing: BTreeSet<_> = accepted.map(|(id, _)| id).filter(|id| !listed.contains(*id)).collect();
            self.errors.extend(missing.iter().map(|id| format!("job {id} is missing in the list")));
            owners.extend(listed.into_iter().map(|id| (id, tenant.clone())));
        }
        Ok(owners)
    }
}

/// Reads a job. Returns it with an error if it is inconsistent.
async fn observe(deployment: &Deployment, id: String, tenant: String) -> anyhow::Result<(ObservedJob, Option<String>)> {
    let shown = deployment.client.job(&tenant, &id).await?;
    let result = deployment.client.result(&tenant, &id).await?;
    let job = deployment.app.jobs.get(&id).await?.with_context(|| format!("job {id} is missing"))?;
    let status = shown["status"].as_str().unwrap_or_default().to_owned();
    let has_result = result.is_some();
    let mut error = (status != job.status.name())
        .then(|| format!("job {id} is {status} in the API and {} in the store", job.status.name()));
    let mut usage = None;
    if let Some(stored) = result.filter(|stored| stored.status == 200) {
        match stored.usage() {
            Ok(reported) => {
                usage = reported.map(|usage| Tokens {
                    requests: 1,
                    input: usage.input_tokens,
                    output: usage.output_tokens,
                });
            }
            Err(kind) => error = Some(format!("the result of job {id} is {kind}")),
        }
    }
    Ok((ObservedJob { job, status, has_result, usage }, error))
}
