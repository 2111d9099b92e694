//! What a request will cost, before anyone has answered it.

use serde_json::{Map, Value, json};

use super::Ask;
use crate::{
    chat::{Kind, Problem, Usage},
    pool::{Model, Pool},
    price::quota_tokens,
    quota::{self, Charge, Limits, ReserveRule, ReserveSettings},
    tenant::Tenant,
};

/// How a request will be sent and what is reserved for it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The Converse body, with an output cap.
    pub body: Map<String, Value>,
    /// The cap, when it was set here, in tokens.
    pub max_tokens_set: Option<u64>,
    /// Estimated input and the most output.
    pub at_most: Usage,
}

impl Plan {
    /// Plans `ask` under the limits of `tenant` and of its `parent`.
    ///
    /// # Errors
    /// The request is larger than a whole limit, or asks for more output than the model can give: it can never be
    /// admitted.
    pub fn new(ask: &Ask, tenant: &Tenant, parent: Option<&Tenant>) -> Result<Self, Problem> {
        let input_tokens = quota::input_tokens(&ask.request.body);
        let most = ask.model.max_output_tokens;
        let (max_tokens, max_tokens_set) = match ask.request.max_tokens {
            Some(asked) if asked > most => {
                let told = format!("max_tokens is {asked}, but {} gives at most {most} output tokens.", ask.model.name);
                return Err(Problem::invalid("max_tokens", told));
            }
            Some(asked) => (asked, None),
            None => {
                let payers = [Some(tenant), parent].into_iter().flatten();
                let fitting = payers.filter_map(|payer| fitting_output(&ask.model, &payer.limits, input_tokens));
                let fitting = fitting.min().unwrap_or(most);
                let set = tenant.default_max_tokens.min(most).min(fitting).max(1);
                (set, Some(set))
            }
        };
        let at_most = Usage { input_tokens, output_tokens: max_tokens, ..Usage::default() };
        let plan = Self { body: with_cap(&ask.request.body, max_tokens), max_tokens_set, at_most };
        for payer in [Some(tenant), parent].into_iter().flatten() {
            let exceeded = quota::too_large(&payer.limits, &plan.tenant_charge(payer, &ask.model));
            if let Some((limit, cap)) = exceeded.first() {
                return Err(too_large(&payer.name, *limit, *cap, &plan.at_most));
            }
        }
        Ok(plan)
    }

    /// What `tenant` reserves, by its own rules: the dearest that any pool of the ladder can turn out, burndown included,
    /// unless it wants otherwise.
    pub fn tenant_charge(&self, tenant: &Tenant, model: &Model) -> Charge {
        let charges = model.ladder.iter().map(|pool| self.charge(pool, &tenant.reserve, ReserveRule::Conservative));
        charges.reduce(Charge::dearest).unwrap_or_default()
    }

    /// What `pool` reserves, by its own rules: the same as Bedrock does at the start of a call, unless it wants otherwise.
    pub fn pool_charge(&self, pool: &Pool) -> Charge {
        self.charge(pool, &pool.reserve, ReserveRule::Mirror)
    }

    fn charge(&self, pool: &Pool, rules: &ReserveSettings, default: ReserveRule) -> Charge {
        let tokens = |rule: Option<ReserveRule>| match rule.unwrap_or(default) {
            ReserveRule::Mirror => quota_tokens(&self.at_most, 1),
            ReserveRule::Conservative => quota_tokens(&self.at_most, pool.burndown),
        };
        Charge {
            requests: 1,
            minute_tokens: tokens(rules.tokens_per_minute),
            day_tokens: tokens(rules.tokens_per_day),
            cost_microusd: pool.prices.cost_microusd(&self.at_most),
        }
    }
}

/// What `usage` really cost on `pool`.
pub fn actual(usage: &Usage, pool: &Pool) -> Charge {
    let tokens = quota_tokens(usage, pool.burndown);
    Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, cost_microusd: pool.prices.cost_microusd(usage) }
}

/// The most output that still fits the smallest token limit, so that a small limit does not refuse a small request
/// for an output cap that its caller never asked for.
fn fitting_output(model: &Model, limits: &Limits, input_tokens: u64) -> Option<u64> {
    let burndown = model.ladder.iter().map(|pool| pool.burndown).max().unwrap_or(1).max(1);
    let smallest = [limits.tokens_per_minute, limits.tokens_per_day].into_iter().flatten().min()?;
    Some(smallest.saturating_sub(input_tokens) / burndown)
}

fn with_cap(body: &Map<String, Value>, max_tokens: u64) -> Map<String, Value> {
    let mut body = body.clone();
    let config = body.entry("inferenceConfig").or_insert_with(|| json!({}));
    if let Value::Object(config) = config {
        config.insert("maxTokens".into(), max_tokens.into());
    }
    body
}

fn too_large(payer: &str, limit: quota::Limit, cap: u64, at_most: &Usage) -> Problem {
    let name = limit.name();
    let kind = if limit == quota::Limit::MicrousdPerMonth { Kind::BudgetExhausted } else { Kind::Invalid };
    let told = format!(
        "This request can never be admitted: about {} input tokens and max_tokens {} exceed the whole limit {name} of {cap} \
         of tenant {payer}. Lower max_tokens or shorten the input.",
        at_most.input_tokens, at_most.output_tokens
    );
    Problem { param: Some("max_tokens".into()), limits: vec![name.into()], ..Problem::new(kind, told) }
}
