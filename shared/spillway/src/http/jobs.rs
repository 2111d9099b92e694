//! Overflow, as its owner sees it: a request accepted as a job, and what became of it.

mod list;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

pub use list::list;

use super::{Body, Call, auth, reply, terms};
use crate::{
    app::App,
    batch::derived,
    broker,
    chat::{Kind, Problem},
    drain,
    job::{self, Job, NewJob, Status},
    queue::Queue,
    quota::LimitName,
    store::{StoreError, jobs::Cancel},
    tenant::{Class, Tenant},
};

/// How often a caller should look at its job, in seconds, when nothing better is known.
const POLL_S: u64 = 2;

/// Whether the answer to a request depends on this header of it.
fn is_kept(name: &str) -> bool {
    name == "accept" || name == "anthropic-beta" || name.starts_with("x-amzn-bedrock-")
}

/// Refuses what can wait if jobs of its tenant wait already, with the time of the next of them: it goes behind them, instead of
/// taking the room that comes free from them and from other tenants. If that cannot be found out, it is tried like any other.
pub async fn behind_others(app: &App, tenant: &Tenant) -> Result<(), Problem> {
    match app.jobs.next_waiting(&tenant.name).await {
        Ok(Some(next)) => Err(broker::behind_jobs(&tenant.name, next.ready_ms.saturating_sub(app.clock.now_ms()))),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Turns a request that found no room into a job: 202 with its address and the estimated wait. The job is stored
/// first and its message sent second, so that nothing accepted is ever lost.
///
/// # Errors
/// What `refused` says, if waiting cannot help; or the job cannot be stored.
pub async fn accept(
    app: &App,
    call: &Call,
    tenant: &Tenant,
    body: Bytes,
    stream: bool,
    refused: Problem,
) -> Result<Response<Body>, Problem> {
    let (Some(queue), Some(wait_ms)) = (&app.queue, refused.retry_after_ms) else { return Err(refused) };
    let now_ms = app.clock.now_ms();
    let terms = terms::terms(&call.parts.headers, now_ms)?;
    let lasts_until_ms = now_ms.saturating_add(tenant.job_ttl_s.saturating_mul(1_000));
    let expires_ms = terms.expires_ms(lasts_until_ms);
    if now_ms.saturating_add(wait_ms) > expires_ms {
        return Err(refused);
    }
    let new = NewJob {
        id: named_id(&tenant.name, call, &body),
        tenant: tenant.name.clone(),
        call: stored_call(call, stream),
        body,
        created_ms: now_ms,
        ready_ms: now_ms + wait_ms,
        expires_ms,
        priority: terms.priority,
        class: Class::Batch,
        member: None,
    };
    let job = app.jobs.submit(&new).await.map_err(|error| not_stored(&error, &refused))?;
    send(queue, &job, drain::delay_ms(&refused, wait_ms)).await;
    let mut response = reply::json(call, StatusCode::ACCEPTED, &status(app, &job, now_ms));
    let location = path(app, &job);
    response.headers_mut().extend(
        [
            reply::header("location", &location),
            reply::header("preference-applied", "respond-async"),
            reply::header("retry-after", &wait_ms.div_ceil(1_000).to_string()),
            Some(LimitName::join(&refused.limits, ","))
                .filter(|limits| !limits.is_empty())
                .and_then(|limits| reply::header("x-spillway-limit", &limits)),
        ]
        .into_iter()
        .flatten(),
    );
    Ok(response)
}

/// What to tell who was `refused` and whose job cannot be stored either.
pub fn not_stored(error: &StoreError, refused: &Problem) -> Problem {
    match error {
        StoreError::TooLarge { limit, .. } => {
            let told = format!("There is no room now, and a request over {limit} bytes cannot wait as a job.");
            Problem { message: told, ..refused.clone() }
        }
        error => broker::unreachable("job store", error),
    }
}

/// Sends the message of a job that was stored. If that fails, the sweep finds the job and sends it.
pub async fn send(queue: &Queue, job: &Job, delay_ms: u64) {
    if let Err(error) = queue.send(&job.id, &job.tenant, delay_ms).await {
        tracing::warn!(job_id = job.id, %error, "the message of a job was not sent");
    }
}

/// The id of the job that an `Idempotency-Key` names: the same for the same request with the same key, whichever process
/// reads it, for as long as the job is kept.
pub fn named_id(tenant: &str, call: &Call, body: &Bytes) -> Option<String> {
    let key = call.parts.headers.get("idempotency-key")?;
    let id = derived(&[tenant.as_bytes(), call.parts.uri.path().as_bytes(), key.as_bytes(), body]);
    Some(id.hyphenated().to_string())
}

/// The headers of a request that answers to it depend on, by lower-case name.
pub fn kept_headers(call: &Call) -> Vec<(String, String)> {
    let kept = call.parts.headers.iter().filter(|(name, _)| is_kept(name.as_str()));
    kept.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect()
}

pub fn stored_call(call: &Call, stream: bool) -> job::Call {
    job::Call {
        dialect: call.dialect,
        method: call.parts.method.to_string(),
        path: call.parts.uri.path().to_owned(),
        headers: kept_headers(call),
        stream,
    }
}

/// `GET /v1/jobs/{id}`.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let tenant = auth::tenant(app, &call.parts).await?;
    let job = find(app, call, id).await?;
    let now_ms = app.clock.now_ms();
    let mut body = status(app, &job, now_ms);
    if job.status == Status::Queued {
        let ahead = app.jobs.count_before(&job).await.map_err(|error| broker::unreachable("job store", &error))?;
        let start_ms = job::earliest_start_ms(job.ready_ms, ahead, tenant.limits.requests_per_minute, now_ms);
        body["position"] = json!(ahead + 1);
        body["estimated_start_ms"] = json!(start_ms);
        body["estimated_wait_ms"] = json!(start_ms.saturating_sub(now_ms));
    }
    let mut response = reply::json(call, StatusCode::OK, &body);
    if !job.status.is_final() {
        response.headers_mut().extend(reply::header("retry-after", &POLL_S.to_string()));
    }
    Ok(response)
}

/// `GET /v1/jobs/{id}/result`: the answer exactly as the synchronous call would have given it.
pub async fn result(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let stored = app.jobs.result(&job).await.map_err(|error| broker::unreachable("job store", &error))?;
    let Some(stored) = stored else { return Err(no_result(&job)) };
    Ok(reply::stored(call, stored, Vec::new()))
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
    match cancelled.map_err(|error| broker::unreachable("job store", &error))? {
        Cancel::Cancelled => {
            drain::ended::tell(app, &job).await;
            let job = Job { status: Status::Cancelled, finished_ms: Some(now_ms), ..job };
            Ok(reply::json(call, StatusCode::OK, &status(app, &job, now_ms)))
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
    let tenant = auth::tenant(app, &call.parts).await?;
    let job = app.jobs.get(id).await.map_err(|error| broker::unreachable("job store", &error))?;
    job.filter(|job| job.tenant == tenant.name).ok_or_else(missing)
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
        "request": format!("{} {}", job.call.method, job.call.path),
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
