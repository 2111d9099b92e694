//! OpenAI's batches (API reference, "Batch").

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{New, accept, counted};
use crate::{
    app::App,
    batch::{Batch, BatchStatus, ResourceKind},
    dialect::Api,
    http::{Body, Call, files, query::Query, reply},
    problem::Problem,
    units::UnixMs,
};

/// What the lines of a batch can ask.
const APIS: [Api; 3] = [Api::ChatCompletions, Api::Responses, Api::Embeddings];

/// How many batches a page has when nobody says, and at most.
const LIMITS: (usize, usize) = (20, 100);

/// The most notes about a batch, and the longest name and value of one, in characters.
const METADATA: (usize, usize, usize) = (16, 64, 512);

/// `POST /v1/batches`.
pub async fn create(app: &App, call: &Call, body: Bytes) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let asked = asked(&body)?;
    let told = |problem: Problem| Problem { param: Some("input_file_id".to_owned()), ..problem };
    let file = files::of_tenant(app, &tenant.name, &asked.input_file).await.map_err(told)?;
    if file.purpose != "batch" {
        return Err(Problem::invalid("input_file_id", "The file must have been uploaded with the purpose batch."));
    }
    let new = New {
        kind: ResourceKind::Batch,
        api: asked.api,
        // A copy, so that the file can go while the batch runs.
        lines: files::read(app, &file).await.map_err(told)?,
        input_file: Some(file.id),
        total: 0,
        metadata: asked.metadata,
        output_kept_s: asked.output_kept_s,
    };
    let batch = accept(app, call, &body, new).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &shown(&counted(app, batch).await?)))
}

/// `GET /v1/batches`, the newest first.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let query = Query::read(call.head.parts.uri.query(), &["after", "limit"])?;
    let limit = query.limit(LIMITS.0, LIMITS.1)?;
    let (batches, has_more) =
        super::page(app, &tenant.name, ResourceKind::Batch, query.get("after"), false, limit).await?;
    let mut data = Vec::with_capacity(batches.len());
    for batch in batches {
        data.push(shown(&counted(app, batch).await?));
    }
    let id = |batch: Option<&Value>| batch.map(|batch| batch["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    let body = json!({ "object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more });
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `GET /v1/batches/{id}`.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = super::find(app, call, ResourceKind::Batch, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &shown(&counted(app, batch).await?)))
}

/// `POST /v1/batches/{id}/cancel`.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let batch = super::cancel(app, call, ResourceKind::Batch, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &shown(&batch)))
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    input_file: String,
    api: Api,
    metadata: Option<Map<String, Value>>,
    output_kept_s: Option<u64>,
}

fn asked(body: &[u8]) -> Result<Asked, Problem> {
    let body: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|_| Problem::new(crate::problem::Kind::Invalid, "The request body must be a JSON object."))?;
    let (mut input_file, mut api, mut window, mut metadata, mut output_kept_s) = (None, None, None, None, None);
    for (name, value) in body.into_iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "input_file_id" => input_file = value.as_str().map(str::to_owned),
            "endpoint" => api = APIS.into_iter().find(|api| value == api.path()),
            "completion_window" => window = (value == "24h").then_some(()),
            "metadata" => metadata = Some(notes(value)?),
            "output_expires_after" => output_kept_s = Some(kept_s(&value)?),
            _ => {
                let shown: String = name.chars().take(40).collect();
                return Err(Problem::invalid(shown, "A batch has no such parameter."));
            }
        }
    }
    window.ok_or_else(|| Problem::invalid("completion_window", "The completion_window must be 24h."))?;
    let api = api.ok_or_else(|| {
        Problem::invalid("endpoint", format!("The endpoint must be one of {}.", APIS.map(Api::path).join(", ")))
    })?;
    let input_file =
        input_file.ok_or_else(|| Problem::invalid("input_file_id", "The input_file_id must be the id of a file."))?;
    Ok(Asked { input_file, api, metadata, output_kept_s })
}

fn notes(value: Value) -> Result<Map<String, Value>, Problem> {
    let (most, longest_name, longest_value) = METADATA;
    let is_note = |(name, value): (&String, &Value)| {
        name.chars().count() <= longest_name
            && value.as_str().is_some_and(|value| value.chars().count() <= longest_value)
    };
    match value {
        Value::Object(notes) if notes.len() <= most && notes.iter().all(is_note) => Ok(notes),
        _ => {
            let told = format!(
                "The metadata must be at most {most} strings of at most {longest_value} characters, under names of at \
                 most {longest_name}."
            );
            Err(Problem::invalid("metadata", told))
        }
    }
}

fn kept_s(value: &Value) -> Result<u64, Problem> {
    if value["anchor"] != "created_at" {
        return Err(Problem::invalid("output_expires_after.anchor", "The anchor must be created_at."));
    }
    files::form::seconds("output_expires_after.seconds", value["seconds"].as_u64())
}

fn shown(batch: &Batch) -> Value {
    let seconds = |time: Option<UnixMs>| time.map(UnixMs::as_s);
    let ended = |status| seconds(batch.ended_at.filter(|_| batch.status == status));
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
        "completed_at": ended(BatchStatus::Completed),
        "failed_at": ended(BatchStatus::Failed),
        "expired_at": ended(BatchStatus::Expired),
        "cancelling_at": seconds(batch.cancelling_at),
        "cancelled_at": ended(BatchStatus::Cancelled),
        "request_counts": { "total": batch.total, "completed": counts.completed, "failed": counts.failed },
        "metadata": batch.metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let good = json!({ "input_file_id": "f", "endpoint": "/v1/responses", "completion_window": "24h" });
        assert!(asked(good.to_string().as_bytes()).is_ok());
        for (name, value) in [
            ("input_file_id", json!(null)),
            ("endpoint", json!("/v1/images/edits")),
            ("completion_window", json!("1h")),
            ("metadata", json!({ "a": 1 })),
            ("metadata", json!({ "a": "x".repeat(513) })),
            ("extra", json!(true)),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            let refused = asked(bad.to_string().as_bytes()).expect_err(name);
            assert_eq!(refused.param.as_deref(), Some(name));
        }
        for (policy, param) in [
            (json!({ "anchor": "now", "seconds": 3_600 }), "output_expires_after.anchor"),
            (json!({ "anchor": "created_at", "seconds": 1 }), "output_expires_after.seconds"),
            (json!(7), "output_expires_after.anchor"),
        ] {
            let mut bad = good.clone();
            bad["output_expires_after"] = policy;
            assert_eq!(asked(bad.to_string().as_bytes()).expect_err(param).param.as_deref(), Some(param));
        }
    }
}
