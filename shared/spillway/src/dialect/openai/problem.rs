//! OpenAI's error object.

use serde_json::{Value, json};

use crate::{
    problem::{Kind, Problem, RefusedBy},
    quota::Unit,
};

/// Renders `{"error": {"message", "type", "param", "code"}}`.
pub fn problem(problem: &Problem) -> Value {
    let (class, code) = match problem.kind {
        Kind::Invalid => ("invalid_request_error", "invalid_request"),
        Kind::Unauthenticated => ("invalid_request_error", "invalid_api_key"),
        Kind::BudgetExhausted => ("insufficient_quota", "insufficient_quota"),
        Kind::Forbidden => ("invalid_request_error", "permission_denied"),
        Kind::NotFound if problem.param.as_deref() == Some("model") => ("invalid_request_error", "model_not_found"),
        Kind::NotFound => ("invalid_request_error", "not_found"),
        Kind::MethodNotAllowed => ("invalid_request_error", "method_not_allowed"),
        Kind::Conflict => ("invalid_request_error", "conflict"),
        Kind::TooLarge => ("invalid_request_error", "request_too_large"),
        Kind::UnsupportedEncoding => ("invalid_request_error", "unsupported_content_encoding"),
        Kind::Throttled => (limit_type(problem), "rate_limit_exceeded"),
        Kind::Model => ("server_error", "model_error"),
        Kind::Unavailable => ("server_error", "unavailable"),
        Kind::Timeout => ("server_error", "timeout"),
        Kind::Internal => ("server_error", "internal_error"),
    };
    json!({"error": {"message": problem.message, "type": class, "param": problem.param, "code": code}})
}

/// Returns the error type for the limit that refused.
fn limit_type(problem: &Problem) -> &'static str {
    let Some(RefusedBy::Limits(exceeded)) = &problem.refused_by else { return "rate_limit_error" };
    match exceeded.limits.first().map(|limit| limit.unit()) {
        Some(Unit::Tokens) => "tokens",
        Some(Unit::Requests) => "requests",
        _ => "rate_limit_error",
    }
}
