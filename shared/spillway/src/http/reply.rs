//! Responses with a whole body.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Empty, Full};
use serde_json::Value;

use super::{Body, Head, preferences, request_body, route};
use crate::{
    job::{Job, StoredResult},
    problem::{Kind, Problem, RefusedBy},
    units::UnixMs,
};

/// Builds a response without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Builds a response with a complete body.
pub fn whole(head: &Head, status: StatusCode, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    with_request_id(head, response)
}

/// Builds a JSON response.
pub fn json(head: &Head, status: StatusCode, body: &Value) -> Response<Body> {
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    whole(head, status, headers, Bytes::from(body.to_string()))
}

/// Builds an error response in the caller's dialect.
pub fn problem(head: &Head, problem: &Problem, now: UnixMs) -> Response<Body> {
    let rendered = head.dialect.problem(&head.request_id, problem);
    let mut headers = rendered.headers;
    let limit_states = match &problem.refused_by {
        Some(RefusedBy::Limits(exceeded)) => &exceeded.limit_states[..],
        Some(RefusedBy::Allowance(_) | RefusedBy::Pools) | None => &[],
    };
    headers.extend(head.dialect.limit_headers(limit_states, now));
    let skipped = problem.skipped.as_ref().and_then(|skipped| skipped.text());
    headers.extend(skipped_header(head, skipped.as_deref()));
    if problem.kind == Kind::MethodNotAllowed {
        headers.extend(header("allow", &route::methods(head.parts.uri.path())));
    }
    if problem.kind == Kind::UnsupportedEncoding {
        // RFC 9110, 15.5.16.
        headers.extend(header("accept-encoding", &request_body::ENCODINGS.join(", ")));
    }
    whole(head, rendered.status, headers, rendered.body)
}

/// Id of the job that a request became: an extension of its response.
#[derive(Debug, Clone)]
pub struct JobId(pub String);

/// Adds the id of the job to the response, for the request event.
pub fn with_job_id(mut response: Response<Body>, job: &Job) -> Response<Body> {
    response.extensions_mut().insert(JobId(job.id.clone()));
    response
}

/// Builds the response of a stored result, with `more` headers.
pub fn stored(head: &Head, stored: StoredResult, more: Vec<(HeaderName, HeaderValue)>) -> Response<Body> {
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers: Vec<_> = stored.headers.parse().collect();
    headers.extend(more);
    whole(head, status, headers, stored.body)
}

/// Builds the header with the pools that did not take the request, if its caller asks for it.
pub fn skipped_header(head: &Head, skipped: Option<&str>) -> Option<(HeaderName, HeaderValue)> {
    skipped
        .filter(|_| preferences::asks_for_reasons(&head.parts.headers))
        .and_then(|skipped| header("x-spillway-skipped", skipped))
}

/// Builds a header; `None` if the value has characters that a header cannot have.
pub fn header(name: &'static str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    HeaderValue::from_str(value).ok().map(|value| (HeaderName::from_static(name), value))
}

/// Adds the request id.
pub fn with_request_id(head: &Head, mut response: Response<Body>) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(&head.request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}
