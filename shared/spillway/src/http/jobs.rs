//! Jobs: requests that are accepted to be answered later, and the routes of their owners.

mod list;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

pub use list::list;

use super::{Body, Call, reply};
use crate::{
    app::App,
    batch::derive_uuid,
    job::{self, Job, JobReader, JobStatus, StoredCall},
    overflow::{self, Submission},
    problem::{Kind, Problem, RefusedBy},
    quota::LimitName,
    store::jobs::{CancelOutcome, MAX_COUNTED},
    stored_headers::StoredHeaders,
    tenant::Class,
    units::{Millis, UnixMs},
};

/// Interval at which a caller should ask for the state of its job, sent as `retry-after`.
const POLL_INTERVAL: Millis = Millis::from_s(2);

/// Whether the answer to a request may depend on the header `name`, in lower case.
fn is_kept(name: &str) -> bool {
    name == "accept" || name == "anthropic-beta" || name.starts_with("x-amzn-bedrock-")
}

/// Accepts a request that found no room as a job. Answers 202 with the job's path and its estimated
/// wait.
///
/// # Errors
/// Returns `refusal` if the job would expire before there is room. Returns an error if the job
/// cannot be stored.
pub async fn accept(
    app: &App,
    call: &Call,
    request: StoredCall,
    body: Bytes,
    refusal: Problem,
) -> Result<Response<Body>, Problem> {
    let now = app.clock.now();
    let submission = Submission {
        id: derived_id(call, &body),
        call: request,
        body,
        reader: JobReader::Later,
        priority: call.preferences.priority,
        class: Class::Batch,
        expires_at: expires_at(call, now),
    };
    let job = overflow::submit(app, &call.tenant, submission, Some(&refusal)).await?;
    let retry_after = refusal.retry_after.unwrap_or_default();
    let limit_names = refusal.refused_by.as_ref().map(RefusedBy::limit_names);
    let mut response = reply::json(&call.head, StatusCode::ACCEPTED, &object(call, &job, now));
    let location = path(call, &job);
    response.headers_mut().extend(
        [
            reply::header("location", &location),
            reply::header("preference-applied", "respond-async"),
            reply::header("retry-after", &retry_after.as_s_rounded_up().to_string()),
            limit_names.and_then(|names| reply::header("x-spillway-limit", &LimitName::join(&names, ","))),
        ]
        .into_iter()
        .flatten(),
    );
    Ok(reply::with_job_id(response, &job))
}

/// Returns the time when a job expires that is accepted at `now`: the end of the tenant's maximum
/// wait, or the caller's `Spillway-Deadline` if that is earlier.
pub fn expires_at(call: &Call, now: UnixMs) -> UnixMs {
    let last = now + Millis::from_s(call.tenant.job_ttl_s);
    call.preferences.expires_at(last)
}

/// Returns the id of the job of a request with an `Idempotency-Key`. Requests with the same key,
/// path and body have the same id in every process.
pub fn derived_id(call: &Call, body: &Bytes) -> Option<String> {
    let key = call.preferences.idempotency_key.as_ref()?;
    let path = call.head.parts.uri.path();
    let id = derive_uuid(&[call.tenant.name.as_bytes(), path.as_bytes(), key.as_bytes(), body]);
    Some(id.hyphenated().to_string())
}

/// Returns the headers of the request that its answer may depend on.
pub fn kept_headers(call: &Call) -> StoredHeaders {
    call.head.parts.headers.iter().filter(|(name, _)| is_kept(name.as_str())).collect()
}

/// `GET /v1/jobs/{id}`: the state of a job. A queued job has its position and its estimated start.
/// Jobs far behind have no exact position: `position_is_minimum` is then true, and the estimate is
/// the earliest start.
///
/// # Errors
/// Returns an error if the caller has no such job, or if the store is unavailable.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let now = app.clock.now();
    let mut body = object(call, &job, now);
    if job.status == JobStatus::Queued {
        let ahead = app.jobs.count_before(&job).await?;
        let start = job::estimated_start(job.ready_at, ahead, call.tenant.limits.requests_per_minute, now);
        body["position"] = json!(ahead.min(MAX_COUNTED) + 1);
        body["position_is_minimum"] = json!(ahead > MAX_COUNTED);
        body["estimated_start_ms"] = json!(start);
        body["estimated_wait_ms"] = json!(start - now);
    }
    let mut response = reply::json(&call.head, StatusCode::OK, &body);
    if !job.status.is_final() {
        response.headers_mut().extend(reply::header("retry-after", &POLL_INTERVAL.as_s_rounded_up().to_string()));
    }
    Ok(response)
}

/// `GET /v1/jobs/{id}/result`: the same response that a synchronous call would have received.
///
/// # Errors
/// Returns an error if the caller has no such job, if the job has no result (409), or if the store
/// is unavailable.
pub async fn result(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let result = app.jobs.result(&job).await?.ok_or_else(|| no_result(&job))?;
    Ok(reply::stored(&call.head, result, Vec::new()))
}

fn no_result(job: &Job) -> Problem {
    let status = job.status.name();
    let message = match &job.error {
        _ if !job.status.is_final() => format!("The job is {status} and has no result yet."),
        Some(error) => {
            let reason = error.trim_end_matches('.');
            format!("The job ended with the status {status} and has no result: {reason}.")
        }
        None => format!("The job ended with the status {status} and has no result."),
    };
    Problem::new(Kind::Conflict, message)
}

/// `DELETE /v1/jobs/{id}`: cancels a queued job.
///
/// # Errors
/// Returns an error if the caller has no such job, if the job is running or has ended (409), or if
/// the store is unavailable.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let now = app.clock.now();
    match app.jobs.cancel(&job.id, &job.tenant, now).await? {
        CancelOutcome::Cancelled => {
            overflow::notify_end(app, &job).await;
            let job = Job { status: JobStatus::Cancelled, finished_at: Some(now), ..job };
            Ok(reply::json(&call.head, StatusCode::OK, &object(call, &job, now)))
        }
        CancelOutcome::TooLate(status) => {
            let message = format!("The job is {}. Only a queued job can be cancelled.", status.name());
            Err(Problem::new(Kind::Conflict, message))
        }
        CancelOutcome::Missing => Err(missing()),
    }
}

/// Returns the caller's job with this id. Jobs of other tenants count as missing.
///
/// # Errors
/// Returns an error if the caller has no such job (404), or if the store is unavailable.
pub async fn find(app: &App, call: &Call, id: &str) -> Result<Job, Problem> {
    let job = app.jobs.get(id).await?;
    job.filter(|job| job.tenant == call.tenant.name).ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::new(Kind::NotFound, "There is no such job.")
}

/// The path of a job, as callers see it.
fn path(call: &Call, job: &Job) -> String {
    format!("{}/v1/jobs/{}", call.head.base_path, job.id)
}

/// The job as an object of the API.
fn object(call: &Call, job: &Job, now: UnixMs) -> Value {
    let estimated_start = match job.status {
        JobStatus::Queued => Some(job.ready_at.max(now)),
        _ => job.started_at,
    };
    json!({
        "object": "job",
        "id": job.id,
        "status": job.status,
        "priority": job.priority,
        "request": format!("POST {}", job.call.path),
        "created_ms": job.created_at,
        "estimated_start_ms": estimated_start,
        "estimated_wait_ms": estimated_start.map(|start| start - now),
        "started_ms": job.started_at,
        "finished_ms": job.finished_at,
        "expires_ms": job.expires_at,
        "error": job.error,
        "result": (matches!(job.status, JobStatus::Succeeded | JobStatus::Failed)).then(|| path(call, job) + "/result"),
    })
}
