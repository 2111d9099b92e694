//! OpenAI's background responses: jobs that their callers retrieve, cancel, delete and follow as responses.

mod query;
mod stream;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use self::query::Query;
use super::{Body, Call, jobs, reply};
use crate::{
    app::App,
    broker::{self, ModelRequest},
    dialect::{AnswerContext, Api, Dialect, ResponseState, last_response},
    job::{Job, JobReader, JobStatus, StoredCall},
    overflow::{self, Submission},
    problem::{Kind, Problem},
    tenant::{Class, Overflow},
};

/// What stands before the id of a job, without hyphens, in the id of a response.
const PREFIX: &str = "resp_";

/// Accepts a request that asks to be answered in the background: always as a job, and refused now only if it could never be
/// answered.
///
/// # Errors
/// The request can never be admitted, the tenant may not queue, or the job cannot be stored.
pub async fn create(
    app: &App,
    call: &Call,
    request: &ModelRequest,
    stored: StoredCall,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    if app.queue.is_none() || call.tenant.overflow == Overflow::Refuse {
        return Err(Problem::invalid("background", "background: nothing is queued here; leave it out or send false."));
    }
    broker::check(app, request).await?;
    let submission = Submission {
        id: Some(jobs::derived_id(call, &body).unwrap_or_else(|| call.head.request_id.clone())),
        call: stored,
        body,
        reader: JobReader::Background,
        priority: call.preferences.priority,
        class: Class::Batch,
        expires_at: jobs::expires_at(call, app.clock.now()),
    };
    let job = overflow::submit(app, &call.tenant, submission, None).await?;
    if request.chat.stream {
        return stream::follow(app, call, job, None).await;
    }
    Ok(reply::json(&call.head, StatusCode::OK, &object(app, &job).await?))
}

/// `GET /v1/responses/{id}`: the response as it stands, or with `stream=true` its events, those after `starting_after`.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let query = Query::read(call.head.parts.uri.query().unwrap_or_default())?;
    let job = find(app, call, id).await?;
    if query.is_stream {
        return stream::follow(app, call, job, query.starting_after).await;
    }
    Ok(reply::json(&call.head, StatusCode::OK, &object(app, &job).await?))
}

/// `POST /v1/responses/{id}/cancel`: takes it back, even if it runs. One that has ended stays as it is.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let cancelled = app.jobs.cancel_even_running(&job.id, &job.tenant, app.clock.now()).await;
    cancelled?;
    let job = find(app, call, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(app, &job).await?))
}

/// `DELETE /v1/responses/{id}`: deletes its request and its answer, and cancels it if it has not ended.
pub async fn delete(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    let deleted = app.jobs.delete(&job, app.clock.now()).await;
    deleted?;
    Ok(reply::json(&call.head, StatusCode::OK, &json!({ "id": id, "object": "response", "deleted": true })))
}

/// The caller's own background response.
async fn find(app: &App, call: &Call, id: &str) -> Result<Job, Problem> {
    let missing = || {
        let told = "There is no such response. Only those created with background: true are kept.";
        Problem::new(Kind::NotFound, told)
    };
    // An id that is none names no job.
    let of_job = id.strip_prefix(PREFIX).filter(|id| id.len() == 32).unwrap_or_default();
    let job = jobs::find(app, call, of_job).await.map_err(|problem| match problem.kind {
        Kind::NotFound => missing(),
        _ => problem,
    })?;
    Some(job).filter(|job| job.reader == JobReader::Background && !job.is_deleted).ok_or_else(missing)
}

/// The response as it stands.
async fn object(app: &App, job: &Job) -> Result<Value, Problem> {
    if job.status == JobStatus::Succeeded {
        let result = app.jobs.result(job).await?;
        return result.and_then(|result| last_response(&result.body)).ok_or_else(no_longer_kept);
    }
    let context = context(app, job).await?;
    Ok(standing(app, job).await?.response(&context))
}

/// Where a response stands that has no answer.
async fn standing(app: &App, job: &Job) -> Result<ResponseState, Problem> {
    Ok(match job.status {
        JobStatus::Queued => ResponseState::Queued,
        JobStatus::Running | JobStatus::Succeeded => ResponseState::InProgress,
        JobStatus::Cancelled => ResponseState::Cancelled,
        JobStatus::Failed | JobStatus::Expired => {
            let result = app.jobs.result(job).await?;
            failed(job, result.map(|result| result.status))
        }
    })
}

/// Why a job has no answer; `status` is what the call would have been answered with, if it was made.
fn failed(job: &Job, status: Option<u16>) -> ResponseState {
    let kind = match job.status {
        JobStatus::Expired => Kind::Throttled,
        _ => status.map_or(Kind::Internal, Dialect::kind_for_status),
    };
    let message = job.error.clone().unwrap_or_else(|| "The response failed.".to_owned());
    ResponseState::Failed { kind, message }
}

/// What the response repeats of its request: the same whoever reads it.
async fn context(app: &App, job: &Job) -> Result<AnswerContext, Problem> {
    let body = app.jobs.request(job).await?;
    let draft = Api::Responses.read(&body.ok_or_else(no_longer_kept)?, None, job.call.stream)?;
    let (request, echo) = draft.request(None, &HeaderMap::new())?;
    Ok(AnswerContext { request_id: job.answer_id(), model: request.model, created_at: job.created_at, echo })
}

fn no_longer_kept() -> Problem {
    Problem::new(Kind::NotFound, "The response is no longer kept.")
}
