//! Models, the pools that serve them, and the order in which pools are tried.

mod catalogue;
mod on_silence;
mod service_tier;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

pub use catalogue::Catalogue;
pub use on_silence::OnSilence;
pub use service_tier::ServiceTier;

use crate::{
    chat::Format,
    price::Prices,
    quota::{self, Burst, BurstSettings, Limits, ReserveSettings, Tokenizer},
    tenant::Class,
    units::Millis,
    validate,
};

/// A model and its pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Public name, valid in every dialect: 1 to 128 of `a-z A-Z 0-9 . _ : -`.
    pub name: String,
    /// Other ids of this model, such as Bedrock ids that callers already use. The ids of its pools
    /// are valid without being listed.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Maximum output tokens of one request.
    #[serde(default = "default_max_output_tokens")]
    pub max_output_tokens: u64,
    /// Maximum duration of one call. A reservation expires after it.
    #[serde(rename = "timeout_ms", default = "default_timeout")]
    pub timeout: Millis,
    /// Tokenizer of the model; absent if the ids of its pools determine it.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub tokenizer: Option<Tokenizer>,
    /// Format of the model's native bodies; absent if the ids of its pools determine it.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub format: Option<Format>,
    /// Pools, in the order of the ladder.
    pub ladder: Vec<Pool>,
    /// Version of this entry; the registry increments it with each change.
    #[serde(default)]
    pub version: u64,
}

fn default_max_output_tokens() -> u64 {
    64_000
}

fn default_timeout() -> Millis {
    Millis::from_s(300)
}

impl Model {
    /// Returns the pools in the order in which they are tried: provisioned capacity first, then
    /// on-demand, each as listed.
    pub fn rungs(&self) -> impl Iterator<Item = &Pool> {
        let by_kind = |kind| self.ladder.iter().filter(move |pool| pool.kind == kind);
        by_kind(PoolKind::Provisioned).chain(by_kind(PoolKind::OnDemand))
    }

    /// Returns the pools in the order for work that can wait: provisioned capacity first, then
    /// on-demand from the cheapest, as listed where prices are equal. So the flex tier, which may
    /// delay requests for half the price, comes before the default tier.
    ///
    /// If a pool has no prices, the prices of the tiers order the pools. They are multiples of the
    /// default tier's (Amazon Bedrock User Guide, "Service tiers for optimizing performance and
    /// cost").
    pub fn rungs_by_price(&self) -> Vec<&Pool> {
        let mut rungs: Vec<&Pool> = self.rungs().collect();
        let paid = rungs.partition_point(|pool| pool.kind == PoolKind::Provisioned);
        let are_priced = rungs[paid..].iter().all(|pool| pool.prices != Prices::default());
        rungs[paid..].sort_by(|left, right| {
            let price = |pool: &Pool| if are_priced { pool.prices.typical() } else { pool.tier_price() };
            price(left).total_cmp(&price(right))
        });
        rungs
    }

    /// Returns the tokenizer for estimating the input: the configured tokenizer, or the one that
    /// the ids of the pools determine. If they determine several, it is one whose estimate is not
    /// lower.
    pub fn tokenizer(&self) -> Tokenizer {
        let known = || self.ladder.iter().filter_map(|pool| Tokenizer::for_model_id(&pool.model_id));
        self.tokenizer.or_else(|| known().reduce(Tokenizer::max)).unwrap_or(Tokenizer::Unknown)
    }

    /// Returns the format of the bodies for InvokeModel: the configured format, or the one that the
    /// ids of the pools determine, if they agree.
    pub fn format(&self) -> Option<Format> {
        let mut known = self.ladder.iter().filter_map(|pool| Format::for_model_id(&pool.model_id));
        self.format.or_else(|| {
            let first = known.next()?;
            known.all(|format| format == first).then_some(first)
        })
    }

