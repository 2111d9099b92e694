//! Anthropic's Message Batches (API reference, "Message Batches").

use std::collections::HashSet;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{New, accept};
use crate::{
    app::App,
    batch::{Batch, BatchStatus, MAX_LINES, ResourceKind, lines_from_requests},
    dialect::Api,
    http::{Body, Call, Head, files, query::Query, reply},
    problem::{Kind, Problem},
    units::UnixMs,
};

/// Where all of this is.
const PATH: &str = "/v1/messages/batches";

/// The longest name of a request.
const LONGEST_CUSTOM_ID: usize = 64;

/// How many batches a page has when nobody says, and at most.
const LIMITS: (usize, usize) = (20, 1_000);

/// `POST /v1/messages/batches`. What is wrong with the shape of a request is told at once, what is wrong with its params by its
/// result.
pub async fn create(app: &App, call: &Call, body: Bytes) -> Result<Response<Body>, Problem> {
    let requests = requests(&body)?;
    let total = u64::try_from(requests.len()).unwrap_or(u64::MAX);
    let new = New {
        kind: ResourceKind::MessageBatch,
        api: Api::Messages,
        input_file: None,
        lines: lines_from_requests(requests.iter().map(|(id, params)| (id.as_str(), params)), Api::Messages.path()),
        total,
        metadata: None,
        output_kept_s: None,
    };
    let batch = accept(app, call, &body, new).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &shown(app, call, &batch)))
}

/// `GET /v1/messages/batches`, the newest first.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let query = Query::read(call.head.parts.uri.query(), &["before_id", "after_id", "limit", "beta"])?;
    let limit = query.limit(LIMITS.0, LIMITS.1)?;
    // What stands before one are the next newer ones.
    let (place, is_before) = match (query.get("after_id"), query.get("before_id")) {
        (after, None) => (after, false),
        (None, before) => (before, true),
        (Some(_), Some(_)) => return Err(Problem::invalid("before_id", "Name either after_id or before_id.")),
    };
    let page = super::page(app, &tenant.name, ResourceKind::MessageBatch, place, is_before, limit).await?;
    let (mut batches, has_more) = page;
    if is_before {
        batches.reverse();
    }
    let ids = [batches.first(), batches.last()].map(|batch| batch.map(|batch| batch.id.clone()));
    let data: Vec<Value> = batches.iter().map(|batch| shown(app, call, batch)).collect();
    let body = json!({ "data": data, "has_more": has_more, "first_id": ids[0], "last_id": ids[1] });
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `GET /v1/messages/batches/{id}`.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = super::find(app, call, ResourceKind::MessageBatch, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &shown(app, call, &batch)))
}

/// `POST /v1/messages/batches/{id}/cancel`.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = super::cancel(app, call, ResourceKind::MessageBatch, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &shown(app, call, &batch)))
}

/// `GET /v1/messages/batches/{id}/results`.
pub async fn results(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = ended(app, call, id, "has results").await?;
    let content = match &batch.output_file {
        Some(file) => {
            let found = files::blobs(app)?.get(&batch.file_key(file)).await;
            let found = found.map_err(|error| files::no_bucket(&error))?;
            found.ok_or_else(|| Problem::new(Kind::NotFound, "The results of this batch are gone."))?
        }
        None => Bytes::new(),
    };
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/x-jsonl"))];
    Ok(reply::whole(&call.head, StatusCode::OK, headers, content))
}

/// `DELETE /v1/messages/batches/{id}`.
pub async fn delete(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = ended(app, call, id, "can be deleted; cancel it first").await?;
    if let Some(file) = &batch.output_file {
        let deleted = files::blobs(app)?.delete(&batch.file_key(file)).await;
        deleted.map_err(|error| files::no_bucket(&error))?;
    }
    app.batches.delete(&batch).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &json!({ "id": batch.id, "type": "message_batch_deleted" })))
}

async fn ended(app: &App, call: &Call, id: &str, what: &str) -> Result<Batch, Problem> {
    let batch = super::find(app, call, ResourceKind::MessageBatch, id).await?;
    if batch.status.is_final() {
        return Ok(batch);
    }
    Err(Problem::new(Kind::Conflict, format!("The batch has not ended. Only one that has {what}.")))
}

/// The requests of a batch: their names and params.
fn requests(body: &[u8]) -> Result<Vec<(String, Value)>, Problem> {
    let body: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|_| Problem::new(Kind::Invalid, "The request body must be a JSON object."))?;
    if let Some(other) = body.keys().find(|name| *name != "requests") {
        let shown: String = other.chars().take(40).collect();
        return Err(Problem::invalid(shown, "A batch has requests and nothing else."));
    }
    let requests = body.into_iter().find_map(|(_, value)| match value {
        Value::Array(requests) if !requests.is_empty() => Some(requests),
        _ => None,
    });
    let requests =
        requests.ok_or_else(|| Problem::invalid("requests", "The requests must be a list of at least one."))?;
    if requests.len() > MAX_LINES {
        let told = format!("A batch takes {} requests.", MAX_LINES);
        return Err(Problem { kind: Kind::TooLarge, ..Problem::invalid("requests", told) });
    }
    let mut seen = HashSet::new();
    let read = |(number, request)| request_of(number, request, &mut seen);
    requests.into_iter().enumerate().map(read).collect()
}

