//! Anthropic's Message Batches (API reference, "Message Batches").

use std::collections::HashSet;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use serde_json::{Value, json, value::RawValue};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{NewBatch, NewLines, accept, unknown_parameter};
use crate::{
    app::App,
    batch::{Batch, BatchStatus, MAX_LINES, ResourceKind, lines_from_requests},
    dialect::{
        Api,
        json::{check_bounds, raw},
    },
    heavy_work,
    http::{Body, Call, Head, files, query::Query, reply},
    problem::{Kind, Problem},
    units::UnixMs,
};

/// Path of the collection.
const PATH: &str = "/v1/messages/batches";

/// Maximum length of a `custom_id`, in bytes.
const MAX_CUSTOM_ID_BYTES: usize = 64;

/// Number of batches in a page without `limit`.
const DEFAULT_LIMIT: usize = 20;

/// Maximum `limit`.
const MAX_LIMIT: usize = 1_000;

/// `POST /v1/messages/batches`. Malformed requests are refused immediately. Invalid `params` show
/// in the result of their request, as in Anthropic's API.
///
/// # Errors
/// Returns an error if the body is malformed, or if the batch cannot be accepted.
pub async fn create(app: &App, call: &Call, body: Bytes) -> Result<Response<Body>, Problem> {
    let (total, lines) = heavy_work::run(body.len(), || lines(&body))?;
    let new = NewBatch {
        kind: ResourceKind::MessageBatch,
        api: Api::Messages,
        input_file: None,
        lines: NewLines::Body(lines),
        total,
        metadata: None,
        output_retention_s: None,
    };
    let batch = accept(app, call, &body, new).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(call, &batch)))
}

/// `GET /v1/messages/batches`: a page of the caller's batches, the newest first.
///
/// # Errors
/// Returns an error if the query is invalid, if it names a batch that does not exist, or if the
/// store is unavailable.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let query = Query::read(call.head.parts.uri.query(), &["before_id", "after_id", "limit", "beta"])?;
    let limit = query.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    // The page before a batch has the batches that were created next: they are read oldest first.
    let (start_id, oldest_first) = match (query.get("after_id"), query.get("before_id")) {
        (after_id, None) => (after_id, false),
        (None, before_id) => (before_id, true),
        (Some(_), Some(_)) => return Err(Problem::invalid("before_id", "Use either after_id or before_id, not both.")),
    };
    let page = super::page(app, call, ResourceKind::MessageBatch, start_id, oldest_first, limit).await?;
    let (mut batches, has_more) = page;
    if oldest_first {
        batches.reverse();
    }
    let ids = [batches.first(), batches.last()].map(|batch| batch.map(|batch| batch.id.clone()));
    let data: Vec<Value> = batches.iter().map(|batch| object(call, batch)).collect();
    let body = json!({ "data": data, "has_more": has_more, "first_id": ids[0], "last_id": ids[1] });
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `GET /v1/messages/batches/{id}`.
///
/// # Errors
/// Returns an error if the caller has no such batch, or if the store is unavailable.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = super::find(app, call, ResourceKind::MessageBatch, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(call, &batch)))
}

/// `POST /v1/messages/batches/{id}/cancel`. A batch that has ended stays unchanged.
///
/// # Errors
/// Returns an error if the caller has no such batch, or if the store is unavailable.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = super::cancel(app, call, ResourceKind::MessageBatch, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(call, &batch)))
}

/// `GET /v1/messages/batches/{id}/results`: a line of JSON for each request.
///
/// # Errors
/// Returns an error if the caller has no such batch, if the batch has not ended, or if its results
/// are no longer kept.
pub async fn results(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = find_ended(app, call, id, "Its results are available after its end.").await?;
    let content = match &batch.output_file {
        Some(file) => {
            let results = files::blobs(app)?.get(&batch.file_key(file)).await?;
            results.ok_or_else(|| Problem::new(Kind::NotFound, "The results of this batch are no longer kept."))?
        }
        None => Bytes::new(),
    };
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/x-jsonl"))];
    Ok(reply::whole(&call.head, StatusCode::OK, headers, content))
}

/// `DELETE /v1/messages/batches/{id}`: deletes the batch and its results.
///
/// # Errors
/// Returns an error if the caller has no such batch, if the batch has not ended, or if a service is
/// unavailable.
pub async fn delete(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = find_ended(app, call, id, "Cancel it first, and delete it after its end.").await?;
    if let Some(file) = &batch.output_file {
        files::blobs(app)?.delete(&batch.file_key(file)).await?;
    }
    app.batches.delete(&batch).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &json!({ "id": batch.id, "type": "message_batch_deleted" })))
}

