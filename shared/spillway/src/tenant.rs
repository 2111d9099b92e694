//! Who calls: a tenant, its limits, its keys and its callers.

mod caller;
pub mod endpoint;
mod event_type;
mod key;

use serde::{Deserialize, Serialize};

pub use caller::{CallerRecord, caller_id};
pub use endpoint::{Endpoint, Secret};
pub use event_type::EventType;
pub use key::{ApiKey, KeyRecord};

use crate::{
    check,
    quota::{Burst, BurstSettings, LONGEST_BURST_S, Limits, ReserveSettings},
};

/// One tenant, as the registry holds it and `spillway tenants apply` reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Unique name: 1 to 64 of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// What the tenant may use.
    #[serde(default)]
    pub limits: Limits,
    /// How much of a minute's limits may come at once; a whole minute's worth when absent.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub burst: BurstSettings,
    /// Which tokens a request reserves; the most that it can turn out when absent.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub reserve: ReserveSettings,
    /// The organisation that it belongs to: another tenant, whose limits hold for all its members together.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub parent: Option<String>,
    /// Tokens per minute that are its share of the pools. Above it a request may not fill a pool to the top, so that those
    /// within theirs find room. Absent: whatever it uses is within its share.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub committed_tokens_per_minute: Option<u64>,
    /// How much of a pool its requests may take.
    #[serde(default)]
    pub class: Class,
    /// What happens to a request that finds no room.
    #[serde(default)]
    pub overflow: Overflow,
    /// What happens to a request that is sent again.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub retries: Retries,
    /// The output cap given to requests that name none, in tokens.
    #[serde(default = "default_max_tokens")]
    pub default_max_tokens: u64,
    /// Whether requests reserve what recent answers took instead of the output that they ask for.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub right_sizing: RightSizing,
    /// How long a request may be held for room before it is refused, in milliseconds.
    #[serde(default)]
    pub hold_ms: u64,
    /// Public names of the models it may call; empty means all.
    #[serde(default)]
    pub models: Vec<String>,
    /// How long an accepted job may wait for room before it expires, in seconds.
    #[serde(default = "default_job_ttl_s")]
    pub job_ttl_s: u64,
    /// How many of its jobs may run at once, over all drains; any number when absent.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub drain_in_flight: Option<u64>,
    /// Counts the changes of this entry; set by the registry, fences older limits in the ledger.
    #[serde(default)]
    pub version: u64,
}

/// boto3 gives up a silent request after 60 s, so a longer hold is answered to nobody.
pub const MAX_HOLD_MS: u64 = 50_000;

/// The longest that SQS keeps a message (Amazon SQS Developer Guide, "Amazon SQS message quotas").
pub const LONGEST_JOB_TTL_S: u64 = 14 * 24 * 60 * 60;

fn default_max_tokens() -> u64 {
    1024
}

fn default_job_ttl_s() -> u64 {
    24 * 60 * 60
}

impl Tenant {
    /// What is wrong with this entry, each as `field: what would be right`; nothing if it can be used.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        check::name("name", &self.name, 64, "._-", &mut wrong);
        check::limits("limits", &self.limits, &mut wrong);
        check::burst("burst", &self.burst, &mut wrong);
        if let Some(parent) = &self.parent {
            check::name("parent", parent, 64, "._-", &mut wrong);
            if *parent == self.name {
                wrong.push("parent: a tenant cannot be its own parent".to_owned());
            }
        }
        if let Some(committed) = self.committed_tokens_per_minute {
            check::range("committed_tokens_per_minute", committed, 0..=check::MOST, &mut wrong);
        }
        check::range("default_max_tokens", self.default_max_tokens, 1..=check::MOST, &mut wrong);
        check::range("hold_ms", self.hold_ms, 0..=MAX_HOLD_MS, &mut wrong);
        check::range("job_ttl_s", self.job_ttl_s, 1..=LONGEST_JOB_TTL_S, &mut wrong);
        if let Some(at_once) = self.drain_in_flight {
            check::range("drain_in_flight", at_once, 1..=check::MOST, &mut wrong);
        }
        for model in &self.models {
            check::name("models", model, 128, "._:-", &mut wrong);
        }
        wrong
    }

    /// How its limits are spread: a minute's worth may come at once, unless it says otherwise.
    pub fn burst(&self) -> Burst {
        self.burst.or(LONGEST_BURST_S)
    }

    /// Whether the tenant may call the model with this public name.
    pub fn may_call(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|allowed| allowed == model)
    }
}

