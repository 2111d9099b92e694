//! OpenAI's batches (API reference, "Batch").

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{NewBatch, NewLines, accept, unknown_parameter, with_counts};
use crate::{
    app::App,
    batch::{Batch, BatchStatus, ResourceKind},
    dialect::{Api, json},
    http::{Body, Call, files, query::Query, reply},
    problem::{Kind, Problem},
    units::UnixMs,
};

/// The APIs that the lines of a batch can call.
const APIS: [Api; 3] = [Api::ChatCompletions, Api::Responses, Api::Embeddings];

/// Number of batches in a page without `limit`.
const DEFAULT_LIMIT: usize = 20;

/// Maximum `limit`.
const MAX_LIMIT: usize = 100;

/// Maximum of entries in the metadata of a batch.
const MAX_METADATA_ENTRIES: usize = 16;

/// Maximum length of a name in the metadata, in characters.
const MAX_METADATA_NAME_CHARS: usize = 64;

/// Maximum length of a value in the metadata, in characters.
const MAX_METADATA_VALUE_CHARS: usize = 512;

/// `POST /v1/batches`.
///
/// # Errors
/// Returns an error if a parameter is invalid, if the caller has no such file, or if the batch
/// cannot be accepted.
pub async fn create(app: &App, call: &Call, body: Bytes) -> Result<Response<Body>, Problem> {
    let parameters = BatchParameters::parse(&body)?;
    let for_input_file = |problem| Problem { param: Some("input_file_id".to_owned()), ..problem };
    let file = files::find(app, call, &parameters.input_file).await.map_err(for_input_file)?;
    if file.purpose != "batch" {
        return Err(Problem::invalid("input_file_id", "The file must have been uploaded with the purpose batch."));
    }
    let new = NewBatch {
        kind: ResourceKind::Batch,
        api: parameters.api,
        input_file: Some(file.id.clone()),
        lines: NewLines::File(file),
        total: 0,
        metadata: parameters.metadata,
        output_retention_s: parameters.output_retention_s,
    };
    let batch = accept(app, call, &body, new).await.map_err(|problem| match problem.kind {
        Kind::NotFound => for_input_file(problem),
        _ => problem,
    })?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(&with_counts(app, batch).await?)))
}

/// `GET /v1/batches`: a page of the caller's batches, the newest first.
///
/// # Errors
/// Returns an error if the query is invalid, if it names a batch that does not exist, or if the
/// store is unavailable.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let query = Query::read(call.head.parts.uri.query(), &["after", "limit"])?;
    let limit = query.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let (batches, has_more) = super::page(app, call, ResourceKind::Batch, query.get("after"), false, limit).await?;
    let mut data = Vec::with_capacity(batches.len());
    for batch in batches {
        data.push(object(&with_counts(app, batch).await?));
    }
    let id = |batch: Option<&Value>| batch.map(|batch| batch["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    let body = json!({ "object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more });
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `GET /v1/batches/{id}`.
///
/// # Errors
/// Returns an error if the caller has no such batch, or if the store is unavailable.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = super::find(app, call, ResourceKind::Batch, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(&with_counts(app, batch).await?)))
}

/// `POST /v1/batches/{id}/cancel`. A batch that has ended stays unchanged.
///
/// # Errors
/// Returns an error if the caller has no such batch, or if the store is unavailable.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = super::cancel(app, call, ResourceKind::Batch, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(&batch)))
}

/// The body of `POST /v1/batches`.
#[derive(Debug, PartialEq, Eq)]
struct BatchParameters {
    input_file: String,
    api: Api,
    metadata: Option<Map<String, Value>>,
    output_retention_s: Option<u64>,
}

impl BatchParameters {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let (mut input_file, mut api, mut window) = (None, None, None);
        let (mut metadata, mut output_retention_s) = (None, None);
        for (name, value) in json::body(body)?.into_iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "input_file_id" => input_file = value.as_str().map(str::to_owned),
                "endpoint" => api = APIS.into_iter().find(|api| value == api.path()),
                "completion_window" => window = (value == "24h").then_some(()),
                "metadata" => metadata = Some(parse_metadata(value)?),
                "output_expires_after" => output_retention_s = Some(parse_output_retention_s(&value)?),
                _ => return Err(unknown_parameter(&name, "A batch has no such parameter.")),
            }
        }
        window.ok_or_else(|| Problem::invalid("completion_window", "The completion_window must be 24h."))?;
        let api = api.ok_or_else(|| {
            Problem::invalid("endpoint", format!("The endpoint must be one of {}.", APIS.map(Api::path).join(", ")))
        })?;
        let input_file = input_file
            .ok_or_else(|| Problem::invalid("input_file_id", "The input_file_id must be the id of a file."))?;
        Ok(Self { input_file, api, metadata, output_retention_s })
    }
}

