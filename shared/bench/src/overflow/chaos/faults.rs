//! Faults of the models and the store. The faults of the queue are in the settings.

use serde_json::json;

use super::Args;
use crate::overflow::deployment::Deployment;

/// Number of jobs per withheld response of the store, for each kind of write. A withheld response
/// delays all writes to the same item until the client's timeout.
const JOBS_PER_WITHHELD_RESPONSE: u64 = 200;

/// Injects the faults: 5 % of the model calls are throttled, 1 % fail, and 2 % of the rest lose
/// their stream. The store throttles, fails, and sometimes writes without a response.
pub async fn inject(deployment: &Deployment, args: &Args) -> anyhow::Result<()> {
    let withheld = args.jobs.div_ceil(JOBS_PER_WITHHELD_RESPONSE);
    for fault in [
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