/// How much of a pool's capacity a request may fill, so that urgent work keeps headroom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A person is waiting: all of the pool.
    Interactive,
    /// Ordinary traffic: 90 % of the pool.
    #[default]
    Standard,
    /// Work that can wait, and every drained job: 70 % of the pool.
    Batch,
}

impl Class {
    /// How much of a pool its requests may fill, in percent.
    pub fn share_percent(self) -> u64 {
        match self {
            Self::Interactive => 100,
            Self::Standard => 90,
            Self::Batch => 70,
        }
    }

    /// Its name in the registry and in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Standard => "standard",
            Self::Batch => "batch",
        }
    }
}

/// How much output a request reserves. What an answer takes beyond that is charged when it is settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RightSizing {
    /// What it asks for.
    #[default]
    Off,
    /// What 99 of 100 recent answers of the same tenant and model did not exceed. The model is asked for as much as ever.
    Reserve,
    /// The same, and the model is asked for no more than that, so that Bedrock reserves less as well. One answer in a hundred
    /// is then cut short.
    Send,
}

/// What a tenant's requests may do when there is no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// One that can wait becomes a job (`Prefer: respond-async`, OpenAI's `background`); others are held, then refused.
    #[default]
    Queue,
    /// The same, and others wait for the answer of a job while their connection is kept alive.
    Wait,
    /// Nothing of this tenant is queued.
    Refuse,
}

/// What becomes of a request that its client sends again because it got no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retries {
    /// It joins the call that is under way, or gets its answer.
    #[default]
    Join,
    /// It is a call of its own: nothing of this tenant's answers is kept for another attempt.
    Run,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(json: serde_json::Value) -> Tenant {
        serde_json::from_value(json).expect("a tenant")
    }

    #[test]
    fn a_tenant_needs_no_more_than_a_name() {
        assert_eq!(tenant(serde_json::json!({"name": "team-a.eu_1"})).check(), Vec::<String>::new());
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let wrong = tenant(serde_json::json!({
            "name": "two words",
            "limits": {"requests_per_minute": 0, "tokens_per_day": 1_000_000_000_001_u64, "in_flight": 1},
            "default_max_tokens": 0,
            "hold_ms": 50_001,
            "job_ttl_s": 0,
            "drain_in_flight": 0,
            "models": ["good", "not/good"],
        }))
        .check();
        let expected = [
            r#"name: "two words" must be 1 to 64 of a-z A-Z 0-9 . _ -"#,
            "limits.requests_per_minute: 0 admits nothing; leave it out for no limit",
            "limits.tokens_per_day: 1000000000001 must be 1 to 1000000000000",
            "default_max_tokens: 0 must be 1 to 1000000000000",
            "hold_ms: 50001 must be 0 to 50000",
            "job_ttl_s: 0 must be 1 to 1209600",
            "drain_in_flight: 0 must be 1 to 1000000000000",
            r#"models: "not/good" must be 1 to 128 of a-z A-Z 0-9 . _ : -"#,
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn a_field_that_does_not_exist_is_refused() {
        let error =
            serde_json::from_value::<Tenant>(serde_json::json!({"name": "a", "limit": {}})).expect_err("unknown");
        assert!(error.to_string().contains("unknown field `limit`"), "{error}");
    }

    #[test]
    fn an_empty_list_of_models_allows_all() {
        assert!(tenant(serde_json::json!({"name": "a"})).may_call("any"));
        let one = tenant(serde_json::json!({"name": "a", "models": ["one"]}));
        assert!(one.may_call("one") && !one.may_call("two"));
    }
}
