//! Problems that the broker reports to callers.

use std::fmt::Display;

use tracing::error;

use crate::{
    problem::{ExceededLimits, Kind, Problem, RefusedBy},
    quota::{Limit, LimitState, Refusal, Unit},
    units::Millis,
};

/// Time until the next try when Bedrock throttles. Bedrock does not report a time.
pub const THROTTLED_RETRY_AFTER: Millis = Millis::from_s(2);

/// Time until the next try after a conflict that is over within moments.
const SOON: Millis = Millis::from_s(1);

/// The limits of `payer`, a tenant or organisation, have no room.
pub fn limits_reached(payer: &str, refusal: &Refusal, limit_states: Vec<LimitState>) -> Problem {
    let reached: Vec<String> =
        refusal.limits.iter().map(|refused| format!("{} of {}", refused.limit.name(), refused.cap)).collect();
    let message = format!("Tenant {payer} has reached its limit: {}.", reached.join(", "));
    let limits: Vec<_> = refusal.limits.iter().map(|refused| refused.limit).collect();
    let is_budget = limits.iter().any(|limit| limit.unit() == Unit::Microusd);
    let exceeded = ExceededLimits { payer: payer.to_owned(), limits, limit_states };
    Problem {
        retry_after: Some(at_least_1_ms(refusal.retry_after())),
        refused_by: Some(RefusedBy::Limits(Box::new(exceeded))),
        ..Problem::new(if is_budget { Kind::BudgetExhausted } else { Kind::Throttled }, message)
    }
}

/// Every pool of `model` is full for `retry_after`.
pub fn pools_full(model: &str, retry_after: Millis) -> Problem {
    Problem {
        retry_after: Some(at_least_1_ms(retry_after)),
        refused_by: Some(RefusedBy::Pools),
        ..Problem::new(Kind::Throttled, format!("All capacity of model {model} is in use."))
    }
}

/// No pool of `model` answers at the moment. The first of them is tried again in `retry_after`.
pub fn pools_out(model: &str, retry_after: Millis) -> Problem {
    let message = format!("No pool of model {model} answers at the moment; nothing was charged. Try again.");
    Problem { retry_after: Some(at_least_1_ms(retry_after)), ..Problem::new(Kind::Unavailable, message) }
}

/// A request that can wait must wait behind the queued jobs of `tenant`. The first of them is
/// ready in `retry_after`.
pub fn behind_jobs(tenant: &str, retry_after: Millis) -> Problem {
    throttled(format!("Tenant {tenant} already has queued jobs."), retry_after)
}

/// Bedrock throttled the guardrail.
pub fn guardrail_throttled() -> Problem {
    throttled("Bedrock has no capacity for this guardrail now.", THROTTLED_RETRY_AFTER)
}

/// The content for a guardrail costs more than `cap`, the whole `limit` of `payer`.
pub fn guardrail_too_large(payer: &str, limit: Limit, cap: u64, cost_microusd: u64) -> Problem {
    let message = format!(
        "This content can never be admitted: its {cost_microusd} micro-USD exceed the whole limit {} of {cap} of \
         tenant {payer}. Shorten the content.",
        limit.name()
    );
    never_fits(payer, limit, "content", message)
}

/// The request exceeds the whole `limit` of `payer`. `param` is the parameter to lower.
pub fn never_fits(payer: &str, limit: Limit, param: &str, message: String) -> Problem {
    let kind = if limit.unit() == Unit::Microusd { Kind::BudgetExhausted } else { Kind::Invalid };
    let exceeded = ExceededLimits { payer: payer.to_owned(), limits: vec![limit], limit_states: Vec::new() };
    let refused_by = Some(RefusedBy::Limits(Box::new(exceeded)));
    Problem { param: Some(param.into()), refused_by, ..Problem::new(kind, message) }
}

/// The request, which takes `calls` calls, is larger than the limits of every pool of `model`.
pub fn larger_than_every_pool(model: &str, calls: u64) -> Problem {
    let (param, remedy) = match calls {
        1 => ("max_tokens", "Lower max_tokens or shorten the input.".to_owned()),
        _ => ("input", format!("It takes {calls} calls. Send fewer texts.")),
    };
    let message = format!("This request is larger than any pool of model {model} can take. {remedy}");
    Problem { refused_by: Some(RefusedBy::Pools), ..Problem::invalid(param, message) }
}

/// Too many concurrent writes contend for the ledger item of `payer`.
pub fn ledger_contended(payer: &str) -> Problem {
    let message =
        format!("The ledger has too many concurrent writes for tenant {payer}; nothing was charged. Try again.");
    unavailable(message)
}

/// The setting `residency` of `payer` does not permit the broker's region, where guardrails run.
pub fn guardrail_not_permitted(payer: &str) -> Problem {
    let message = format!(
        "Guardrails are applied in the broker's own region, which the setting residency of tenant {payer} does not \
         permit."
    );
    Problem::new(Kind::Forbidden, message)
}

/// The tenant was deleted while its request was in progress.
pub fn tenant_deleted() -> Problem {
    Problem::new(Kind::Unauthenticated, "The tenant of this key no longer exists.")
}

/// The registry does not have the limits yet that the ledger has already seen.
pub fn limits_changing() -> Problem {
    throttled("The limits of this tenant are being changed. Try again.", SOON)
}

/// The task that served the request ended without an answer. Its reservations expire.
pub fn task_died(error: &impl Display) -> Problem {
    error!(%error, "the task of a request ended without an answer");
    Problem::new(Kind::Internal, "The broker failed on this request.")
}

fn throttled(message: impl Into<String>, retry_after: Millis) -> Problem {
    Problem { retry_after: Some(retry_after), ..Problem::new(Kind::Throttled, message) }
}

fn unavailable(message: String) -> Problem {
    Problem { retry_after: Some(SOON), ..Problem::new(Kind::Unavailable, message) }
}

fn at_least_1_ms(wait: Millis) -> Millis {
    wait.max(Millis::from_ms(1))
}
