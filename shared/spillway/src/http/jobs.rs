//! Overflow, as its owner sees it: a request accepted as a job, and what became of it.

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
    store::jobs::CancelOutcome,
    stored_headers::StoredHeaders,
    tenant::Class,
    units::{Millis, UnixMs},
};

/// How often a caller should look at its job, in seconds, when nothing better is known.
const POLL_S: u64 = 2;

/// Whether the answer to a request depends on this header of it.
fn is_kept(name: &str) -> bool {
    name == "accept" || name == "anthropic-beta" || name.starts_with("x-amzn-bedrock-")
}

/// Accepts a request that found no room as a job: 202 with its address and the estimated wait.
///
/// # Errors
/// Returns `refusal` if waiting cannot help, or an error if the job cannot be stored.
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
    let mut response = reply::json(&call.head, StatusCode::ACCEPTED, &status(app, &job, now));
    let location = path(app, &job);
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
    Ok(response)
}

/// Returns the time when a job of the caller that is accepted at `now` expires.
pub fn expires_at(call: &Call, now: UnixMs) -> UnixMs {
    let last = now + Millis::from_s(call.tenant.job_ttl_s);
    call.preferences.expires_at(last)
}

/// The id of the job that an `Idempotency-Key` names: the same for the same request with the same key, in every process, for
/// as long as the job is kept.
pub fn derived_id(call: &Call, body: &Bytes) -> Option<String> {
    let key = call.preferences.idempotency_key.as_ref()?;
    let path = call.head.parts.uri.path();
    let id = derive_uuid(&[call.tenant.name.as_bytes(), path.as_bytes(), key.as_bytes(), body]);
    Some(id.hyphenated().to_string())
}

/// The headers of a request that answers to it depend on, by lower-case name.
pub fn kept_headers(call: &Call) -> StoredHeaders {
    call.head.parts.headers.iter().filter(|(name, _)| is_kept(name.as_str())).collect()
}

/// `GET /v1/jobs/{id}`.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let now = app.clock.now();
    let mut body = status(app, &job, now);
    if job.status == JobStatus::Queued {
        let ahead = app.jobs.count_before(&job).await?;
        let start = job::estimated_start(job.ready_at, ahead, call.tenant.limits.requests_per_minute, now);
        body["position"] = json!(ahead + 1);
        body["estimated_start_ms"] = json!(start);
        body["estimated_wait_ms"] = json!(start - now);
    }
    let mut response = reply::json(&call.head, StatusCode::OK, &body);
    if !job.status.is_final() {
        response.headers_mut().extend(reply::header("retry-after", &POLL_S.to_string()));
    }
    Ok(response)
}

/// `GET /v1/jobs/{id}/result`: the answer exactly as the synchronous call would have given it.
pub async fn result(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let stored = app.jobs.result(&job).await?;
    let Some(stored) = stored else { return Err(no_result(&job)) };
    Ok(reply::stored(&call.head, stored, Vec::new()))
}

fn no_result(job: &Job) -> Problem {
    let why = job.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    let told = match job.status {
        JobStatus::Queued | JobStatus::Running => format!("The job is {} and has no result yet.", job.status.name()),
        ended => format!("The job has no result: it ended {}{why}.", ended.name()),
    };
    Problem::new(Kind::Conflict, told)
}

/// `DELETE /v1/jobs/{id}`: takes a job back that has not been claimed.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let now = app.clock.now();
    let cancelled = app.jobs.cancel(&job.id, &job.tenant, now).await;
    match cancelled? {
        CancelOutcome::Cancelled => {
            overflow::notify_end(app, &job).await;
            let job = Job { status: JobStatus::Cancelled, finished_at: Some(now), ..job };
            Ok(reply::json(&call.head, StatusCode::OK, &status(app, &job, now)))
        }
        CancelOutcome::TooLate(status) => {
            let told = format!("The job is {}; only a queued job can be cancelled.", status.name());
            Err(Problem::new(Kind::Conflict, told))
        }
        CancelOutcome::Missing => Err(missing()),
    }
}

/// The caller's own job; another tenant's looks as if it did not exist.
pub async fn find(app: &App, call: &Call, id: &str) -> Result<Job, Problem> {
    let job = app.jobs.get(id).await?;
    job.filter(|job| job.tenant == call.tenant.name).ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::new(Kind::NotFound, "There is no such job.")
}

/// Where the caller finds a job.
fn path(app: &App, job: &Job) -> String {
    format!("{}/v1/jobs/{}", app.path_prefix, job.id)
}

fn status(app: &App, job: &Job, now: UnixMs) -> Value {
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
        "result": (matches!(job.status, JobStatus::Succeeded | JobStatus::Failed)).then(|| path(app, job) + "/result"),
    })
}
