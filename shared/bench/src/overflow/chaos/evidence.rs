//! All that is known at the end, from everyone who knows something.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use spillway::{job::Job, quota::Image, store::ledger::tenant_account};

use super::{books::Tokens, submission::Submitted};
use crate::overflow::{deployment::Deployment, watched::Said};

/// What there is to judge.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What was submitted.
    pub submitted: Submitted,
    /// Every job by its id, also those that nobody was told of.
    pub jobs: BTreeMap<String, Seen>,
    /// The simulator's log of calls.
    pub calls: Vec<Call>,
    /// The simulator's accounts, by pool.
    pub simulated: BTreeMap<String, Tokens>,
    /// The ledger's items, by tenant.
    pub ledger: BTreeMap<String, Vec<Image>>,
    /// What the processes said.
    pub said: Said,
    /// The brokers that were killed, each life by its name, and when: in milliseconds of the stand-ins' clock.
    pub kills: BTreeMap<String, u64>,
    /// How often each fault of the queue struck.
    pub queue_faults: BTreeMap<String, u64>,
    /// How many requests a fault of the store struck.
    pub store_faults: u64,
    /// What is wrong already.
    pub wrong: Vec<String>,
}

/// A job, as the API and the store have it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub job: Job,
    /// The status that the API tells.
    pub told: String,
    /// Whether the API has an answer.
    pub has_result: bool,
    /// What the answer says that it took.
    pub usage: Option<Tokens>,
}

/// A call as the simulator logged it.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    pub model_id: String,
    pub request_id: Option<String>,
    /// The life of the broker that made it.
    pub app: Option<String>,
    pub tenant: Option<String>,
    pub admitted: bool,
    pub ending: String,
    pub begun_ms: u64,
    pub ended_ms: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// How many jobs are read at once.
const AT_ONCE: usize = 16;

/// Reads all of it.
///
/// # Errors
/// Someone does not answer.
pub async fn gather(
    deployment: &Deployment,
    tenants: &[String],
    submitted: Submitted,
    kills: BTreeMap<String, u64>,
) -> anyhow::Result<Evidence> {
    let simulated = quiet(deployment).await?;
    let mut evidence = Evidence { submitted, kills, ..Evidence::default() };
    let owners = evidence.owners(deployment, tenants).await?;
    let seen = stream::iter(owners).map(|(id, tenant)| see(deployment, id, tenant)).buffer_unordered(AT_ONCE);
    let seen: Vec<(Seen, Option<String>)> = seen.try_collect().await?;
    for (seen, wrong) in seen {
        evidence.wrong.extend(wrong);
        evidence.jobs.insert(seen.job.id.clone(), seen);
    }
    let bedrock = &deployment.endpoints.bedrock_runtime;
    let mut log: BTreeMap<String, Vec<Call>> = deployment.told(bedrock, "calls").await?;
    evidence.calls = log.remove("calls").unwrap_or_default();
    evidence.simulated = simulated.models.iter().map(|(pool, account)| (pool.clone(), account.tokens())).collect();
    let mut accounts = deployment.app.ledger.accounts().await?;
    let of_tenants =
        tenants.iter().map(|name| (name.clone(), accounts.remove(&tenant_account(name)).unwrap_or_default()));
    evidence.ledger = of_tenants.collect();
    let struck: Value = deployment.told(&deployment.endpoints.sqs, "faults").await?;
    evidence.queue_faults = serde_json::from_value(struck["struck"].clone()).unwrap_or_default();
    let store: Value = deployment.told(&deployment.endpoints.dynamodb, "stats").await?;
    evidence.store_faults = store["struck"].as_u64().unwrap_or(0);
    evidence.said = deployment.watched.said();
    Ok(evidence)
}

/// What the simulator says of all its pools.
#[derive(Deserialize)]
struct Accounts {
    total: Account,
    models: BTreeMap<String, Account>,
}

#[derive(Deserialize)]
struct Account {
    requests: u64,
    in_flight: u64,
    input_tokens: u64,
    cache_read_input_tokens: u64,
    cache_write_input_tokens: u64,
    output_tokens: u64,
}

impl Account {
    fn tokens(&self) -> Tokens {
        let input = self.input_tokens + self.cache_read_input_tokens + self.cache_write_input_tokens;
        Tokens { requests: self.requests, input, output: self.output_tokens }
    }
}

/// How long nobody may say anything, in seconds, until everything is settled: longer than a settlement takes behind others of
/// the same account, each of which may wait for an answer that does not come.
const QUIET_S: u64 = 12;

/// The simulator's accounts once nothing runs any more and nobody says anything any more.
async fn quiet(deployment: &Deployment) -> anyhow::Result<Accounts> {
    let mut silent_s = 0;
    let mut said = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let accounts: Accounts = deployment.told(&deployment.endpoints.bedrock_runtime, "stats").await?;
        let events = deployment.watched.said().events.len();
        silent_s = if accounts.total.in_flight == 0 && events == said { silent_s + 1 } else { 0 };
        said = events;
        if silent_s >= QUIET_S {
            return Ok(accounts);
        }
    }
}

impl Evidence {
    /// All jobs that were accepted or that the API lists, with their tenants.
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
            self.wrong.extend(missing.iter().map(|id| format!("job {id} is in no list")));
            owners.extend(listed.into_iter().map(|id| (id, tenant.clone())));
        }
        Ok(owners)
    }
}

/// A job, and what is wrong with it.
async fn see(deployment: &Deployment, id: String, tenant: String) -> anyhow::Result<(Seen, Option<String>)> {
    let told = deployment.client.job(&tenant, &id).await?;
    let result = deployment.client.result(&tenant, &id).await?;
    let job = deployment.app.jobs.get(&id).await?.with_context(|| format!("job {id} is gone"))?;
    let told = told["status"].as_str().unwrap_or_default().to_owned();
    let has_result = result.is_some();
    let mut wrong = (told != job.status.name()).then(|| format!("job {id} is {told} and {}", job.status.name()));
    let mut usage = None;
    if let Some(kept) = result.filter(|kept| kept.status == 200) {
        match kept.usage() {
            Ok(named) => {
                usage =
                    named.map(|usage| Tokens { requests: 1, input: usage.input_tokens, output: usage.output_tokens });
            }
            Err(why) => wrong = Some(format!("the answer of job {id} is {why}")),
        }
    }
    Ok((Seen { job, told, has_result, usage }, wrong))
}
