//! Submits requests until enough of them are jobs.

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use fastrand::Rng;
use futures_util::future::{join_all, try_join_all};

use super::{Args, GONE, MODELS, ONE_OF_GONE};
use crate::overflow::{
    client::{Client, Sent},
    deployment::Deployment,
    request::Request,
};

/// Submitted requests and their results.
#[derive(Debug, Clone, Default)]
pub struct Submitted {
    /// Accepted jobs with their tenants.
    pub jobs: BTreeMap<String, String>,
    /// Number of requests that were answered directly.
    pub answered: u64,
    /// Input and output tokens of these responses.
    pub answered_tokens: (u64, u64),
    /// Number of requests that were refused or failed, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Number of requests with an unknown result.
    pub lost: u64,
}

/// Maximum tries of a tenant per job.
const MAX_TRIES: u64 = 20;

/// Pause after a refusal.
const REFUSAL_PAUSE: Duration = Duration::from_millis(50);

/// Number of concurrent requests of a tenant.
const CONCURRENCY: u64 = 4;

/// Submits the requests of all tenants concurrently.
///
/// # Errors
/// Returns an error if too few requests are accepted.
pub async fn submit(deployment: &Deployment, args: &Args, tenants: &[String]) -> anyhow::Result<Submitted> {
    let jobs_per_tenant = args.jobs.div_ceil(args.tenants);
    let submissions = tenants.iter().zip(0..).map(|(tenant, number)| {
        let rng = Rng::with_seed(args.seed.wrapping_mul(1_000_003).wrapping_add(number));
        submit_for(deployment.client.clone(), tenant.clone(), jobs_per_tenant, rng)
    });
    let mut submitted = Submitted::default();
    for part in try_join_all(submissions).await? {
        submitted.add(part);
    }
    Ok(submitted)
}

async fn submit_for(client: Client, tenant: String, jobs: u64, mut rng: Rng) -> anyhow::Result<Submitted> {
    let mut submitted = Submitted::default();
    let mut number = 0;
    while (submitted.jobs.len() as u64) < jobs && number < jobs * MAX_TRIES + MAX_TRIES {
        let missing = jobs - submitted.jobs.len() as u64;
        let requests: Vec<_> =
            (0..missing.min(CONCURRENCY)).map(|offset| request(&tenant, number + offset, &mut rng)).collect();
        number += requests.len() as u64;
        let sent = join_all(requests.iter().map(|request| client.send(&tenant, request, true))).await;
        let is_refused = sent.iter().any(|sent| matches!(sent, Sent::Refused(_)));
        for sent in sent {
            submitted.note(&tenant, sent)?;
        }
        if is_refused {
            tokio::time::sleep(REFUSAL_PAUSE).await;
        }
    }
    let accepted = submitted.jobs.len() as u64;
    ensure!(accepted == jobs, "{tenant}: only {accepted} of {jobs} requests were accepted: {submitted:?}");
    Ok(submitted)
}

fn request(tenant: &str, number: u64, rng: &mut Rng) -> Request {
    let text = format!("Request {number} of {tenant}, {:08x}.", rng.u32(..));
    let models: &[&str] = if rng.u64(0..ONE_OF_GONE) == 0 { &[GONE] } else { &MODELS };
    Request::mixed(rng.u64(..), models, text, rng.u64(4..=40))
}

impl Submitted {
    fn note(&mut self, tenant: &str, sent: Sent) -> anyhow::Result<()> {
        match sent {
            Sent::Accepted(id) => {
                ensure!(self.jobs.insert(id.clone(), tenant.to_owned()).is_none(), "job {id} was accepted twice");
            }
            Sent::Answered(usage) => {
                let usage = usage.unwrap_or_default();
                self.answered += 1;
                self.answered_tokens.0 += usage.input_tokens;
                self.answered_tokens.1 += usage.output_tokens;
            }
            Sent::Refused(status) => *self.refused.entry(status).or_default() += 1,
            Sent::Lost => self.lost += 1,
        }
        Ok(())
    }

    fn add(&mut self, added: Self) {
        self.jobs.extend(added.jobs);
        self.answered += added.answered;
        self.answered_tokens.0 += added.answered_tokens.0;
        self.answered_tokens.1 += added.answered_tokens.1;
        for (status, count) in added.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.lost += added.lost;
    }
}
