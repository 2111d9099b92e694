//! Where capacity comes from: models, their ladders of pools, and the order to try them in.

mod catalogue;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

pub use catalogue::Catalogue;

use crate::{
    chat::Format,
    check,
    price::Prices,
    quota::{Burst, BurstSettings, Limits, ReserveSettings, Tokenizer},
    tenant::Class,
};

/// A model as callers name it, and the pools that can answer for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The public name, valid in every dialect: 1 to 128 of `a-z A-Z 0-9 . _ : -`.
    pub name: String,
    /// Other ids that mean this model, such as the Bedrock ids that callers already use. Pool ids count by themselves.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The most output tokens the model can give to one request.
    #[serde(default = "default_max_output_tokens")]
    pub max_output_tokens: u64,
    /// How long one call may take, in milliseconds. A reservation expires after it.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// What the model splits its input with, where the ids of its pools do not tell.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub tokenizer: Option<Tokenizer>,
    /// The format of the model's own bodies, where the ids of its pools do not tell.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub format: Option<Format>,
    /// The pools, in the order of the ladder.
    pub ladder: Vec<Pool>,
    /// Counts the changes of this entry; set by the registry.
    #[serde(default)]
    pub version: u64,
}

fn default_max_output_tokens() -> u64 {
    64_000
}

fn default_timeout_ms() -> u64 {
    300_000
}

impl Model {
    /// The pools in the order to try them: what is paid for ahead comes first, then on-demand, each as listed.
    pub fn rungs(&self) -> impl Iterator<Item = &Pool> {
        let of_kind = |kind| self.ladder.iter().filter(move |pool| pool.kind == kind);
        of_kind(PoolKind::Provisioned).chain(of_kind(PoolKind::OnDemand))
    }

    /// The same for work that can wait: what is paid for ahead first, then on-demand from the cheapest, as listed where they
    /// cost the same. A tier that may make requests wait for half the price, flex, so comes before the default one, while
    /// somebody who waits for an answer gets the pools as they are listed.
    ///
    /// Where a pool has no prices, those of the tiers order them, which are multiples of the default's (Amazon Bedrock User
    /// Guide, "Service tiers for optimizing performance and cost").
    pub fn rungs_by_price(&self) -> Vec<&Pool> {
        let mut rungs: Vec<&Pool> = self.rungs().collect();
        let paid = rungs.partition_point(|pool| pool.kind == PoolKind::Provisioned);
        let are_priced = rungs[paid..].iter().all(|pool| pool.prices != Prices::default());
        rungs[paid..].sort_by(|one, other| {
            let price = |pool: &Pool| if are_priced { pool.prices.typical() } else { pool.tier_price() };
            price(one).total_cmp(&price(other))
        });
        rungs
    }

    /// What the input is to be estimated with: what is set, else what the ids of the pools tell. Where they tell different
    /// ones, it is one that estimates no less.
    pub fn tokenizer(&self) -> Tokenizer {
        let told = || self.ladder.iter().filter_map(|pool| Tokenizer::of_model_id(&pool.model_id));
        self.tokenizer.or_else(|| told().reduce(Tokenizer::or_more)).unwrap_or(Tokenizer::Unknown)
    }

    /// The format of the bodies that InvokeModel takes for it: what is set, else what the ids of the pools tell, if they
    /// agree.
    pub fn format(&self) -> Option<Format> {
        let mut told = self.ladder.iter().filter_map(|pool| Format::for_model_id(&pool.model_id));
        self.format.or_else(|| {
            let first = told.next()?;
            told.all(|other| other == first).then_some(first)
        })
    }

    /// What is wrong with this entry, each as `field: what would be right`; nothing if it can be used.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        check::name("name", &self.name, 128, "._:-", &mut wrong);
        for alias in &self.aliases {
            check::name("aliases", alias, LONGEST_MODEL_ID, "._:/-", &mut wrong);
        }
        check::range("max_output_tokens", self.max_output_tokens, 1..=check::MOST, &mut wrong);
        check::range("timeout_ms", self.timeout_ms, 1_000..=LONGEST_TIMEOUT_MS, &mut wrong);
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
        check::name(&format!("{field}.name"), &self.name, 64, "._-", wrong);
        check::name(&format!("{field}.model_id"), &self.model_id, LONGEST_MODEL_ID, "._:/-", wrong);
        if let Some(region) = &self.region {
            check::name(&format!("{field}.region"), region, 32, "-", wrong);
        }
        if let Some(tier) = self.service_tier.as_deref()
            && !SERVICE_TIERS.contains(&tier)
        {
            let tiers = SERVICE_TIERS.join(", ");
            wrong.push(format!("{field}.service_tier: {tier:?} must be one of {tiers}"));
        }
        check::limits(&format!("{field}.limits"), &self.limits, wrong);
        check::burst(&format!("{field}.burst"), &self.burst, wrong);
        check::range(format_args!("{field}.excess_percent"), self.excess_percent, 1..=100, wrong);
        check::range(format_args!("{field}.burndown"), self.burndown, 1..=100, wrong);
        check::prices(&format!("{field}.prices"), &self.prices, wrong);
    }
}

