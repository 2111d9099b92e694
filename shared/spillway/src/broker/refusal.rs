//! The broker's own words for "not now" and "never".

use std::fmt::Display;

use tracing::error;

use crate::{
    problem::{Kind, Payer, Problem},
    quota::{LimitName, LimitState, Refusal, Unit},
};

/// When a throttled Bedrock is worth another try, in milliseconds. It does not say.
pub const THROTTLED_RETRY_MS: u64 = 2_000;

/// A tenant's own limits stand in the way.
pub fn of_tenant(tenant: &str, refusal: &Refusal, limit_states: Vec<LimitState>) -> Problem {
    let names = refusal.limits.iter().map(|refused| LimitName::Account(refused.limit)).collect();
    let told: Vec<String> =
        refusal.limits.iter().map(|refused| format!("{} of {}", refused.limit.name(), refused.cap)).collect();
    let is_budget = refusal.limits.iter().any(|refused| refused.limit.unit() == Unit::Microusd);
    let message = format!("Tenant {tenant} has reached its limit: {}.", told.join(", "));
    Problem {
        retry_after_ms: Some(refusal.retry_after().as_ms().max(1)),
        limits: names,
        payer: Some(Box::new(Payer { name: tenant.into(), limit_states })),
        ..Problem::new(if is_budget { Kind::BudgetExhausted } else { Kind::Throttled }, message)
    }
}

/// Whether every pool was full, and not the tenant's own limits.
pub fn is_of_pools(problem: &Problem) -> bool {
    problem.limits == [LimitName::ModelCapacity]
}

/// Every pool of the model is full for the next `retry_after_ms`.
pub fn of_pools(model: &str, retry_after_ms: u64) -> Problem {
    Problem {
        retry_after_ms: Some(retry_after_ms.max(1)),
        limits: vec![LimitName::ModelCapacity],
        ..Problem::new(Kind::Throttled, format!("All capacity of model {model} is in use."))
    }
}

/// Jobs of the same tenant wait already, the next of them for so long, and this one can wait behind them.
pub fn behind_jobs(tenant: &str, wait_ms: u64) -> Problem {
    let told = Problem::new(Kind::Throttled, format!("Jobs of {tenant} wait already."));
    Problem { retry_after_ms: Some(wait_ms), ..told }
}

/// Bedrock has no room for a guardrail now, and does not say when it has.
pub fn of_guardrail() -> Problem {
    let told = Problem::new(Kind::Throttled, "Bedrock has no room for this guardrail now.");
    Problem { retry_after_ms: Some(THROTTLED_RETRY_MS), ..told }
}

/// No pool of the model is allowed to take a request of this size.
pub fn larger_than_every_pool(model: &str) -> Problem {
    let told = format!(
        "This request is larger than any pool of model {model} can take. Lower max_tokens or shorten the input."
    );
    Problem { limits: vec![LimitName::ModelCapacity], ..Problem::invalid("max_tokens", told) }
}

/// The ledger takes no more writes for this tenant for the moment.
pub fn busy(tenant: &str) -> Problem {
    let told = format!("The ledger is busy with tenant {tenant}; nothing was charged. Try again.");
    Problem { retry_after_ms: Some(1_000), ..Problem::new(Kind::Unavailable, told) }
}

/// The tenant belongs to an organisation that does not exist, so nobody can say what it may use.
pub fn parent_gone(tenant: &str, parent: &str) -> Problem {
    error!(tenant, parent, "a tenant's parent does not exist");
    let told = format!("Tenant {tenant} belongs to {parent}, which does not exist; nothing was charged.");
    Problem { retry_after_ms: Some(1_000), ..Problem::new(Kind::Unavailable, told) }
}

/// The tenant was deleted while its request was under way.
pub fn tenant_gone() -> Problem {
    Problem::new(Kind::Unauthenticated, "This key's tenant does not exist any more.")
}

/// The registry does not have the limits yet that the ledger already knows.
pub fn changing_limits() -> Problem {
    Problem {
        retry_after_ms: Some(1_000),
        ..Problem::new(Kind::Throttled, "This tenant's limits are being changed. Try again.")
    }
}

/// The task that served the request ended without an answer. What it reserved expires by itself.
pub fn died(error: &impl Display) -> Problem {
    error!(%error, "a request was not served to its end");
    Problem::new(Kind::Internal, "The broker failed on this request.")
}