fn parse_metadata(value: Value) -> Result<Map<String, Value>, Problem> {
    let is_valid = |(name, value): (&String, &Value)| {
        name.chars().count() <= MAX_METADATA_NAME_CHARS
            && value.as_str().is_some_and(|value| value.chars().count() <= MAX_METADATA_VALUE_CHARS)
    };
    match value {
        Value::Object(metadata) if metadata.len() <= MAX_METADATA_ENTRIES && metadata.iter().all(is_valid) => {
            Ok(metadata)
        }
        _ => {
            let message = format!(
                "The metadata must be an object of at most {MAX_METADATA_ENTRIES} strings. A name has at most \
                 {MAX_METADATA_NAME_CHARS} characters, a string at most {MAX_METADATA_VALUE_CHARS}."
            );
            Err(Problem::invalid("metadata", message))
        }
    }
}

/// Parses `output_expires_after`: how long the output is kept, in seconds.
fn parse_output_retention_s(value: &Value) -> Result<u64, Problem> {
    if value["anchor"] != "created_at" {
        return Err(Problem::invalid("output_expires_after.anchor", "The anchor must be created_at."));
    }
    files::form::check_retention_s("output_expires_after.seconds", value["seconds"].as_u64())
}

/// The batch as an object of OpenAI's API.
fn object(batch: &Batch) -> Value {
    let seconds = |time: Option<UnixMs>| time.map(UnixMs::as_s);
    let ended_as = |status| seconds(batch.ended_at.filter(|_| batch.status == status));
    let errors = (!batch.errors.is_empty()).then(|| json!({ "object": "list", "data": batch.errors }));
    let counts = batch.counts;
    json!({
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.api.path(),
        "errors": errors,
        "input_file_id": batch.input_file,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": batch.created_at.as_s(),
        "in_progress_at": seconds(batch.in_progress_at),
        "expires_at": batch.expires_at.as_s(),
        "finalizing_at": seconds(batch.finalizing_at),
        "completed_at": ended_as(BatchStatus::Completed),
        "failed_at": ended_as(BatchStatus::Failed),
        "expired_at": ended_as(BatchStatus::Expired),
        "cancelling_at": seconds(batch.cancelling_at),
        "cancelled_at": ended_as(BatchStatus::Cancelled),
        "request_counts": { "total": batch.total, "completed": counts.completed, "failed": counts.failed },
        "metadata": batch.metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_parameter_is_refused_by_name() {
        let parse = |body: &Value| BatchParameters::parse(body.to_string().as_bytes());
        let valid = json!({ "input_file_id": "f", "endpoint": "/v1/responses", "completion_window": "24h" });
        assert!(parse(&valid).is_ok());
        for (name, value) in [
            ("input_file_id", json!(null)),
            ("endpoint", json!("/v1/images/edits")),
            ("completion_window", json!("1h")),
            ("metadata", json!({ "a": 1 })),
            ("metadata", json!({ "a": "x".repeat(513) })),
            ("extra", json!(true)),
        ] {
            let mut invalid = valid.clone();
            invalid[name] = value;
            let refused = parse(&invalid).expect_err(name);
            assert_eq!(refused.param.as_deref(), Some(name));
        }
        for (policy, param) in [
            (json!({ "anchor": "now", "seconds": 3_600 }), "output_expires_after.anchor"),
            (json!({ "anchor": "created_at", "seconds": 1 }), "output_expires_after.seconds"),
            (json!(7), "output_expires_after.anchor"),
        ] {
            let mut invalid = valid.clone();
            invalid["output_expires_after"] = policy;
            assert_eq!(parse(&invalid).expect_err(param).param.as_deref(), Some(param));
        }
    }
}