    /// Returns the errors in this entry, each as `field: what would be right`; empty if it is
    /// valid.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        validate::name("name", &self.name, 128, "._:-", &mut wrong);
        for alias in &self.aliases {
            validate::name("aliases", alias, MAX_MODEL_ID, "._:/-", &mut wrong);
        }
        validate::range("max_output_tokens", self.max_output_tokens, 1..=validate::MAX_AMOUNT, &mut wrong);
        validate::range("timeout_ms", self.timeout, MIN_TIMEOUT..=MAX_TIMEOUT, &mut wrong);
        if self.ladder.is_empty() {
            wrong.push("ladder: must have at least one pool".to_owned());
        }
        let mut names = HashSet::new();
        for (rung, pool) in self.ladder.iter().enumerate() {
            pool.check(&format!("ladder[{rung}]"), &mut wrong);
            if !names.insert(&pool.name) {
                wrong.push(format!("ladder[{rung}].name: {:?} is the name of an earlier pool too", pool.name));
            }
        }
        wrong
    }
}

impl Pool {
    fn check(&self, field: &str, wrong: &mut Vec<String>) {
        validate::name(&format!("{field}.name"), &self.name, 64, "._-", wrong);
        validate::name(&format!("{field}.model_id"), &self.model_id, MAX_MODEL_ID, "._:/-", wrong);
        if let Some(region) = &self.region {
            validate::name(&format!("{field}.region"), region, 32, "-", wrong);
        }
        if let Some(ServiceTier::Unknown(tier)) = &self.service_tier {
            wrong.push(format!("{field}.service_tier: {tier:?} must be one of default, flex, priority, reserved"));
        }
        validate::limits(&format!("{field}.limits"), &self.limits, wrong);
        validate::burst(&format!("{field}.burst"), &self.burst, wrong);
        validate::range(format_args!("{field}.excess_percent"), self.excess_percent, 1..=100, wrong);
        validate::range(format_args!("{field}.burndown"), self.burndown, 1..=100, wrong);
        validate::prices(&format!("{field}.prices"), &self.prices, wrong);
        let timeouts = [("first_byte_timeout_ms", self.first_byte_timeout), ("idle_timeout_ms", self.idle_timeout)];
        for (name, timeout) in timeouts {
            validate::range(format_args!("{field}.{name}"), timeout, MIN_TIMEOUT..=MAX_TIMEOUT, wrong);
        }
    }
}

/// Maximum length of the `modelId` of a Converse call (Amazon Bedrock API Reference, "Converse").
const MAX_MODEL_ID: usize = 2048;

/// Minimum timeout of a call.
const MIN_TIMEOUT: Millis = Millis::from_s(1);

/// Maximum timeout of a call: a Lambda function ends after 15 minutes.
pub const MAX_TIMEOUT: Millis = Millis::from_s(15 * 60);

const _: () = assert!(MAX_TIMEOUT.as_ms() <= quota::MAX_CALL.as_ms(), "longer calls would exceed the day's bound");

/// One source of model capacity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Name, unique within the model. Callers see it in `x-spillway-pool`.
    pub name: String,
    /// Whether capacity is paid for in advance or by use.
    pub kind: PoolKind,
    /// Id to call Bedrock with: a model id, an inference profile, or a provisioned-throughput ARN.
    pub model_id: String,
    /// Region to call; absent means the broker's own region.
    #[serde(default)]
    pub region: Option<String>,
    /// Service tier to request from Bedrock.
    #[serde(default)]
    pub service_tier: Option<ServiceTier>,
    /// Limits of the pool. A pool without limits needs no ledger write.
    #[serde(default)]
    pub limits: Limits,
    /// Burst of the limits per minute. If absent, an on-demand pool is spent almost evenly, because
    /// Bedrock would refuse a burst, or the burst would repeat every minute. The tokens of a
    /// provisioned pool carry over to the next minutes unless it is strict.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub burst: BurstSettings,
    /// Reserve rules; as Bedrock reserves if absent.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub reserve: ReserveSettings,
    /// Share of this pool that tenants above their committed share may fill, in percent of their
    /// class's share.
    #[serde(default = "default_excess_percent", skip_serializing_if = "is_default_excess_percent")]
    pub excess_percent: u64,
    /// Quota tokens per output token: 5 for Claude 3.7 and later, else 1 (Amazon Bedrock User
    /// Guide, "How tokens are counted in Amazon Bedrock").
    #[serde(default = "default_burndown")]
    pub burndown: u64,
    /// Prices of tokens in this pool; zero for capacity that is paid for in advance.
    #[serde(default)]
    pub prices: Prices,
    /// Maximum time until the first event of a streamed answer. A whole answer has the timeout of
    /// the model.
    #[serde(
        rename = "first_byte_timeout_ms",
        default = "default_first_byte_timeout",
        skip_serializing_if = "is_default_first_byte_timeout"
    )]
    pub first_byte_timeout: Millis,
    /// Maximum time between two events of a streamed answer.
    #[serde(
        rename = "idle_timeout_ms",
        default = "default_idle_timeout",
        skip_serializing_if = "is_default_idle_timeout"
    )]
    pub idle_timeout: Millis,
    /// What becomes of a request whose stream has no event in time.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub on_silence: OnSilence,
}

