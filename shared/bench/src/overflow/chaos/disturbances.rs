//! What goes wrong in models and store; what goes wrong in the queue stands in the settings.

use serde_json::json;

use super::Args;
use crate::overflow::deployment::Deployment;

/// For so many jobs an answer of the store is withheld, of each kind of write. Each of them holds up whoever writes to the same
/// item, for as long as the client waits.
const JOBS_PER_WITHHELD: u64 = 200;

/// Begins all of it: 5 % of the calls of models are throttled, 1 % fail, 2 % of the rest lose their stream; the store
/// throttles, fails, and does some things without saying so.
pub async fn begin(deployment: &Deployment, args: &Args) -> anyhow::Result<()> {
    let withheld = args.jobs.div_ceil(JOBS_PER_WITHHELD);
    for fault in [
        json!({ "throttle": 0.05 }),
        json!({ "status_5xx": 500, "share": 0.01 }),
        json!({ "cut_stream_after_events": 3, "share": 0.02 }),
        json!({ "throttle_mid_stream": 3, "share": 0.005 }),
    ] {
        deployment.disturb(&deployment.endpoints.bedrock_runtime, &fault).await?;
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
        deployment.disturb(&deployment.endpoints.dynamodb, &fault).await?;
    }
    Ok(())
}
