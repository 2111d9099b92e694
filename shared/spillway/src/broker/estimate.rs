//! What a request will cost, before anyone has answered it.

use super::Ask;
use crate::{
    chat::OutputBound,
    pool::{Model, Pool},
    price::quota_tokens,
    problem::{Kind, Payer, Problem},
    quota::{self, Charge, History, Limit, LimitName, Limits, ReserveRule, ReserveSettings, Turnout, Unit},
    tenant::{RightSizing, Tenant},
    usage::Usage,
};

/// How a request will be sent and what is reserved for it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The output limit that is put into what is sent, in tokens; `None` leaves it as it is.
    pub max_tokens: Option<u64>,
    /// The cap, when it was set here, in tokens.
    pub max_tokens_set: Option<u64>,
    /// Estimated input and the output cap that the caller wants.
    asked: Usage,
    /// The same with the cap that is sent: what a pool must have room for.
    sent: Usage,
    /// The same with the output that is reserved on the tenant: less, where recent answers were shorter.
    reserved: Usage,
    /// Input tokens as estimated, before any correction.
    estimated_input_tokens: u64,
}

impl Plan {
    /// Plans `ask` under the limits of `tenant` and of its `parent`, sized by what `history` tells.
    ///
    /// # Errors
    /// The request is larger than a whole limit, or asks for more output than the model can give: it can never be
    /// admitted.
    pub fn new(ask: &Ask, tenant: &Tenant, parent: Option<&Tenant>, history: &History) -> Result<Self, Problem> {
        let payers = || [Some(tenant), parent].into_iter().flatten();
        let tokenizer = ask.model.tokenizer();
        let bodies = ask.request.input.bodies().iter();
        let estimated_input_tokens = bodies.map(|body| quota::input_tokens(body, tokenizer)).sum();
        let input_tokens = history.correct(estimated_input_tokens);
        let fitting = payers().filter_map(|payer| fitting_output(&ask.model, &payer.limits, input_tokens)).min();
        let (asked, mut max_tokens_set) = output_cap(ask, tenant, fitting)?;
        let usual = history.p99_output_tokens.map_or(asked, |p99| p99.min(asked));
        let sent = if tenant.right_sizing == RightSizing::Send { usual } else { asked };
        if sent < asked && ask.request.input.output_bound() == OutputBound::Limit {
            max_tokens_set = Some(sent);
        }
        let usage = |output_tokens| Usage { input_tokens, output_tokens, ..Usage::default() };
        let plan = Self {
            max_tokens: max_tokens_set,
            max_tokens_set,
            asked: usage(asked),
            sent: usage(sent),
            reserved: usage(usual),
            estimated_input_tokens,
        };
        for payer in payers() {
            let exceeded = quota::too_large(&payer.limits, &plan.tenant_charge(payer, &ask.model));
            if let Some((limit, cap)) = exceeded.first() {
                return Err(too_large(&payer.name, *limit, *cap, &plan.reserved));
            }
        }
        Ok(plan)
    }

    /// The quota tokens per minute that `tenant` does not reserve because recent answers were shorter than what was asked.
    pub fn regained_tokens(&self, tenant: &Tenant, model: &Model) -> u64 {
        let minute_tokens = |usage| dearest(usage, tenant, model).minute_tokens;
        minute_tokens(&self.asked).saturating_sub(minute_tokens(&self.reserved))
    }

    /// How a request that was planned like this turned out, if `usage` is what it used.
    pub fn turnout(&self, usage: &Usage) -> Turnout {
        Turnout {
            output_tokens: usage.output_tokens,
            estimated_input_tokens: self.estimated_input_tokens,
            measured_input_tokens: usage.all_input_tokens(),
        }
    }

    /// What `tenant` reserves, by its own rules: the dearest that any pool of the ladder can turn out, burndown included,
    /// unless it wants otherwise.
    pub fn tenant_charge(&self, tenant: &Tenant, model: &Model) -> Charge {
        dearest(&self.reserved, tenant, model)
    }

    /// What `pool` reserves, by its own rules: the same as Bedrock does at the start of a call, unless it wants otherwise.
    pub fn pool_charge(&self, pool: &Pool) -> Charge {
        charge(&self.sent, pool, &pool.reserve, ReserveRule::Mirror)
    }
}

fn dearest(usage: &Usage, tenant: &Tenant, model: &Model) -> Charge {
    let of_pool = |pool| charge(usage, pool, &tenant.reserve, ReserveRule::Conservative);
    model.ladder.iter().map(of_pool).reduce(Charge::dearest).unwrap_or_default()
}

fn charge(usage: &Usage, pool: &Pool, rules: &ReserveSettings, default: ReserveRule) -> Charge {
    let tokens = |rule: Option<ReserveRule>| match rule.unwrap_or(default) {
        ReserveRule::Mirror => quota_tokens(usage, 1),
        ReserveRule::Conservative => quota_tokens(usage, pool.burndown),
    };
    Charge {
        requests: 1,
        minute_tokens: tokens(rules.tokens_per_minute),
        day_tokens: tokens(rules.tokens_per_day),
        cost_microusd: pool.prices.cost_microusd(usage),
    }
}

/// The output cap of `ask`, in tokens, and the same again if it was not the caller who set it: then it is the tenant's
/// default, as far as that is `fitting`. Where no cap can be set, the answer may be as long as the model's longest.
fn output_cap(ask: &Ask, tenant: &Tenant, fitting: Option<u64>) -> Result<(u64, Option<u64>), Problem> {
    let most = ask.model.max_output_tokens;
    match ask.request.input.output_bound() {
        OutputBound::Nothing => return Ok((0, None)),
        OutputBound::Unknown => return Ok((most, None)),
        OutputBound::Limit => {}
    }
    match ask.request.max_tokens {
        Some(asked) if asked > most => {
            let told = format!("max_tokens is {asked}, but {} gives at most {most} output tokens.", ask.model.name);
            Err(Problem::invalid("max_tokens", told))
        }
        Some(asked) => Ok((asked, None)),
        None => {
            let set = tenant.default_max_tokens.min(most).min(fitting.unwrap_or(most)).max(1);
            Ok((set, Some(set)))
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
    let smallest = limits.iter().filter(|(limit, _)| limit.unit() == Unit::Tokens).map(|(_, value)| value).min()?;
    Some(smallest.saturating_sub(input_tokens) / burndown)
}

fn too_large(payer: &str, limit: Limit, cap: u64, needed: &Usage) -> Problem {
    let name = limit.name();
    let kind = if limit.unit() == Unit::Microusd { Kind::BudgetExhausted } else { Kind::Invalid };
    let told = format!(
        "This request can never be admitted: about {} input tokens and max_tokens {} exceed the whole limit {name} of {cap} \
         of tenant {payer}. Lower max_tokens or shorten the input.",
        needed.input_tokens, needed.output_tokens
    );
    Problem {
        param: Some("max_tokens".into()),
        limits: vec![LimitName::Account(limit)],
        payer: Some(Box::new(Payer { name: payer.into(), limit_states: Vec::new() })),
        ..Problem::new(kind, told)
    }
}
