//! Models, the pools that serve them, and the order in which pools are tried.

mod catalogue;
mod check;
mod on_silence;
mod permitted;
mod service_tier;
mod sharing;

use serde::{Deserialize, Serialize};

pub use catalogue::Catalogue;
pub use check::MAX_TIMEOUT;
pub use on_silence::OnSilence;
pub use service_tier::ServiceTier;
pub use sharing::share_equal_rungs;

use crate::{
    chat::Format,
    model_id::model_name,
    price::Prices,
    problem::SkippedPool,
    profile_scope::ProfileScope,
    quota::{Burst, BurstSettings, Limits, ReserveSettings, Tokenizer},
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
    /// The pools that the tenant of a request may not use, which its ladder lacks. Empty in the
    /// registry.
    #[serde(skip)]
    pub withheld: Vec<SkippedPool>,
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
    /// on-demand, each as listed. [`share_equal_rungs`] orders the pools of one rung.
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
    /// the ids of the pools determine. If they determine several, or a substitute has another, it
    /// is one whose estimate is not lower.
    pub fn tokenizer(&self) -> Tokenizer {
        let known = self.own_pools().filter_map(|pool| Tokenizer::for_model_id(&pool.model_id));
        let own = self.tokenizer.or_else(|| known.reduce(Tokenizer::max)).unwrap_or(Tokenizer::Unknown);
        let of_substitute = |pool: &Pool| Tokenizer::for_model_id(&pool.model_id).unwrap_or(Tokenizer::Unknown);
        self.substitutes().map(of_substitute).fold(own, Tokenizer::max)
    }

    /// Returns the format of the bodies for InvokeModel: the configured format, or the one that the
    /// ids of the pools determine, if they agree. A substitute may have another.
    pub fn format(&self) -> Option<Format> {
        let mut known = self.own_pools().filter_map(|pool| Format::for_model_id(&pool.model_id));
        self.format.or_else(|| {
            let first = known.next()?;
            known.all(|format| format == first).then_some(first)
        })
    }

    /// Returns the pools that are this model, as listed.
    pub fn own_pools(&self) -> impl Iterator<Item = &Pool> {
        self.ladder.iter().filter(|pool| !pool.substitute)
    }

    /// Returns the pools that are other models, as listed.
    pub fn substitutes(&self) -> impl Iterator<Item = &Pool> {
        self.ladder.iter().filter(|pool| pool.substitute)
    }

    /// Whether the conversation that a request belongs to can change the order of the pools.
    pub fn depends_on_conversation(&self) -> bool {
        self.ladder.iter().filter(|pool| pool.kind == PoolKind::OnDemand).count() > 1
            || self.ladder.iter().any(|pool| pool.rung.is_some())
    }
}

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
    /// Scope of the profile; absent if `model_id` shows it.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub scope: Option<ProfileScope>,
    /// Rung that it shares with the pools of its kind that have the same number. They are equal,
    /// and divide the requests by their health ([`share_equal_rungs`]). If absent, the pool is a
    /// rung by itself. The order of the rungs is the order of the list; the numbers only ascend
    /// with it.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub rung: Option<u16>,
    /// Whether it is another model, which answers in place of the listed one. Callers see it in
    /// `x-spillway-substitute`.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub substitute: bool,
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

    /// Returns where Bedrock may process what this pool is called with; `None` if that is not
    /// known.
    pub fn scope(&self) -> Option<ProfileScope> {
        ProfileScope::for_model_id(&self.model_id).or_else(|| self.scope.clone())
    }

    /// Returns the name of its model for callers, if it is a substitute: the id, without an ARN and
    /// its account number. If an ARN does not name a model, the name of the pool has to do.
    pub fn substitute_name(&self) -> Option<&str> {
        self.substitute.then(|| model_name(&self.model_id).unwrap_or(&self.name))
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
mod tests;
