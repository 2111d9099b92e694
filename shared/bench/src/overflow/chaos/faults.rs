//! Faults of the models and the store. The faults of the queue are in the settings.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Args, GONE_POOL, POOLS};
use crate::overflow::deployment::Deployment;

/// Mean time between two outages of a pool.
const OUTAGE_EVERY: Duration = Duration::from_secs(4);

/// Number of calls in a row that fail in an outage.
const FAILED_CALLS: u64 = 3;

/// Number of jobs per withheld response of the store, for each kind of write. A withheld response
/// delays all writes to the same item until the client's timeout.
const JOBS_PER_WITHHELD_RESPONSE: u64 = 200;

/// Injects the faults: 5 % of the model calls are throttled, 1 % fail, and 2 % of the rest lose
/// their stream. The pool of one model fails all the time. The store throttles, fails, and
/// sometimes writes without a response.
pub async fn inject(deployment: &Deployment, args: &Args) -> anyhow::Result<()> {
    let withheld = args.jobs.div_ceil(JOBS_PER_WITHHELD_RESPONSE);
    for fault in [
        json!({ "model_id": GONE_POOL, "status_5xx": 500 }),
        json!({ "throttle": 0.05 }),
        json!({ "status_5xx": 500, "share": 0.01 }),
        json!({ "cut_stream_after_events": 3, "share": 0.02 }),
        json!({ "throttle_mid_stream": 3, "share": 0.005 }),
    ] {
        deployment.inject_fault(&deployment.endpoints.bedrock_runtime, &fault).await?;
    }
    for fault in [
        json!({ "operation": "UpdateItem", "effect": "throttle", "probability": 0.02 }),
        json!({ "operation": "UpdateItem", "effect": "error_500", "probability": 0.002 }),
        json!({ "operation": "UpdateItem", "effect": "timeout_after", "probability": 0.001,
            "times": withheld }),
        json!({ "operation": "UpdateItem", "effect": "cut_after", "probability": 0.002 }),
        json!({ "operation": "PutItem", "effect": "throttle", "probability": 0.02 }),
        json!({ "operation": "PutItem", "effect": "cut_after", "probability": 0.005 }),
        json!({ "operation": "PutItem", "effect": "timeout_after", "probability": 0.001,
            "times": withheld }),
        json!({ "operation": "GetItem", "effect": "throttle", "probability": 0.02 }),
        json!({ "operation": "GetItem", "effect": "cut_after", "probability": 0.002 }),
        json!({ "operation": "Query", "effect": "throttle", "probability": 0.02 }),
    ] {
        deployment.inject_fault(&deployment.endpoints.dynamodb, &fault).await?;
    }
    Ok(())
}

/// Outages of pools, until it is dropped.
pub struct Outages(JoinHandle<()>);

impl Outages {
    /// Begins outages of pools at random: a few calls in a row fail, so that each process passes
    /// the pool over and probes it.
    pub fn begin(deployment: &Deployment, seed: u64) -> Self {
        let (url, mut rng) = (format!("{}/_sim/faults", deployment.endpoints.bedrock_runtime), Rng::with_seed(seed));
        let http = reqwest::Client::new();
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(OUTAGE_EVERY.mul_f64(2.0 * rng.f64())).await;
                // The run goes on without a fault that is not accepted. The report counts them.
                let _ = http.post(&url).json(&outage(&mut rng)).send().await;
            }
        }))
    }
}

impl Drop for Outages {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn outage(rng: &mut Rng) -> Value {
    let mut fault = match rng.u8(0..3) {
        0 => json!({ "unavailable": true }),
        1 => json!({ "error": "AccessDeniedException" }),
        _ => json!({ "error": "ModelNotReadyException" }),
    };
    fault["model_id"] = json!(POOLS[rng.usize(0..POOLS.len())]);
    fault["times"] = json!(FAILED_CALLS);
    fault
}
