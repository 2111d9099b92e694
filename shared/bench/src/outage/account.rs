//! The simulators' account: which requests were billed, and how often.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::deployment::Deployment;

/// Response of `GET /_sim/calls`.
#[derive(Deserialize)]
struct Calls {
    calls: Vec<Call>,
}

/// A call that a model has ended.
#[derive(Deserialize)]
struct Call {
    tenant: Option<String>,
    request_id: Option<String>,
    admitted: bool,
}

/// Returns the number of requests that were billed more than once. Probes are billed to no tenant.
///
/// # Errors
/// Returns an error if a simulator does not answer.
pub async fn billed_twice(deployment: &Deployment) -> anyhow::Result<usize> {
    let mut billed = BTreeMap::<String, u64>::new();
    for region in [&deployment.near, &deployment.far] {
        let Calls { calls } = serde_json::from_value(region.calls().await?)?;
        let charged = calls.into_iter().filter(|call| call.admitted && call.tenant.as_deref() == Some("drill"));
        charged.filter_map(|call| call.request_id).for_each(|id| *billed.entry(id).or_default() += 1);
    }
    Ok(billed.values().filter(|count| **count > 1).count())
}
