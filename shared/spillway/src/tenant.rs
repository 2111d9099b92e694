//! Tenants, their limits, keys and callers.

mod bucket;
mod caller;
pub mod endpoint;
mod event_type;
mod guardrail;
mod key;
mod residency;

use serde::{Deserialize, Serialize};

pub use bucket::bucket_of_uri;
pub use caller::{CallerRecord, caller_id};
pub use endpoint::{Endpoint, Secret};
pub use event_type::EventType;
pub use guardrail::{GuardrailGrant, GuardrailUnits};
pub use key::{ApiKey, KeyRecord};
pub use residency::Residency;

use crate::{
    quota::{Allowance, Burst, BurstSettings, Limits, MAX_BURST_S, ReserveSettings},
    units::Millis,
    validate,
};

/// A tenant, as the registry stores it and `spillway tenants apply` reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Unique name: 1 to 64 of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// Limits of the tenant.
    #[serde(default)]
    pub limits: Limits,
    /// Burst of the limits per minute; a whole minute's worth if absent.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub burst: BurstSettings,
    /// Reserve rules; conservative if absent.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub reserve: ReserveSettings,
    /// Organisation of the tenant: another tenant, whose limits hold for all of its members
    /// together.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub parent: Option<String>,
    /// Committed share of the pools, in tokens per minute. A request above it may not fill a pool
    /// completely, so that tenants within their shares find room. If absent, all use is within the
    /// share.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub committed_tokens_per_minute: Option<u64>,
    /// Class, which determines the share of a pool that its requests may fill.
    #[serde(default)]
    pub class: Class,
    /// Policy for requests that are refused for lack of room.
    #[serde(default)]
    pub overflow: Overflow,
    /// Policy for requests that are sent again.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub retries: Retries,
    /// Output cap for requests without one, in tokens.
    #[serde(default = "default_max_tokens")]
    pub default_max_tokens: u64,
    /// Whether requests reserve the output of recent answers instead of the output that they ask
    /// for.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub right_sizing: RightSizing,
    /// Time for which a request may be held for room before it is refused.
    #[serde(rename = "hold_ms", default)]
    pub hold: Millis,
    /// Public names of the models that it may call; empty means all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Where its data may go. The residency of its parent holds as well.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub residency: Residency,
    /// Whether another model may answer its requests, where a ladder has a substitute. What its
    /// parent refuses is refused as well.
    #[serde(default = "default_substitutes", skip_serializing_if = "is_default_substitutes")]
    pub substitutes: bool,
    /// Buckets of S3 that its requests may name; none by default. Bedrock reads an object with the
    /// rights of the broker.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub buckets: Vec<String>,
    /// Guardrails that its requests may name; none by default.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub guardrails: Vec<GuardrailGrant>,
    /// Time for which a job may wait for room before it expires, in seconds.
    #[serde(default = "default_job_ttl_s")]
    pub job_ttl_s: u64,
    /// Maximum number of attempts at a job that called pools, all of which failed;
    /// [`DEFAULT_JOB_MAX_FAILURES`] if absent. Then the job fails.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub job_max_failures: Option<u64>,
    /// Maximum time for which the pools of a job may fail, in seconds from the first failure;
    /// [`DEFAULT_JOB_MAX_FAILING_S`] if absent. Then the job fails.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub job_max_failing_s: Option<u64>,
    /// Maximum number of its jobs that run concurrently, over all drains; unlimited if absent.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub drain_in_flight: Option<u64>,
    /// Maximum of its jobs that wait, lines of batches included; the default of
    /// [`Allowance::WaitingJobs`] if absent.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub max_waiting_jobs: Option<u64>,
    /// Maximum of its bytes in the bucket; the default of [`Allowance::StoredBytes`] if absent.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub max_stored_bytes: Option<u64>,
    /// Maximum of its requests in a minute that call no model; the default of
    /// [`Allowance::OtherRequests`] if absent.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub other_requests_per_minute: Option<u64>,
    /// Version of this entry. The registry increments it with each change, and it fences older
    /// limits in the ledger.
    #[serde(default)]
    pub version: u64,
}

/// Maximum hold. boto3 gives up a silent request after 60 s, so after a longer hold no client reads
/// the answer.
pub const MAX_HOLD: Millis = Millis::from_s(50);

/// Maximum time for which SQS keeps a message (Amazon SQS Developer Guide, "Amazon SQS message
/// quotas").
pub const MAX_JOB_TTL_S: u64 = 14 * 24 * 60 * 60;

/// Default of `job_max_failures`. With the pauses between attempts they last for 14 minutes.
const DEFAULT_JOB_MAX_FAILURES: u64 = 20;