/// Default burst of a pool, in seconds.
const DEFAULT_BURST_S: u64 = 5;

/// Default burst of a pool's tokens that carry over, in seconds. It is the longest burst for which
/// the pool keeps to a token bucket that holds a minute's worth.
const DEFAULT_CARRY_BURST_S: u64 = 35;

impl Pool {
    /// Returns the burst of the limits per minute. What a provisioned pool does not use in a minute
    /// is paid for, so it carries over.
    pub fn burst(&self) -> Burst {
        let burst = self.burst.or(DEFAULT_BURST_S);
        if self.kind == PoolKind::OnDemand || burst.is_strict {
            return burst;
        }
        Burst { tokens_s: self.burst.tokens_s.unwrap_or(DEFAULT_CARRY_BURST_S), carries_over: true, ..burst }
    }

    /// Returns the price of its tier as a multiple of the default tier's.
    fn tier_price(&self) -> f64 {
        self.service_tier.as_ref().map_or(1.0, ServiceTier::price)
    }

    /// Returns the share of the pool that a request of `class` may fill, in percent. `is_excess`
    /// means that the tenant is above its committed share.
    pub fn share_percent(&self, class: Class, is_excess: bool) -> u64 {
        let excess_percent = if is_excess { self.excess_percent } else { 100 };
        class.share_percent() * excess_percent / 100
    }
}

fn default_excess_percent() -> u64 {
    90
}

fn is_default_excess_percent(percent: &u64) -> bool {
    *percent == default_excess_percent()
}