fn request_of(number: usize, request: Value, seen: &mut HashSet<String>) -> Result<(String, Value), Problem> {
    let refuse = |name: &str, told: &str| {
        let at = format!("requests.{number}.{name}");
        Err(Problem::invalid(at.clone(), format!("{at}: {told}")))
    };
    let Value::Object(mut request) = request else { return refuse("custom_id", "each request must be an object.") };
    let (custom_id, params) = (request.remove("custom_id"), request.remove("params"));
    let is_plain = |id: &String| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let custom_id = custom_id.as_ref().and_then(Value::as_str).map(str::to_owned);
    let custom_id = custom_id.filter(|id| (1..=LONGEST_CUSTOM_ID).contains(&id.len()) && is_plain(id));
    let Some(custom_id) = custom_id else { return refuse("custom_id", "it must be 1 to 64 of a-z A-Z 0-9 _ -.") };
    if !request.is_empty() {
        return refuse("params", "a request has custom_id and params and nothing else.");
    }
    match params {
        _ if !seen.insert(custom_id.clone()) => {
            refuse("custom_id", "it must be another than that of an earlier request.")
        }
        Some(Value::Object(params)) if params.get("stream") == Some(&Value::Bool(true)) => {
            refuse("params.stream", "nobody reads a stream in a batch.")
        }
        Some(Value::Object(params)) => Ok((custom_id, Value::Object(params))),
        _ => refuse("params", "they must be an object."),
    }
}

fn shown(app: &App, call: &Call, batch: &Batch) -> Value {
    let is_ended = batch.status.is_final();
    let processing_status = match batch.status {
        _ if is_ended => "ended",
        BatchStatus::Cancelling => "canceling",
        _ => "in_progress",
    };
    // As at Anthropic, a request counts as in progress until its batch has ended.
    let counts = if is_ended { batch.counts } else { Default::default() };
    json!({
        "id": batch.id,
        "type": "message_batch",
        "processing_status": processing_status,
        "request_counts": {
            "processing": if is_ended { 0 } else { batch.total },
            "succeeded": counts.completed,
            "errored": counts.failed,
            "canceled": counts.cancelled,
            "expired": counts.expired,
        },
        "created_at": rfc3339(batch.created_at),
        "expires_at": rfc3339(batch.expires_at),
        "ended_at": batch.ended_at.and_then(rfc3339),
        "cancel_initiated_at": batch.cancelling_at.and_then(rfc3339),
        "archived_at": null,
        "results_url": is_ended.then(|| results_url(&app.path_prefix, &call.head, &batch.id)),
    })
}

fn rfc3339(time: UnixMs) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.as_ms()) * 1_000_000).ok()?.format(&Rfc3339).ok()
}

/// Where the results are, from where the caller stands: as it named us, through what proxies told, under the same prefixes.
fn results_url(path_prefix: &str, head: &Head, id: &str) -> String {
    let parts = &head.parts;
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(HOST).or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
    let scheme = parts.headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    let scheme = scheme.and_then(|scheme| scheme.split(',').next()).map(str::trim);
    let scheme = scheme.filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = scheme.or(parts.uri.scheme_str()).unwrap_or("http");
    let vendor_prefix = parts.uri.path().find(PATH).map_or("", |at| &parts.uri.path()[..at]);
    let origin = host.map(|host| format!("{scheme}://{host}")).unwrap_or_default();
    format!("{origin}{path_prefix}{vendor_prefix}{PATH}/{id}/results")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::dialect::Dialect;

    fn url(prefix: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let head = Head { parts, dialect: Dialect::Anthropic, request_id: "r".into(), deadline: None };
        results_url(prefix, &head, "b")
    }

    #[test]
    fn the_results_are_where_the_caller_came_in() {
        let path = "/v1/messages/batches/b";
        let here = "/v1/messages/batches/b/results";
        assert_eq!(url("", path, &[("host", "a:1")]), format!("http://a:1{here}"));
        let proxied = [("host", "a"), ("x-forwarded-proto", "https, http")];
        assert_eq!(url("/llm", path, &proxied), format!("https://a/llm{here}"));
        assert_eq!(url("", &format!("https://a/anthropic{path}"), &[]), format!("https://a/anthropic{here}"));
        assert_eq!(url("", path, &[("host", "a"), ("x-forwarded-proto", "javascript")]), format!("http://a{here}"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let one = |custom_id: &str| json!({ "custom_id": custom_id, "params": {} });
        let read = |body: Value| requests(body.to_string().as_bytes());
        assert_eq!(read(json!({ "requests": [one("a"), one("b")] })).map(|requests| requests.len()), Ok(2));
        for (body, param) in [
            (json!({}), "requests"),
            (json!({ "requests": [] }), "requests"),
            (json!({ "requests": [one("a")], "model": "m" }), "model"),
            (json!({ "requests": [one("a"), one("a")] }), "requests.1.custom_id"),
            (json!({ "requests": [one("a b")] }), "requests.0.custom_id"),
            (json!({ "requests": [one(&"a".repeat(65))] }), "requests.0.custom_id"),
            (json!({ "requests": [7] }), "requests.0.custom_id"),
            (json!({ "requests": [{ "custom_id": "a" }] }), "requests.0.params"),
            (json!({ "requests": [{ "custom_id": "a", "params": {}, "x": 1 }] }), "requests.0.params"),
            (json!({ "requests": [{ "custom_id": "a", "params": { "stream": true } }] }), "requests.0.params.stream"),
        ] {
            assert_eq!(read(body).expect_err(param).param.as_deref(), Some(param));
        }
    }
}
