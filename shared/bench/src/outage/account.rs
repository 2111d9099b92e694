//! The simulators' account: which requests were billed, and how often.

use std::collections::{BTreeMap, BTreeSet};

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

/// Requests that were billed more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BilledTwice {
    pub calls: usize,
    /// Jobs and lines of batches. A job whose call failed in progress is tried again.
    pub jobs: usize,
}

/// Returns the number of requests that were billed more than once. `calls` has the ids of the
/// callers' requests; all others are jobs. Probes are billed to no tenant.
///
/// # Errors
/// Returns an error if a simulator does not answer.
pub async fn billed_twice(deployment: &Deployment, calls: &BTreeSet<&str>) -> anyhow::Result<BilledTwice> {
    let mut entries = Vec::new();
    for region in [&deployment.near, &deployment.far] {
        let log: Calls = serde_json::from_value(region.calls().await?)?;
        entries.extend(log.calls);
    }
    Ok(count(entries, calls))
}

fn count(entries: Vec<Call>, calls: &BTreeSet<&str>) -> BilledTwice {
    let mut billed = BTreeMap::<String, u64>::new();
    let charged = entries.into_iter().filter(|call| call.admitted && call.tenant.as_deref() == Some("drill"));
    charged.filter_map(|call| call.request_id).for_each(|id| *billed.entry(id).or_default() += 1);
    let twice = || billed.iter().filter(|(_, times)| **times > 1);
    let of_calls = twice().filter(|(id, _)| calls.contains(id.as_str())).count();
    BilledTwice { calls: of_calls, jobs: twice().count() - of_calls }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_separates_calls_from_jobs_and_leaves_refused_calls_and_probes_out() {
        let call = |tenant: &str, id: &str, admitted| Call {
            tenant: Some(tenant.to_owned()),
            request_id: Some(id.to_owned()),
            admitted,
        };
        let entries = vec![
            call("drill", "once", true),
            call("drill", "once", false),
            call("drill", "twice", true),
            call("drill", "twice", true),
            call("drill", "job", true),
            call("drill", "job", true),
            call("drill", "job", true),
            call("spillway", "probe", true),
            call("spillway", "probe", true),
        ];
        assert_eq!(count(entries, &["once", "twice"].into()), BilledTwice { calls: 1, jobs: 1 });
    }
}
