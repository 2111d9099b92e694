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
    model_id: String,
    tenant: Option<String>,
    request_id: Option<String>,
    admitted: bool,
}

/// The calls of the callers, of the jobs, and of the lines of batches. Probes have no tenant.
pub struct Account(Vec<Call>);

/// Requests that were billed more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BilledTwice {
    pub calls: usize,
    /// Jobs and lines of batches. A job whose call failed in progress is tried again.
    pub jobs: usize,
}

impl Account {
    /// Reads the account of both regions, after a drill.
    ///
    /// # Errors
    /// Returns an error if a simulator does not answer.
    pub async fn read(deployment: &Deployment) -> anyhow::Result<Self> {
        let mut entries = Vec::new();
        for region in [&deployment.near, &deployment.far] {
            let log: Calls = serde_json::from_value(region.end_calls().await?)?;
            entries.extend(log.calls.into_iter().filter(|call| call.tenant.as_deref() == Some("drill")));
        }
        Ok(Self(entries))
    }

    /// Returns the number of requests that were billed more than once. `callers` has the ids of the
    /// callers' requests; all others are jobs.
    pub fn billed_twice(&self, callers: &BTreeSet<&str>) -> BilledTwice {
        let mut billed = BTreeMap::<&str, u64>::new();
        let ids = self.0.iter().filter(|call| call.admitted).filter_map(|call| call.request_id.as_deref());
        ids.for_each(|id| *billed.entry(id).or_default() += 1);
        let twice = || billed.iter().filter(|(_, times)| **times > 1);
        let calls = twice().filter(|(id, _)| callers.contains(*id)).count();
        BilledTwice { calls, jobs: twice().count() - calls }
    }

    /// Returns the last model that worked on each request, by the id of the request.
    pub fn models(&self) -> BTreeMap<&str, &str> {
        self.0.iter().filter_map(|call| Some((call.request_id.as_deref()?, call.model_id.as_str()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Account {
        /// An account of calls that were billed, each with the id of its request and its model.
        pub fn of(calls: &[(&str, &str)]) -> Self {
            Self(calls.iter().map(|(id, model_id)| call(id, model_id, true)).collect())
        }
    }

    fn call(id: &str, model_id: &str, admitted: bool) -> Call {
        Call {
            model_id: model_id.to_owned(),
            tenant: Some("drill".to_owned()),
            request_id: Some(id.to_owned()),
            admitted,
        }
    }

    #[test]
    fn the_account_separates_calls_from_jobs_and_leaves_refused_calls_out() {
        let account = Account(vec![
            call("once", "near", false),
            call("once", "far", true),
            call("twice", "near", true),
            call("twice", "far", true),
            call("job", "near", true),
            call("job", "near", true),
            call("job", "near", true),
        ]);
        assert_eq!(account.billed_twice(&["once", "twice"].into()), BilledTwice { calls: 1, jobs: 1 });
        assert_eq!(account.models(), [("job", "near"), ("once", "far"), ("twice", "far")].into());
    }
}
