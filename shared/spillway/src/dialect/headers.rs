//! The headers of replies: content type, request id, and when a refused caller may try again.

use http::{HeaderName, HeaderValue, header};

use super::{Dialect, bedrock};
use crate::{
    problem::{Kind, Problem},
    quota::LimitName,
};

/// The longest wait that the OpenAI and Anthropic SDKs should sit through by themselves, in milliseconds. Above it the
/// one would give up or guess its own delay and the other would sleep for hours, so both are told not to retry.
const LONGEST_PATIENCE_MS: u64 = 120_000;

/// The longest wait that AWS SDKs can sit through, in milliseconds: of `x-amz-retry-after` they take 5 s before each of
/// their two retries. Told of a longer one they would sleep those 10 s and fail all the same.
const LONGEST_AWS_PATIENCE_MS: u64 = 10_000;

/// The headers of a JSON reply.
pub fn of_json(dialect: Dialect, request_id: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    push(&mut headers, request_id_name(dialect), request_id);
    headers
}

/// The headers of a stream.
pub fn of_stream(dialect: Dialect, request_id: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![
        (header::CONTENT_TYPE, HeaderValue::from_static(dialect.stream_content_type())),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    push(&mut headers, request_id_name(dialect), request_id);
    headers
}

/// What a failure adds: the kind on Bedrock routes, when to retry, whether to retry, and which limits refused.
pub fn of_problem(dialect: Dialect, problem: &Problem) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    if dialect == Dialect::Bedrock {
        push(&mut headers, "x-amzn-errortype", bedrock::exception(problem.kind));
    }
    if problem.kind == Kind::Unauthenticated {
        push(&mut headers, "www-authenticate", "Bearer");
    }
    if let Some(wait_ms) = problem.retry_after_ms {
        push(&mut headers, "retry-after", &wait_ms.div_ceil(1000).max(1).to_string());
        push(&mut headers, "retry-after-ms", &wait_ms.to_string());
        if dialect == Dialect::Bedrock && wait_ms <= LONGEST_AWS_PATIENCE_MS {
            push(&mut headers, "x-amz-retry-after", &wait_ms.to_string());
        }
    }
    if dialect != Dialect::Bedrock && retrying_is_wrong(problem) {
        push(&mut headers, "x-should-retry", "false");
    }
    if !problem.limits.is_empty() {
        push(&mut headers, "x-spillway-limit", &LimitName::join(&problem.limits, ", "));
    }
    if let Some(payer) = &problem.payer {
        push(&mut headers, "x-spillway-limit-of", &payer.name);
    }
    headers
}

/// Appends a header, unless the value cannot be one.
pub fn push(headers: &mut Vec<(HeaderName, HeaderValue)>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.push((HeaderName::from_static(name), value));
    }
}

/// Adds the headers of a model's reply, unless they cannot be headers.
pub fn add(headers: &mut Vec<(HeaderName, HeaderValue)>, of_reply: &[(String, String)]) {
    for (name, value) in of_reply {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.retain(|(known, _)| *known != name);
            headers.push((name, value));
        }
    }
}

fn request_id_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi => "x-request-id",
        Dialect::Anthropic => "request-id",
        Dialect::Bedrock => "x-amzn-requestid",
    }
}

/// A model that failed or timed out may have been billed: the SDKs would resend on 502 and 504, where Bedrock's own do
/// not on 424 and 408. They would also resend on 409, which a second try in a second does not change.
fn retrying_is_wrong(problem: &Problem) -> bool {
    matches!(problem.kind, Kind::BudgetExhausted | Kind::Conflict | Kind::Model | Kind::Timeout)
        || problem.retry_after_ms.is_some_and(|wait_ms| wait_ms > LONGEST_PATIENCE_MS)
}
