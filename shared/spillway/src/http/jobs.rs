//! Overflow, as its owner sees it: a request accepted as a job, and what became of it.

mod list;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

pub use list::list;

use super::{Body, Call, reply};
use crate::{
    app::App,
    batch::derived,
    job::{self, Job, Reader, Status},
    overflow::{self, Submission},
    problem::{Kind, Problem, RefusedBy},
    quota::LimitName,
    store::jobs::Cancel,
    tenant::Class,
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
    request: job::Call,
    body: Bytes,
    refusal: Problem,
) -> Result<Response<Body>, Problem> {
    let now_ms = app.clock.now_ms();
    let submission = Submission {
        id: derived_id(call, &body),
        call: request,
        body,
        reader: Reader::Later,
        priority: call.preferences.priority,
        class: Class::Batch,
        expires_ms: expires_ms(call, now_ms),
    };
    let job = overflow::submit(app, &call.tenant, submission, Some(&refusal)).await?;
    let retry_after = refusal.retry_after.unwrap_or_default();
    let limit_names = refusal.refused_by.as_ref().map(RefusedBy::limit_names);
    let mut response = reply::json(&call.head, StatusCode::ACCEPTED, &status(app, &job, now_ms));
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

/// When a job of the caller expires that is accepted at `now_ms`, in milliseconds since 1970.
pub fn expires_ms(call: &Call, now_ms: u64) -> u64 {
    call.preferences.expires_ms(now_ms.saturating_add(call.tenant.job_ttl_s.saturating_mul(1_000)))
}

/// The id of the job that an `Idempotency-Key` names: the same for the same request with the same key, in every process, for
/// as long as the job is kept.
pub fn derived_id(call: &Call, body: &Bytes) -> Option<String> {
    let key = call.preferences.idempotency_key.as_ref()?;
    let path = call.head.parts.uri.path();
    let id = derived(&[call.tenant.name.as_bytes(), path.as_bytes(), key.as_bytes(), body]);
    Some(id.hyphenated().to_string())
}

/// The headers of a request that answers to it depend on, by lower-case name.
pub fn kept_headers(call: &Call) -> Vec<(String, String)> {
    let kept = call.head.parts.headers.iter().filter(|(name, _)| is_kept(name.as_str()));
    kept.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect()
}

/// `GET /v1/jobs/{id}`.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let now_ms = app.clock.now_ms();
    let mut body = status(app, &job, now_ms);
    if job.status == Status::Queued {
        let ahead = app.jobs.count_before(&job).await?;
        let start_ms = job::earliest_start_ms(job.ready_ms, ahead, call.tenant.limits.requests_per_minute, now_ms);
        body["position"] = json!(ahead + 1);
        body["estimated_start_ms"] = json!(start_ms);
        body["estimated_wait_ms"] = json!(start_ms.saturating_sub(now_ms));
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
        Status::Queued | Status::Running => format!("The job is {} and has no result yet.", job.status.name()),
        ended => format!("The job has no result: it ended {}{why}.", ended.name()),
    };
    Problem::new(Kind::Conflict, told)
}

/// `DELETE /v1/jobs/{id}`: takes a job back that has not been claimed.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let now_ms = app.clock.now_ms();
    let cancelled = app.jobs.cancel(&job.id, &job.tenant, now_ms).await;
    match cancelled? {
        Cancel::Cancelled => {
            overflow::notify_end(app, &job).await;
            let job = Job { status: Status::Cancelled, finished_ms: Some(now_ms), ..job };
            Ok(reply::json(&call.head, StatusCode::OK, &status(app, &job, now_ms)))
        }
        Cancel::TooLate(status) => {
            let told = format!("The job is {}; only a queued job can be cancelled.", status.name());
            Err(Problem::new(Kind::Conflict, told))
        }
        Cancel::Missing => Err(missing()),
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

fn status(app: &App, job: &Job, now_ms: u64) -> Value {
    let estimated_start_ms = match job.status {
        Status::Queued => Some(job.ready_ms.max(now_ms)),
        _ => job.started_ms,
    };
    json!({
        "object": "job",
        "id": job.id,
        "status": job.status,
        "priority": job.priority,
        "request": format!("POST {}", job.call.path),
        "created_ms": job.created_ms,
        "estimated_start_ms": estimated_start_ms,
        "estimated_wait_ms": estimated_start_ms.map(|start_ms| start_ms.saturating_sub(now_ms)),
        "started_ms": job.started_ms,
        "finished_ms": job.finished_ms,
        "expires_ms": job.expires_ms,
        "error": job.error,
        "result": (matches!(job.status, Status::Succeeded | Status::Failed)).then(|| path(app, job) + "/result"),
    })
}
