//! Background responses of OpenAI's API: jobs that their callers retrieve, cancel, delete and
//! follow as responses.

mod stream;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Body, Call, jobs,
    query::{Query, invalid},
    reply,
};
use crate::{
    app::App,
    broker::{self, ModelRequest},
    dialect::{AnswerContext, Api, Dialect, ResponseState, last_response},
    job::{Job, JobReader, JobStatus, StoredCall},
    overflow::{self, Submission},
    problem::{Kind, Problem},
    tenant::{Class, Overflow},
};

/// Prefix of a response's id. The rest is the id of its job without hyphens.
const PREFIX: &str = "resp_";

/// Length of a job's id without hyphens.
const JOB_ID_CHARS: usize = 32;

/// Accepts a request with `background: true`. It always becomes a job, even if there is room.
/// Answers with the response object or, for a stream, with the events up to the end.
///
/// # Errors
/// Returns an error if the request could never be admitted, if the tenant may not queue requests,
/// or if the job cannot be stored.
pub async fn create(
    app: &App,
    call: &Call,
    request: &ModelRequest,
    stored: StoredCall,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    if app.queue.is_none() || call.tenant.overflow == Overflow::Refuse {
        let message = "Requests of this tenant are not queued. Leave out background, or set it to false.";
        return Err(Problem::invalid("background", message));
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
    let response = match request.chat.stream {
        true => stream::follow(app, call, job.clone(), None).await?,
        false => reply::json(&call.head, StatusCode::OK, &object(app, &job).await?),
    };
    Ok(reply::with_job_id(response, &job))
}

/// `GET /v1/responses/{id}`: the response in its current state or, with `stream=true`, its events
/// after `starting_after` up to the end.
///
/// # Errors
/// Returns an error if the query is invalid, if the caller has no such response, or if the store is
/// unavailable.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let view = ResponseView::from_query(call.head.parts.uri.query())?;
    let job = find(app, call, id).await?;
    match view {
        ResponseView::Response => Ok(reply::json(&call.head, StatusCode::OK, &object(app, &job).await?)),
        ResponseView::Stream { after } => stream::follow(app, call, job, after).await,
    }
}

/// The form in which a response is retrieved.
#[derive(Debug, PartialEq, Eq)]
enum ResponseView {
    /// The response in its current state.
    Response,
    /// Its events after the event with this sequence number.
    Stream { after: Option<u64> },
}

impl ResponseView {
    /// Reads the query of `GET /v1/responses/{id}`. Parameters that only add detail, such as
    /// `include`, are ignored.
    fn from_query(query: Option<&str>) -> Result<Self, Problem> {
        let query = Query::read_known(query, &["stream", "starting_after"])?;
        let after = query.get("starting_after").map(str::parse).transpose();
        let after = after.map_err(|_| invalid("starting_after", "a sequence number"))?;
        match query.get("stream") {
            Some("true") => Ok(Self::Stream { after }),
            None | Some("false") if after.is_some() => Err(invalid("starting_after", "used with stream=true")),
            None | Some("false") => Ok(Self::Response),
            Some(_) => Err(invalid("stream", "true or false")),
        }
    }
}

/// `POST /v1/responses/{id}/cancel`: cancels the response, even if it is running. A response that
/// has ended stays unchanged.
///
/// # Errors
/// Returns an error if the caller has no such response, or if the store is unavailable.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    app.jobs.cancel_even_running(&job.id, &job.tenant, app.clock.now()).await?;
    overflow::notify_end(app, &job).await;
    let job = find(app, call, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(app, &job).await?))
}

/// `DELETE /v1/responses/{id}`: deletes the request and the answer. A response that has not ended
/// is cancelled.
///
/// # Errors
/// Returns an error if the caller has no such response, or if the store is unavailable.
pub async fn delete(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let job = find(app, call, id).await?;
    app.jobs.delete(&job, app.clock.now()).await?;
    overflow::notify_end(app, &job).await;
    Ok(reply::json(&call.head, StatusCode::OK, &json!({ "id": id, "object": "response", "deleted": true })))
}

/// Returns the job of the caller's background response with this id.
async fn find(app: &App, call: &Call, id: &str) -> Result<Job, Problem> {
    let job_id = id.strip_prefix(PREFIX).filter(|id| id.len() == JOB_ID_CHARS).ok_or_else(missing)?;
    let job = jobs::find(app, call, job_id).await.map_err(|problem| match problem.kind {
        Kind::NotFound => missing(),
        _ => problem,
    })?;
    Some(job).filter(|job| job.reader == JobReader::Background && !job.is_deleted).ok_or_else(missing)
}

/// Returns the response in its current state as an object of OpenAI's API.
async fn object(app: &App, job: &Job) -> Result<Value, Problem> {
    if job.status == JobStatus::Succeeded {
        let result = app.jobs.result(job).await?;
        return result.and_then(|result| last_response(&result.body)).ok_or_else(no_longer_kept);
    }
    let context = context(app, job).await?;
    Ok(state(app, job).await?.response(&context))
}

/// Returns the state of a response that has no answer.
async fn state(app: &App, job: &Job) -> Result<ResponseState, Problem> {
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

/// The state of a response whose job failed or expired. `http_status` is the status of the stored
/// error, if there is one.
fn failed(job: &Job, http_status: Option<u16>) -> ResponseState {
    let kind = match job.status {
        JobStatus::Expired => Kind::Throttled,
        _ => http_status.map_or(Kind::Internal, Dialect::kind_for_status),
    };
    let message = job.error.clone().unwrap_or_else(|| "The response failed.".to_owned());
    ResponseState::Failed { kind, message }
}

/// Returns the parts of the request that the response repeats. They come from the stored request,
/// so they are the same for every reader.
async fn context(app: &App, job: &Job) -> Result<AnswerContext, Problem> {
    let body = app.jobs.request(job).await?;
    let draft = Api::Responses.read(&body.ok_or_else(no_longer_kept)?, None, job.call.stream)?;
    let (request, echo) = draft.request(None, &HeaderMap::new())?;
    Ok(AnswerContext { request_id: job.answer_id(), model: request.model, created_at: job.created_at, echo })
}

fn missing() -> Problem {
    let message = "There is no such response. Only responses created with background: true are kept.";
    Problem::new(Kind::NotFound, message)
}

fn no_longer_kept() -> Problem {
    Problem::new(Kind::NotFound, "The response is no longer kept.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_selects_the_response_or_its_events() {
        for query in ["", "stream=false", "include%5B%5D=message.output_text.logprobs"] {
            assert_eq!(ResponseView::from_query(Some(query)), Ok(ResponseView::Response), "{query}");
        }
        let events = ResponseView::from_query(Some("starting_after=41&stream=true&include_obfuscation=false"));
        assert_eq!(events, Ok(ResponseView::Stream { after: Some(41) }));
    }

    #[test]
    fn an_invalid_parameter_is_refused_by_name() {
        for (query, name) in [
            ("stream=yes", "stream"),
            ("stream=true&starting_after=-1", "starting_after"),
            ("stream=true&starting_after=x", "starting_after"),
            ("starting_after=1", "starting_after"),
        ] {
            assert_eq!(ResponseView::from_query(Some(query)).expect_err(query).param.as_deref(), Some(name), "{query}");
        }
    }
}
