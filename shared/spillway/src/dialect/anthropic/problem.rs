//! Anthropic's error object.

use serde_json::{Value, json};

use crate::problem::{Kind, Problem};

/// Renders `{"type": "error", "error": {"type", "message"}, "request_id"}`.
pub fn problem(request_id: &str, problem: &Problem) -> Value {
    let class = match problem.kind {
        Kind::Invalid | Kind::MethodNotAllowed | Kind::UnsupportedEncoding => "invalid_request_error",
        Kind::Conflict => "conflict_error",
        Kind::Unauthenticated => "authentication_error",
        Kind::BudgetExhausted => "billing_error",
        Kind::Forbidden => "permission_error",
        Kind::NotFound => "not_found_error",
        Kind::TooLarge => "request_too_large",
        Kind::Throttled => "rate_limit_error",
        Kind::Unavailable => "overloaded_error",
        Kind::Timeout => "timeout_error",
        Kind::Model | Kind::Internal => "api_error",
    };
    json!({"type": "error", "error": {"type": class, "message": problem.message}, "request_id": request_id})
}
