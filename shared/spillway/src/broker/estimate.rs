//! Estimate of a request's cost before the model answers.

use super::{ModelRequest, problems};
use crate::{
    chat::{Format, OutputBound},
    pool::{Model, Pool},
    price::CacheWrites,
    problem::Problem,
    quota::{self, Charge, History, Limit, Limits, Observation, ReserveRule, ReserveSettings, Unit, quota_tokens},
    tenant::{RightSizing, Tenant},
    units::Millis,
    usage::Usage,
};

/// Plan for a request: its output limit, and the amounts to reserve.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Output cap to set in the request that is sent, in tokens; `None` leaves the caller's.
    pub max_tokens_set: Option<u64>,
    /// Estimated input, and the output cap of the caller.
    requested: Usage,
    /// Estimated input, and the output cap that is sent. A pool must have room for it.
    sent: Usage,
    /// Estimated input, and the output that is reserved on the tenant. It is less than the cap if
    /// recent answers were shorter.
    reserved: Usage,
    /// Most that the request can use: the estimated input, not lowered by the correction, and the
    /// output cap that is sent.
    max: Usage,
    /// Estimated input tokens before correction.
    estimated_input_tokens: u64,
    /// Most input tokens that can be billed.
    max_billed_input_tokens: u64,
    /// What the request can write to the prompt cache.
    cache_writes: CacheWrites,
    /// Calls of Bedrock that the request makes.
    calls: u64,
}

impl Plan {
    /// Plans `request` under the limits of `tenant` and of its `parent`, sized by `history`.
    ///
    /// # Errors
    /// Returns an error if the request can never be admitted: it is larger than a whole limit, or
    /// asks for more output than the model supports.
    pub fn new(
        request: &ModelRequest,
        tenant: &Tenant,
        parent: Option<&Tenant>,
        history: &History,
    ) -> Result<Self, Problem> {
        let payers = || [Some(tenant), parent].into_iter().flatten();
        let tokenizer = request.model.tokenizer();
        let bodies = request.chat.input.bodies();
        let mut cache_writes = uncontrolled_cache_writes(&request.model);
        let (mut estimated_input_tokens, mut max_billed_input_tokens) = (0, 0);
        for input in bodies.iter().map(|body| quota::estimate_input(body, tokenizer)) {
            estimated_input_tokens += input.tokens;
            max_billed_input_tokens += input.max_tokens;
            cache_writes = cache_writes.max(input.cache_writes);
        }
        let input_tokens = history.correct(estimated_input_tokens);
        let max_input_tokens = input_tokens.max(estimated_input_tokens);
        let fitting =
            payers().filter_map(|payer| fitting_output(&request.model, &payer.limits, max_input_tokens)).min();
        let (requested, mut max_tokens_set) = output_cap(request, tenant, fitting)?;
        let usual = history.p99_output_tokens.map_or(requested, |p99| p99.min(requested));
        let sends_usual =
            tenant.right_sizing == RightSizing::Send && request.chat.input.output_bound() == OutputBound::Limit;
        let sent = if sends_usual { usual } else { requested };
        if sent < requested {
            max_tokens_set = Some(sent);
        }
        let usage = |output_tokens| Usage { input_tokens, output_tokens, ..Usage::default() };
        let plan = Self {
            max_tokens_set,
            requested: usage(requested),
            sent: usage(sent),
            reserved: usage(usual),
            max: Usage { input_tokens: max_input_tokens, ..usage(sent) },
            estimated_input_tokens,
            max_billed_input_tokens: max_billed_input_tokens.max(max_input_tokens),
            cache_writes,
            calls: calls(request),
        };
        for payer in payers() {
            let exceeded = quota::too_large(&payer.limits, &plan.max_charge(&plan.max, payer, &request.model));
            if let Some((limit, cap)) = exceeded.first() {
                return Err(plan.too_large(&payer.name, *limit, *cap));
            }
        }
        Ok(plan)
    }

    /// Returns how long the prompt cache keeps what the request writes or reads.
    pub fn cache_lifetime(&self) -> Millis {
        match self.cache_writes {
            CacheWrites::OneHour => Millis::from_s(3_600),
            CacheWrites::Nothing | CacheWrites::FiveMinutes => Millis::from_s(300),
        }
    }

    /// Returns the quota tokens per minute that `tenant`, which has reserved `charge`, did not
    /// reserve because recent answers were shorter than the output cap.
    pub fn regained_tokens(&self, charge: &Charge, tenant: &Tenant, model: &Model) -> u64 {
        let minute_tokens = |usage| self.max_charge(usage, tenant, model).minute_tokens;
        minute_tokens(&self.requested).saturating_sub(minute_tokens(&self.reserved).max(charge.minute_tokens))
    }

    /// Returns the observation of a request with this plan and this actual `usage`.
    pub fn observation(&self, usage: &Usage) -> Observation {
        Observation {
            output_tokens: usage.output_tokens,
            estimated_input_tokens: self.estimated_input_tokens,
            measured_input_tokens: usage.all_input_tokens(),
        }
    }

    /// Returns the charge to reserve on `tenant` by its own rules: by default the most expensive of
    /// all pools on the ladder, burndown included. Money is always reserved for the most that the
    /// request can use.
    pub fn tenant_charge(&self, tenant: &Tenant, model: &Model) -> Charge {
        let max = self.max_charge(&self.max, tenant, model);
        if self.reserved == self.max {
            return max;
        }
        let reserved = self.max_charge(&self.reserved, tenant, model);
        let unreserved = |tokens: fn(&Charge) -> u64| tokens(&max).saturating_sub(tokens(&reserved));
        let unreserved_tokens = unreserved(|charge| charge.minute_tokens).max(unreserved(|charge| charge.day_tokens));
        Charge { unreserved_tokens, cost_microusd: max.cost_microusd, ..reserved }
    }

