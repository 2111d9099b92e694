//! Headers of replies: content type, request id, and when to retry.

use http::{HeaderName, HeaderValue, header};

use super::{Dialect, bedrock};
use crate::{
    problem::{Kind, Problem, RefusedBy},
    quota::LimitName,
    stored_headers::StoredHeaders,
    units::Millis,
};

/// Maximum wait after which the OpenAI and Anthropic SDKs should retry. With a longer wait,
/// OpenAI's SDKs give up or guess a delay, and Anthropic's sleep for hours, so both get
/// `x-should-retry: false`.
const MAX_SDK_WAIT: Millis = Millis::from_s(120);

/// Maximum wait after which AWS SDKs can retry. They honour at most 5 s of `x-amz-retry-after`
/// before each of their two retries. With a longer wait they would sleep for 10 s and then fail.
const MAX_AWS_SDK_WAIT: Millis = Millis::from_s(10);

/// Returns the headers of a JSON reply.
pub fn for_json(dialect: Dialect, request_id: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    push(&mut headers, request_id_name(dialect), request_id);
    headers
}

/// Returns the headers of a stream.
pub fn for_stream(dialect: Dialect, request_id: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![
        (header::CONTENT_TYPE, HeaderValue::from_static(dialect.stream_content_type())),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    push(&mut headers, request_id_name(dialect), request_id);
    headers
}

/// Returns the headers that a failure adds: the exception on Bedrock routes, whether and when to
/// retry, and the limits that refused.
pub fn for_problem(dialect: Dialect, problem: &Problem) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    if dialect == Dialect::Bedrock {
        push(&mut headers, "x-amzn-errortype", bedrock::exception(problem.kind));
    }
    if problem.kind == Kind::Unauthenticated {
        push(&mut headers, "www-authenticate", "Bearer");
    }
    if let Some(wait) = problem.retry_after {
        push(&mut headers, "retry-after", &wait.as_s_rounded_up().max(1).to_string());
        push(&mut headers, "retry-after-ms", &wait.to_string());
        if dialect == Dialect::Bedrock && wait <= MAX_AWS_SDK_WAIT {
            push(&mut headers, "x-amz-retry-after", &wait.to_string());
        }
    }
    if dialect != Dialect::Bedrock && must_not_retry(problem) {
        push(&mut headers, "x-should-retry", "false");
    }
    if let Some(refused_by) = &problem.refused_by {
        push(&mut headers, "x-spillway-limit", &LimitName::join(&refused_by.limit_names(), ", "));
        if let RefusedBy::Limits(exceeded) = refused_by {
            push(&mut headers, "x-spillway-limit-of", &exceeded.payer);
        }
    }
    headers
}

/// Appends a header, unless its value is not valid in a header.
pub fn push(headers: &mut Vec<(HeaderName, HeaderValue)>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.push((HeaderName::from_static(name), value));
    }
}

/// Adds the headers of a model's reply, which replace existing headers of the same name.
pub fn extend(headers: &mut Vec<(HeaderName, HeaderValue)>, reply_headers: &StoredHeaders) {
    for (name, value) in reply_headers.parse() {
        headers.retain(|(existing, _)| *existing != name);
        headers.push((name, value));
    }
}

fn request_id_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi => "x-request-id",
        Dialect::Anthropic => "request-id",
        Dialect::Bedrock => "x-amzn-requestid",
    }
}

/// Returns whether the SDKs of OpenAI and Anthropic must not retry. They retry on 502 and 504, but
/// a call that failed or timed out may be billed; AWS SDKs get 424 and 408, on which they do not
/// retry. They also retry on 409, but a conflict does not end within a second.
fn must_not_retry(problem: &Problem) -> bool {
    matches!(problem.kind, Kind::BudgetExhausted | Kind::Conflict | Kind::Model | Kind::Timeout)
        || problem.retry_after.is_some_and(|wait| wait > MAX_SDK_WAIT)
}