fn default_first_byte_timeout() -> Millis {
    Millis::from_s(60)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_default_first_byte_timeout(timeout: &Millis) -> bool {
    *timeout == default_first_byte_timeout()
}

fn default_idle_timeout() -> Millis {
    Millis::from_s(120)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_default_idle_timeout(timeout: &Millis) -> bool {
    *timeout == default_idle_timeout()
}

fn default_burndown() -> u64 {
    1
}

/// Payment for a pool, which also determines its place on the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// Provisioned throughput or a reserved tier: paid by the hour, so it is used first.
    Provisioned,
    /// On-demand, by model id or inference profile: paid by the token.
    OnDemand,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(json: serde_json::Value) -> Model {
        serde_json::from_value(json).expect("a model")
    }

    #[test]
    fn a_model_needs_a_name_and_a_pool() {
        let least = model(serde_json::json!({
            "name": "claude:sonnet-4.5",
            "ladder": [{"name": "pt", "kind": "provisioned",
                "model_id": "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc"}],
        }));
        assert_eq!(least.check(), Vec::<String>::new());
        assert_eq!(
            model(serde_json::json!({"name": "m", "ladder": []})).check(),
            ["ladder: must have at least one pool"]
        );
    }

    #[test]
    fn all_errors_are_reported_together() {
        let wrong = model(serde_json::json!({
            "name": "",
            "aliases": ["has space"],
            "max_output_tokens": 0,
            "timeout_ms": 999,
            "ladder": [
                {"name": "a", "kind": "provisioned", "model_id": "m", "burndown": 0, "service_tier": "fast"},
                {"name": "a", "kind": "on_demand", "model_id": "", "region": "eu west",
                    "limits": {"in_flight": 0}, "prices": {"input": -0.5}},
            ],
        }))
        .check();
        let expected = [
            r#"name: "" must be 1 to 128 of a-z A-Z 0-9 . _ : -"#,
            r#"aliases: "has space" must be 1 to 2048 of a-z A-Z 0-9 . _ : / -"#,
            "max_output_tokens: 0 must be 1 to 1000000000000",
            "timeout_ms: 999 must be 1000 to 900000",
            r#"ladder[0].service_tier: "fast" must be one of default, flex, priority, reserved"#,
            "ladder[0].burndown: 0 must be 1 to 100",
            r#"ladder[1].model_id: "" must be 1 to 2048 of a-z A-Z 0-9 . _ : / -"#,
            r#"ladder[1].region: "eu west" must be 1 to 32 of a-z A-Z 0-9 -"#,
            "ladder[1].limits.in_flight: 0 admits nothing; leave it out for no limit",
            "ladder[1].prices.input: -0.5 must be 0 to 1000000",
            r#"ladder[1].name: "a" is the name of an earlier pool too"#,
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn the_tokenizer_is_configured_or_follows_from_the_pools() {
        let tokenizer = |fields: serde_json::Value, ids: &[&str]| {
            let pool = |id| serde_json::json!({"name": id, "kind": "on_demand", "model_id": id});
            let mut json = serde_json::json!({"name": "m", "ladder": ids.iter().map(pool).collect::<Vec<_>>()});
            json.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
            model(json).tokenizer()
        };
        let provisioned = "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc";
        let (opus_4_6, opus_4_7, nova) =
            ("anthropic.claude-opus-4-6-v1", "us.anthropic.claude-opus-4-7", "amazon.nova-lite-v1:0");
        let nothing = serde_json::json!({});
        assert_eq!(tokenizer(serde_json::json!({"tokenizer": "qwen3"}), &[nova]), Tokenizer::Qwen3);
        assert_eq!(tokenizer(nothing.clone(), &[provisioned, nova]), Tokenizer::Amazon);
        assert_eq!(tokenizer(nothing.clone(), &[opus_4_6, opus_4_7]), Tokenizer::Claude47);
        assert_eq!(tokenizer(nothing.clone(), &[opus_4_7, nova]), Tokenizer::Unknown);
        assert_eq!(tokenizer(nothing, &[provisioned]), Tokenizer::Unknown);
    }

    #[test]
    fn work_that_can_wait_takes_the_cheapest_pool_first() {
        let pool = |name: &str, kind: &str, tier: Option<&str>, price: f64| {
            serde_json::json!({"name": name, "kind": kind, "model_id": "m", "service_tier": tier,
                "prices": {"input": price, "output": 5.0 * price}})
        };
        let names = |pools: &[serde_json::Value]| -> Vec<String> {
            let model = model(serde_json::json!({"name": "m", "ladder": pools}));
            model.rungs_by_price().into_iter().map(|pool| pool.name.clone()).collect()
        };
        let (default, profile) = (pool("default", "on_demand", None, 1.0), pool("profile", "on_demand", None, 1.1));
        let (flex, paid) = (pool("flex", "on_demand", Some("flex"), 0.5), pool("paid", "provisioned", None, 0.0));
        let listed = [profile, default.clone(), flex.clone(), paid.clone(), pool("equal", "on_demand", None, 1.0)];
        assert_eq!(names(&listed), ["paid", "flex", "default", "equal", "profile"]);
        let unpriced = [
            pool("urgent", "on_demand", Some("priority"), 0.0),
            default,
            pool("free", "on_demand", None, 0.0),
            pool("patient", "on_demand", Some("flex"), 0.0),
            paid,
        ];
        assert_eq!(names(&unpriced), ["paid", "patient", "default", "free", "urgent"]);
    }

    #[test]
    fn a_price_that_is_not_a_number_is_refused() {
        for price in [f64::NAN, f64::INFINITY] {
            let mut model = model(serde_json::json!({
                "name": "m", "ladder": [{"name": "a", "kind": "on_demand", "model_id": "m"}],
            }));
            model.ladder[0].prices.cache_write = price;
            assert_eq!(model.check().len(), 1, "{price}");
        }
    }
}