    /// Returns the charge to reserve on `pool` by its own rules: by default as Bedrock reserves at
    /// the start of a call.
    pub fn pool_charge(&self, pool: &Pool) -> Charge {
        self.charge(&self.sent, pool, &pool.reserve, ReserveRule::Mirror)
    }

    /// Returns the most expensive charge of `usage` over all pools of `model`.
    fn max_charge(&self, usage: &Usage, tenant: &Tenant, model: &Model) -> Charge {
        let pool_charge = |pool| self.charge(usage, pool, &tenant.reserve, ReserveRule::Conservative);
        model.ladder.iter().map(pool_charge).reduce(Charge::max).unwrap_or_default()
    }

    fn charge(&self, usage: &Usage, pool: &Pool, rules: &ReserveSettings, default: ReserveRule) -> Charge {
        let tokens = |rule: Option<ReserveRule>| match rule.unwrap_or(default) {
            ReserveRule::Mirror => quota_tokens(usage, 1),
            ReserveRule::Conservative => quota_tokens(usage, pool.burndown),
        };
        let cost = pool.prices.max_cost_microusd(self.max_billed_input_tokens, usage.output_tokens, self.cache_writes);
        Charge {
            requests: self.calls,
            minute_tokens: tokens(rules.tokens_per_minute),
            day_tokens: tokens(rules.tokens_per_day),
            cost_microusd: cost,
            unreserved_tokens: 0,
        }
    }

    fn too_large(&self, payer: &str, limit: Limit, cap: u64) -> Problem {
        let name = limit.name();
        let Usage { input_tokens, output_tokens, .. } = self.max;
        let calls = self.calls;
        let (param, cost, remedy) = match limit.unit() {
            Unit::Requests => {
                ("input", format!("{calls} calls of the model, which count as requests,"), "Send fewer texts.")
            }
            unit => {
                let input = match unit {
                    Unit::Microusd => format!("up to {}", self.max_billed_input_tokens),
                    _ => format!("about {input_tokens}"),
                };
                let cost = format!("{input} input tokens and max_tokens {output_tokens}");
                ("max_tokens", cost, "Lower max_tokens or shorten the input.")
            }
        };
        let message = format!(
            "This request can never be admitted: {cost} exceed the whole limit {name} of {cap} of tenant {payer}. {remedy}"
        );
        problems::never_fits(payer, limit, param, message)
    }
}

/// Returns the calls of Bedrock that `request` makes: several only for embeddings.
pub fn calls(request: &ModelRequest) -> u64 {
    request.chat.input.bodies().len() as u64
}

/// Returns what `model` can write to the prompt cache without a cache point in the body. Models
/// with OpenAI's format cache by themselves; Claude and Nova do not.
fn uncontrolled_cache_writes(model: &Model) -> CacheWrites {
    let caches = |format: Option<Format>| format == Some(Format::ChatCompletions);
    let mut of_substitutes = model.substitutes().map(|pool| Format::for_model_id(&pool.model_id));
    match caches(model.format()) || of_substitutes.any(|format| format.is_none() || caches(format)) {
        true => CacheWrites::FiveMinutes,
        false => CacheWrites::Nothing,
    }
}

/// Returns the output cap of `request` in tokens and, if the caller did not set it, the cap to set.
/// That is the tenant's default, or `fitting` if that is lower. If no cap can be set, the answer
/// may be as long as the model allows.
fn output_cap(request: &ModelRequest, tenant: &Tenant, fitting: Option<u64>) -> Result<(u64, Option<u64>), Problem> {
    let max_output = request.model.max_output_tokens;
    let bound = request.chat.input.output_bound();
    if bound == OutputBound::Nothing {
        return Ok((0, None));
    }
    match request.chat.max_tokens {
        Some(max_tokens) if max_tokens > max_output => {
            let message = format!(
                "max_tokens is {max_tokens}, but {} supports at most {max_output} output tokens.",
                request.model.name
            );
            Err(Problem::invalid("max_tokens", message))
        }
        _ if bound == OutputBound::Unknown => Ok((max_output, None)),
        Some(max_tokens) => Ok((max_tokens, None)),
        None => {
            let set = tenant.default_max_tokens.min(max_output).min(fitting.unwrap_or(max_output)).max(1);
            Ok((set, Some(set)))
        }
    }
}

/// Returns the actual charge of `request` on `pool`, whose calls had this `usage` together.
pub fn actual(request: &ModelRequest, usage: &Usage, pool: &Pool) -> Charge {
    let tokens = quota_tokens(usage, pool.burndown);
    Charge {
        requests: calls(request),
        minute_tokens: tokens,
        day_tokens: tokens,
        cost_microusd: pool.prices.cost_microusd(usage),
        unreserved_tokens: 0,
    }
}

/// Returns the maximum output that fits the smallest token limit, so that a small limit does not
/// refuse a small request for an output cap that its caller did not ask for.
fn fitting_output(model: &Model, limits: &Limits, input_tokens: u64) -> Option<u64> {
    let burndown = model.ladder.iter().map(|pool| pool.burndown).max().unwrap_or(1).max(1);
    let smallest = limits.iter().filter(|(limit, _)| limit.unit() == Unit::Tokens).map(|(_, value)| value).min()?;
    Some(smallest.saturating_sub(input_tokens) / burndown)
}