/// The longest `modelId` of a Converse call (Amazon Bedrock API Reference, "Converse").
const LONGEST_MODEL_ID: usize = 2048;

/// A Lambda function ends after 15 minutes.
pub const LONGEST_TIMEOUT_MS: u64 = 900_000;

/// The values of `serviceTier.type` (Amazon Bedrock API Reference, "ServiceTier").
const SERVICE_TIERS: [&str; 4] = ["default", "flex", "priority", "reserved"];

/// One source of model capacity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Name, unique in its model; callers see it in `x-spillway-pool`.
    pub name: String,
    /// Whether capacity is paid for ahead or by use.
    pub kind: PoolKind,
    /// What Bedrock is called with: a model id, an inference profile, or a provisioned-throughput ARN.
    pub model_id: String,
    /// The region to call, where it is not the broker's own.
    #[serde(default)]
    pub region: Option<String>,
    /// Bedrock's `serviceTier.type`, where one is wanted.
    #[serde(default)]
    pub service_tier: Option<String>,
    /// What this pool can take; pools without limits cost no ledger write.
    #[serde(default)]
    pub limits: Limits,
    /// How much of a minute's limits may come at once; about even when absent, since a burst would be refused by Bedrock or
    /// echo every minute.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub burst: BurstSettings,
    /// Which tokens a request reserves; as Bedrock itself does when absent.
    #[serde(default, skip_serializing_if = "check::is_default")]
    pub reserve: ReserveSettings,
    /// How much of this pool tenants above their committed share may fill, in percent of what their class may.
    #[serde(default = "default_excess_percent", skip_serializing_if = "is_default_excess_percent")]
    pub excess_percent: u64,
    /// Quota tokens per output token: 5 for Claude 3.7 and later, else 1
    /// (Amazon Bedrock User Guide, "How tokens are counted in Amazon Bedrock").
    #[serde(default = "default_burndown")]
    pub burndown: u64,
    /// What a token costs here; zero for capacity that is already paid for.
    #[serde(default)]
    pub prices: Prices,
}

/// The burst of a pool that sets none, in seconds.
const DEFAULT_BURST_S: u64 = 5;

impl Pool {
    /// How its limits are spread: about evenly, unless it says otherwise.
    pub fn burst(&self) -> Burst {
        self.burst.or(DEFAULT_BURST_S)
    }

    /// What its tier costs, as a multiple of the default one.
    fn tier_price(&self) -> f64 {
        match self.service_tier.as_deref() {
            Some("flex") => 0.5,
            Some("priority") => 1.75,
            _ => 1.0,
        }
    }

    /// How much of it a request of `class` may fill, in percent; `is_excess` if its tenant is above its committed share.
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

fn default_burndown() -> u64 {
    1
}

/// How a pool is paid for, which is also its place on the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// Provisioned throughput or a reserved tier: paid by the hour, so used first.
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
    fn a_model_needs_a_name_and_one_pool() {
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
    fn everything_that_is_wrong_is_told_at_once() {
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
    fn the_tokenizer_is_what_is_set_else_what_the_pools_tell() {
        let of = |fields: serde_json::Value, ids: &[&str]| {
            let pool = |id| serde_json::json!({"name": id, "kind": "on_demand", "model_id": id});
            let mut json = serde_json::json!({"name": "m", "ladder": ids.iter().map(pool).collect::<Vec<_>>()});
            json.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
            model(json).tokenizer()
        };
        let provisioned = "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc";
        let (opus_4_6, opus_4_7, nova) =
            ("anthropic.claude-opus-4-6-v1", "us.anthropic.claude-opus-4-7", "amazon.nova-lite-v1:0");
        let nothing = serde_json::json!({});
        assert_eq!(of(serde_json::json!({"tokenizer": "qwen3"}), &[nova]), Tokenizer::Qwen3);
        assert_eq!(of(nothing.clone(), &[provisioned, nova]), Tokenizer::Amazon);
        assert_eq!(of(nothing.clone(), &[opus_4_6, opus_4_7]), Tokenizer::Claude47);
        assert_eq!(of(nothing.clone(), &[opus_4_7, nova]), Tokenizer::Unknown);
        assert_eq!(of(nothing, &[provisioned]), Tokenizer::Unknown);
    }

    #[test]
    fn work_that_can_wait_takes_the_cheapest_first_and_as_listed_among_equals() {
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
    fn a_price_that_is_no_number_is_refused() {
        for price in [f64::NAN, f64::INFINITY] {
            let mut model = model(serde_json::json!({
                "name": "m", "ladder": [{"name": "a", "kind": "on_demand", "model_id": "m"}],
            }));
            model.ladder[0].prices.cache_write = price;
            assert_eq!(model.check().len(), 1, "{price}");
        }
    }
}