/// Returns the caller's batch with this id if it has ended. `hint` says in the error what the
/// caller can do instead.
async fn find_ended(app: &App, call: &Call, id: &str, hint: &str) -> Result<Batch, Problem> {
    let batch = super::find(app, call, ResourceKind::MessageBatch, id).await?;
    if batch.status.is_final() {
        return Ok(batch);
    }
    Err(Problem::new(Kind::Conflict, format!("The batch has not ended. {hint}")))
}

/// Parses the body of a new batch. Returns the number of its lines, and the lines.
fn lines(body: &[u8]) -> Result<(u64, Bytes), Problem> {
    let requests = requests(body)?;
    let total = u64::try_from(requests.len()).unwrap_or(u64::MAX);
    let requests = requests.iter().map(|(id, params)| (id.as_str(), *params));
    Ok((total, lines_from_requests(requests, Api::Messages.path())))
}

/// A request of a new batch. Its parameters are only carried.
type NewRequest<'b> = (String, &'b RawValue);

/// Parses the body of a new batch: the `custom_id` and the `params` of each request.
fn requests(body: &[u8]) -> Result<Vec<NewRequest<'_>>, Problem> {
    let members = raw::members(body)
        .map_err(|_| Problem::new(Kind::Invalid, "The request body must be a JSON object with the list requests."))?;
    if let Some((name, _)) = members.iter().find(|(name, _)| name != "requests") {
        return Err(unknown_parameter(name, "A batch has no such parameter. The only parameter is requests."));
    }
    let requests = raw::member(&members, "requests").and_then(|requests| raw::elements(requests).ok());
    let requests = requests.filter(|requests| !requests.is_empty());
    let requests = requests.ok_or_else(|| {
        let message = format!("The requests must be a list of at least one request and at most {MAX_LINES}.");
        Problem::invalid("requests", message)
    })?;
    if requests.len() > MAX_LINES {
        let message = format!("A batch may have at most {MAX_LINES} requests.");
        return Err(Problem { kind: Kind::TooLarge, ..Problem::invalid("requests", message) });
    }
    let mut custom_ids = HashSet::new();
    let read = |(number, request)| read_request(number, request, &mut custom_ids);
    requests.into_iter().enumerate().map(read).collect()
}

/// Parses the request with this number, from 0. `custom_ids` has the ids of the requests before it.
fn read_request<'b>(
    number: usize,
    request: &'b RawValue,
    custom_ids: &mut HashSet<String>,
) -> Result<NewRequest<'b>, Problem> {
    let refuse = |name: &str, message: &str| {
        Err(Problem::invalid(format!("requests.{number}.{name}"), format!("requests.{number}: {message}")))
    };
    let json = request.get().as_bytes();
    let Ok(members) = raw::members(json) else { return refuse("custom_id", "a request must be an object.") };
    if let Err(excess) = check_bounds(json) {
        return refuse("params", &format!("the request {excess}."));
    }
    let is_plain = |id: &String| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let custom_id = raw::member(&members, "custom_id").and_then(raw::text);
    let custom_id = custom_id.filter(|id| (1..=MAX_CUSTOM_ID_BYTES).contains(&id.len())).filter(is_plain);
    let Some(custom_id) = custom_id else {
        let message =
            format!("custom_id must be a string of 1 to {MAX_CUSTOM_ID_BYTES} characters of a-z A-Z 0-9 _ -.");
        return refuse("custom_id", &message);
    };
    if members.iter().any(|(name, _)| !matches!(name.as_str(), "custom_id" | "params")) {
        return refuse("params", "a request has no members besides custom_id and params.");
    }
    if !custom_ids.insert(custom_id.clone()) {
        return refuse("custom_id", "an earlier request has the same custom_id.");
    }
    let params =
        raw::member(&members, "params").and_then(|params| Some((params, raw::members(params.get().as_bytes()).ok()?)));
    match params {
        Some((_, params)) if raw::member(&params, "stream").is_some_and(|stream| stream.get() == "true") => {
            refuse("params.stream", "a batch cannot stream. Leave out params.stream, or set it to false.")
        }
        Some((params, _)) => Ok((custom_id, params)),
        None => refuse("params", "params must be an object."),
    }
}