/// Default of `job_max_failing_s`.
const DEFAULT_JOB_MAX_FAILING_S: u64 = 60 * 60;

fn default_max_tokens() -> u64 {
    1024
}

fn default_substitutes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_default_substitutes(substitutes: &bool) -> bool {
    *substitutes == default_substitutes()
}

fn default_job_ttl_s() -> u64 {
    24 * 60 * 60
}

impl Tenant {
    /// Returns the errors in this entry, each as `field: what would be right`; empty if it is
    /// valid.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        validate::name("name", &self.name, 64, "._-", &mut wrong);
        validate::limits("limits", &self.limits, &mut wrong);
        validate::burst("burst", &self.burst, &mut wrong);
        if let Some(parent) = &self.parent {
            validate::name("parent", parent, 64, "._-", &mut wrong);
            if *parent == self.name {
                wrong.push("parent: a tenant cannot be its own parent".to_owned());
            }
        }
        if let Some(committed) = self.committed_tokens_per_minute {
            validate::range("committed_tokens_per_minute", committed, 0..=validate::MAX_AMOUNT, &mut wrong);
        }
        validate::range("default_max_tokens", self.default_max_tokens, 1..=validate::MAX_AMOUNT, &mut wrong);
        validate::range("hold_ms", self.hold, Millis::ZERO..=MAX_HOLD, &mut wrong);
        validate::range("job_ttl_s", self.job_ttl_s, 1..=MAX_JOB_TTL_S, &mut wrong);
        validate::range("job_max_failures", self.job_max_failures(), 1..=validate::MAX_AMOUNT, &mut wrong);
        validate::range("job_max_failing_s", self.job_max_failing().as_ms() / 1_000, 1..=MAX_JOB_TTL_S, &mut wrong);
        if let Some(in_flight) = self.drain_in_flight {
            validate::range("drain_in_flight", in_flight, 1..=validate::MAX_AMOUNT, &mut wrong);
        }
        for allowance in Allowance::ALL {
            validate::range(allowance.name(), self.max(allowance), 1..=validate::MAX_AMOUNT, &mut wrong);
        }
        for model in &self.models {
            validate::name("models", model, 128, "._:-", &mut wrong);
        }
        self.residency.check(&mut wrong);
        for bucket in self.buckets.iter().filter(|bucket| !bucket::is_bucket(bucket)) {
            wrong.push(format!("buckets: {bucket:?} must be the name of an S3 bucket: 3 to 63 of a-z 0-9 . -"));
        }
        for guardrail in &self.guardrails {
            guardrail.check(&mut wrong);
        }
        wrong
    }

    /// Returns the burst of the limits per minute.
    pub fn burst(&self) -> Burst {
        self.burst.or(MAX_BURST_S)
    }

    /// Returns the maximum number of attempts at a job that called pools, all of which failed.
    pub fn job_max_failures(&self) -> u64 {
        self.job_max_failures.unwrap_or(DEFAULT_JOB_MAX_FAILURES)
    }

    /// Returns the maximum time for which the pools of a job may fail.
    pub fn job_max_failing(&self) -> Millis {
        Millis::from_s(self.job_max_failing_s.unwrap_or(DEFAULT_JOB_MAX_FAILING_S))
    }

    /// Returns the maximum of what `allowance` counts.
    pub fn max(&self, allowance: Allowance) -> u64 {
        let max = match allowance {
            Allowance::WaitingJobs => self.max_waiting_jobs,
            Allowance::StoredBytes => self.max_stored_bytes,
            Allowance::OtherRequests => self.other_requests_per_minute,
        };
        max.unwrap_or_else(|| allowance.default_max())
    }

    /// Returns whether the tenant may call the model with this public name.
    pub fn may_call(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|allowed| allowed == model)
    }

    /// Returns the grant for `version` of the guardrail with this id or ARN.
    pub fn guardrail(&self, id: &str, version: &str) -> Option<&GuardrailGrant> {
        self.guardrails.iter().find(|grant| grant.covers(id, version))
    }
}

/// Class of a request, which determines its share of a pool, so that urgent work keeps headroom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A person waits for the answer: all of the pool.
    Interactive,
    /// Ordinary traffic: 90 % of the pool.
    #[default]
    Standard,
    /// Work that can wait, and every job: 70 % of the pool.
    Batch,
}

impl Class {
    /// Returns the share of a pool that its requests may fill, in percent.
    pub fn share_percent(self) -> u64 {
        match self {
            Self::Interactive => 100,
            Self::Standard => 90,
            Self::Batch => 70,
        }
    }

    /// Returns the name in the registry and in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Standard => "standard",
            Self::Batch => "batch",
        }
    }
}

