//! What a request will cost, before anyone has answered it.

use serde_json::{Map, Value, json};

use super::Ask;
use crate::{
    chat::{Kind, Problem, Usage},
    pool::{Model, Pool},
    price::quota_tokens,
    quota::{self, Charge, Limits},
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
    /// Plans `ask` under the limits of `tenant`.
    ///
    /// # Errors
    /// The request is larger than a whole limit, or asks for more output than the model can give: it can never be
    /// admitted.
    pub fn new(ask: &Ask, tenant: &Tenant) -> Result<Self, Problem> {
        let input_tokens = quota::input_tokens(&ask.request.body);
        let most = ask.model.max_output_tokens;
        let (max_tokens, max_tokens_set) = match ask.request.max_tokens {
            Some(asked) if asked > most => {
                let told = format!("max_tokens is {asked}, but {} gives at most {most} output tokens.", ask.model.name);
                return Err(Problem::invalid("max_tokens", told));
            }
            Some(asked) => (asked, None),
            None => {
                let fitting = fitting_output(&ask.model, &tenant.limits, input_tokens).unwrap_or(most);
                let set = tenant.default_max_tokens.min(most).min(fitting).max(1);
                (set, Some(set))
            }
        };
        let at_most = Usage { input_tokens, output_tokens: max_tokens, ..Usage::default() };
        let plan = Self { body: with_cap(&ask.request.body, max_tokens), max_tokens_set, at_most };
        match quota::too_large(&tenant.limits, &plan.tenant_charge(&ask.model)).first() {
            Some((limit, cap)) => Err(too_large(*limit, *cap, input_tokens, max_tokens)),
            None => Ok(plan),
        }
    }

    /// What the tenant reserves: the dearest that any pool of the ladder can turn out, burndown included.
    pub fn tenant_charge(&self, model: &Model) -> Charge {
        let dearest = |cost: fn(&Usage, &Pool) -> u64| {
            model.ladder.iter().map(|pool| cost(&self.at_most, pool)).max().unwrap_or_default()
        };
        Charge {
            requests: 1,
            quota_tokens: dearest(|usage, pool| quota_tokens(usage, pool.burndown)),
            cost_microusd: dearest(|usage, pool| pool.prices.cost_microusd(usage)),
        }
    }

    /// What a pool reserves: the same as Bedrock does at the start of a call, input and output cap without burndown.
    pub fn pool_charge(&self, pool: &Pool) -> Charge {
        Charge {
            requests: 1,
            quota_tokens: quota_tokens(&self.at_most, 1),
            cost_microusd: pool.prices.cost_microusd(&self.at_most),
        }
    }
}

/// What `usage` really cost on `pool`.
pub fn actual(usage: &Usage, pool: &Pool) -> Charge {
    Charge {
        requests: 1,
        quota_tokens: quota_tokens(usage, pool.burndown),
        cost_microusd: pool.prices.cost_microusd(usage),
    }
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

fn too_large(limit: quota::Limit, cap: u64, input_tokens: u64, max_tokens: u64) -> Problem {
    let name = limit.name();
    let kind = if limit == quota::Limit::MicrousdPerMonth { Kind::BudgetExhausted } else { Kind::Invalid };
    let told = format!(
        "This request can never be admitted: about {input_tokens} input tokens and max_tokens {max_tokens} exceed the whole \
         limit {name} of {cap}. Lower max_tokens or shorten the input."
    );
    Problem { param: Some("max_tokens".into()), limits: vec![name.into()], ..Problem::new(kind, told) }
}