/// The batch as an object of Anthropic's API.
fn object(call: &Call, batch: &Batch) -> Value {
    let has_ended = batch.status.is_final();
    let processing_status = match batch.status {
        _ if has_ended => "ended",
        BatchStatus::Cancelling => "canceling",
        _ => "in_progress",
    };
    // As in Anthropic's API, a request counts as processing until its batch has ended.
    let counts = if has_ended { batch.counts } else { Default::default() };
    json!({
        "id": batch.id,
        "type": "message_batch",
        "processing_status": processing_status,
        "request_counts": {
            "processing": if has_ended { 0 } else { batch.total },
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
        "results_url": has_ended.then(|| results_url(&call.head, &batch.id)),
    })
}

fn rfc3339(time: UnixMs) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.as_ms()) * 1_000_000).ok()?.format(&Rfc3339).ok()
}

/// The URL of a batch's results as this caller reaches them: with its host name, with the scheme
/// that the first proxy reports in `x-forwarded-proto`, and under the same prefixes.
fn results_url(head: &Head, id: &str) -> String {
    let parts = &head.parts;
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST.as_str()).or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
    let forwarded = text("x-forwarded-proto").and_then(|schemes| schemes.split(',').next()).map(str::trim);
    let forwarded = forwarded.filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = forwarded.or(parts.uri.scheme_str()).unwrap_or("http");
    let vendor_prefix = parts.uri.path().find(PATH).map_or("", |at| &parts.uri.path()[..at]);
    let origin = host.map(|host| format!("{scheme}://{host}")).unwrap_or_default();
    format!("{origin}{}{vendor_prefix}{PATH}/{id}/results", head.base_path)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::dialect::{Dialect, json::MAX_VALUES};

    fn url(base_path: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let head = Head {
            parts,
            dialect: Dialect::Anthropic,
            request_id: "r".into(),
            base_path: base_path.into(),
            deadline: None,
            silence_ends_at: None,
        };
        results_url(&head, "b")
    }

    #[test]
    fn results_have_the_host_the_scheme_and_the_prefixes_of_the_request() {
        let path = "/v1/messages/batches/b";
        let results = "/v1/messages/batches/b/results";
        assert_eq!(url("", path, &[("host", "a:1")]), format!("http://a:1{results}"));
        let proxied = [("host", "a"), ("x-forwarded-proto", "https, http")];
        assert_eq!(url("/llm", path, &proxied), format!("https://a/llm{results}"));
        assert_eq!(url("", &format!("https://a/anthropic{path}"), &[]), format!("https://a/anthropic{results}"));
        assert_eq!(url("", path, &[("host", "a"), ("x-forwarded-proto", "javascript")]), format!("http://a{results}"));
    }

    #[test]
    fn an_invalid_request_is_refused_with_its_number_and_field() {
        let request = |custom_id: &str| json!({ "custom_id": custom_id, "params": {} });
        let read = |body: Value| requests(body.to_string().as_bytes()).map(|requests| requests.len());
        assert_eq!(read(json!({ "requests": [request("a"), request("b")] })), Ok(2));
        for (body, param) in [
            (json!({}), "requests"),
            (json!({ "requests": [] }), "requests"),
            (json!({ "requests": [request("a")], "model": "m" }), "model"),
            (json!({ "requests": [request("a"), request("a")] }), "requests.1.custom_id"),
            (json!({ "requests": [request("a b")] }), "requests.0.custom_id"),
            (json!({ "requests": [request(&"a".repeat(65))] }), "requests.0.custom_id"),
            (json!({ "requests": [7] }), "requests.0.custom_id"),
            (json!({ "requests": { "0": request("a") } }), "requests"),
            (
                json!({ "requests": [{ "custom_id": "a", "params": { "a": vec![0; MAX_VALUES] } }] }),
                "requests.0.params",
            ),
            (json!({ "requests": [{ "custom_id": "a" }] }), "requests.0.params"),
            (json!({ "requests": [{ "custom_id": "a", "params": {}, "x": 1 }] }), "requests.0.params"),
            (json!({ "requests": [{ "custom_id": "a", "params": { "stream": true } }] }), "requests.0.params.stream"),
        ] {
            assert_eq!(read(body).expect_err(param).param.as_deref(), Some(param));
        }
    }
}