/// Output that a request reserves. The settlement charges the rest of a longer answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RightSizing {
    /// The output that it asks for.
    #[default]
    Off,
    /// The 99th percentile of recent answers of the same tenant and model. The model is still asked
    /// for the full output.
    Reserve,
    /// The same, and the model is asked for no more than that, so that Bedrock reserves less as
    /// well. About one answer in a hundred is then cut short.
    Send,
}

/// Policy for a tenant's requests that are refused for lack of room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Requests that opt in become jobs (`Prefer: respond-async`, OpenAI's `background`). Other
    /// requests are held, then refused.
    #[default]
    Queue,
    /// Every request becomes a job. Callers that did not opt in wait for the job's answer while
    /// their connection is kept alive.
    Wait,
    /// No request becomes a job.
    Refuse,
}

/// Policy for a request that a client sends again because it got no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retries {
    /// It joins the call in progress, or gets its answer.
    #[default]
    Join,
    /// It runs as a new call. Answers of this tenant are not kept for other attempts.
    Run,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(json: serde_json::Value) -> Tenant {
        serde_json::from_value(json).expect("a tenant")
    }

    #[test]
    fn a_tenant_needs_only_a_name() {
        assert_eq!(tenant(serde_json::json!({"name": "team-a.eu_1"})).check(), Vec::<String>::new());
    }

    #[test]
    fn all_errors_are_reported_together() {
        let wrong = tenant(serde_json::json!({
            "name": "two words",
            "limits": {"requests_per_minute": 0, "tokens_per_day": 1_000_000_000_001_u64, "in_flight": 1},
            "default_max_tokens": 0,
            "hold_ms": 50_001,
            "job_ttl_s": 0,
            "job_max_failures": 0,
            "job_max_failing_s": 1_209_601,
            "drain_in_flight": 0,
            "max_waiting_jobs": 0,
            "max_stored_bytes": 1_000_000_000_001_u64,
            "other_requests_per_minute": 0,
            "models": ["good", "not/good"],
            "residency": {"regions": ["eu west"], "scopes": []},
            "buckets": ["good-bucket", "s3://bucket"],
            "guardrails": [{"id": "abc123"}, {"id": "ABC"}],
        }))
        .check();
        let expected = [
            r#"name: "two words" must be 1 to 64 of a-z A-Z 0-9 . _ -"#,
            "limits.requests_per_minute: 0 admits nothing; leave it out for no limit",
            "limits.tokens_per_day: 1000000000001 must be 1 to 1000000000000",
            "default_max_tokens: 0 must be 1 to 1000000000000",
            "hold_ms: 50001 must be 0 to 50000",
            "job_ttl_s: 0 must be 1 to 1209600",
            "job_max_failures: 0 must be 1 to 1000000000000",
            "job_max_failing_s: 1209601 must be 1 to 1209600",
            "drain_in_flight: 0 must be 1 to 1000000000000",
            "max_waiting_jobs: 0 must be 1 to 1000000000000",
            "max_stored_bytes: 1000000000001 must be 1 to 1000000000000",
            "other_requests_per_minute: 0 must be 1 to 1000000000000",
            r#"models: "not/good" must be 1 to 128 of a-z A-Z 0-9 . _ : -"#,
            "residency.scopes: an empty list permits nothing; leave it out to permit everything",
            r#"residency.regions: "eu west" must be 1 to 32 of a-z A-Z 0-9 -"#,
            r#"buckets: "s3://bucket" must be the name of an S3 bucket: 3 to 63 of a-z 0-9 . -"#,
            r#"guardrails.id: "ABC" must be the id or the ARN of a guardrail"#,
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn an_entry_without_resources_is_stored_as_before() {
        let stored = serde_json::to_value(tenant(serde_json::json!({"name": "a"}))).expect("a document");
        for name in ["buckets", "guardrails", "job_max_failures", "job_max_failing_s"] {
            assert!(stored.get(name).is_none(), "{name} in {stored}");
        }
        let fields = serde_json::json!({"name": "a", "buckets": ["media"], "guardrails": [{"id": "abc"}]});
        let stored = serde_json::to_value(tenant(fields.clone())).expect("a document");
        assert_eq!((&stored["buckets"], &stored["guardrails"]), (&fields["buckets"], &fields["guardrails"]));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error =
            serde_json::from_value::<Tenant>(serde_json::json!({"name": "a", "limit": {}})).expect_err("unknown");
        assert!(error.to_string().contains("unknown field `limit`"), "{error}");
    }

    #[test]
    fn an_empty_list_of_models_allows_every_model() {
        assert!(tenant(serde_json::json!({"name": "a"})).may_call("any"));
        let limited = tenant(serde_json::json!({"name": "a", "models": ["one"]}));
        assert!(limited.may_call("one") && !limited.may_call("two"));
    }
}
