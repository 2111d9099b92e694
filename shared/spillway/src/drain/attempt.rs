//! An attempt at a job: serves its request as if it came in now, and returns the response that the
//! caller would have received.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{lease::AttemptTimes, partial_output::PartialOutput};
use crate::{
    app::App,
    broker::{self, ModelRequest, Reply, ServeError},
    dialect::{AnswerContext, Api, Echo, Rendered},
    heavy_work,
    job::{FailureReason, Job, JobOutcome, JobReader, StoredResult},
    problem::{Kind, Problem},
    quota::Capacity,
    stored_headers::StoredHeaders,
    telemetry::RequestEvent,
    tenant::Class,
    units::{Millis, UnixMs},
};

/// The outcome of an attempt.
pub enum AttemptOutcome {
    /// The model answered.
    Answered(StoredResult),
    /// There is no room, no pool works, or a service of the broker is unavailable. Nothing was
    /// billed.
    Deferred(Box<Deferral>),
    /// The attempt failed; `is_final` if another attempt would fail the same way.
    Failed { error: String, reason: FailureReason, result: StoredResult, is_final: bool },
}

/// An attempt that is made again later.
pub struct Deferral {
    pub problem: Problem,
    /// Time after which there may be an answer.
    pub retry_after: Millis,
    /// The event of the attempt, which is not recorded yet.
    pub event: RequestEvent,
}

/// Why an attempt has no answer.
struct Unserved {
    problem: Problem,
    /// The event of the attempt. `None` if it is recorded, because a call may be billed.
    event: Option<Box<RequestEvent>>,
}

/// Time until the next attempt if Bedrock denies the broker all pools of the model.
const DENIED_RETRY_AFTER: Millis = Millis::from_s(5);

/// Returns the maximum duration of a call: the longest timeout of all models.
///
/// # Errors
/// Returns an error if the registry is unavailable.
pub async fn max_call(app: &App) -> anyhow::Result<Millis> {
    let catalogue = app.registry.catalogue().await?;
    Ok(catalogue.models().map(|model| model.timeout).max().unwrap_or_default())
}

/// Serves the job's request once, within `times`. The request has no hold and does not overflow,
/// and it can fill only the share of a pool that is for work that can wait.
///
/// An attempt calls each pool of the ladder at most once, and no further pool after a call that may
/// be billed.
pub async fn attempt(app: &App, job: &Job, body: &Bytes, times: AttemptTimes) -> AttemptOutcome {
    let mut partial_output = PartialOutput::new(app, job);
    let Unserved { problem, event } = match serve(app, job, body, times, &mut partial_output).await {
        Ok(result) => return AttemptOutcome::Answered(result),
        Err(unserved) => unserved,
    };
    // A caller that waits gets the failure as if there had been no queue: a call that may have been
    // billed is not repeated, and output that was read cannot be taken back.
    let is_waiting = job.reader == JobReader::Waiting;
    if let Some(mut event) = event {
        if let Some(retry_after) = retry_after(&problem, is_waiting) {
            return AttemptOutcome::Deferred(Box::new(Deferral { problem, retry_after, event: *event }));
        }
        event.fail(&problem);
        app.telemetry.record(*event);
    }
    // A model that is still answering at its timeout would do so again.
    let has_timed_out = problem.kind == Kind::Timeout && partial_output.has_output();
    failed(job, &problem, is_waiting || has_timed_out)
}

/// Returns the time until the next attempt, if this one counts as none. That Bedrock denies a model
/// may pass: a right may be missing for a moment. A caller that waits gets that failure at once.
fn retry_after(problem: &Problem, is_waiting: bool) -> Option<Millis> {
    let is_denied = || problem.skipped.as_ref().is_some_and(|skipped| skipped.is_whole_ladder);
    match problem.kind {
        Kind::Throttled | Kind::Unavailable => problem.retry_after,
        Kind::Model if !is_waiting && is_denied() => Some(problem.retry_after.unwrap_or(DENIED_RETRY_AFTER)),
        _ => None,
    }
}

fn failed(job: &Job, problem: &Problem, is_last: bool) -> AttemptOutcome {
    let is_final = is_last
        || !matches!(problem.kind, Kind::Unavailable | Kind::Timeout | Kind::Model | Kind::Internal | Kind::Throttled);
    let reason = FailureReason::for_kind(problem.kind);
    AttemptOutcome::Failed { error: problem.message.clone(), reason, result: result(job, problem), is_final }
}

/// Returns the result of a job that fails with `problem`: what a synchronous call would have
/// received.
pub fn result(job: &Job, problem: &Problem) -> StoredResult {
    stored(job.call.api.dialect().problem(&job.id, problem), [])
}

/// Returns the outcome of a job whose answer of `bytes` is larger than `limit`.
pub fn too_large_to_store(job: &Job, bytes: usize, limit: usize) -> JobOutcome {
    let message = format!("The answer has {bytes} bytes. A job can store at most {limit} bytes.");
    let problem = Problem::new(Kind::Model, message);
    JobOutcome::Failed { result: result(job, &problem), error: problem.message }
}

async fn serve(
    app: &App,
    job: &Job,
    body: &Bytes,
    times: AttemptTimes,
    partial_output: &mut PartialOutput<'_>,
) -> Result<StoredResult, Unserved> {
    let started = app.clock.now();
    let unserved = |problem: Problem, mut event: RequestEvent| {
        event.duration_ms = app.clock.now() - started;
        Unserved { problem, event: Some(Box::new(event)) }
    };
    let held = app.body_memory.to_parse(&job.tenant, body.clone());
    let body = held.await.map_err(|problem| unserved(problem, event(job)))?;
    let read = read(app, job, &body, Some(times)).await.map_err(|problem| unserved(problem, event(job)))?;
    let JobRequest { request, api, echo } = read;
    let ignored = request.chat.ignored.join(", ");
    let context = AnswerContext {
        request_id: job.answer_id(),
        model: request.chat.model.clone(),
        // The same in every attempt, so that a reader of the stream can continue with the next one.
        created_at: job.created_at,
        echo,
    };
    let mut event = request.event.clone();
    let _running = request.permit_deadline.is_none().then(|| app.concurrency.start_work());
    let served = match broker::serve(app, request).await {
        Ok(served) => served,
        Err(ServeError { problem, receipt, calls }) => {
            event.attempts = Some(calls);
            let Some(receipt) = receipt else { return Err(unserved(problem, event)) };
            event.charge(&receipt);
            event.fail(&problem);
            event.duration_ms = app.clock.now() - started;
            app.telemetry.record(event);
            return Err(Unserved { problem, event: None });
        }
    };
    let mut headers = served.headers(&ignored);
    match served.reply {
        Reply::Whole(answer) => Ok(stored(api.answer(&context, &answer), headers)),
        Reply::Stream { headers: model_headers, deltas } => {
            headers.extend(api.stream_headers(&job.id, &model_headers));
            let collected = partial_output.collect(api.stream(context), deltas, headers[..].into()).await;
            // The broker records the event of a stream.
            let body = collected.map_err(|problem| Unserved { problem, event: None })?;
            Ok(stored(Rendered { status: StatusCode::OK, headers, body }, []))
        }
    }
}

/// Starts the event of an attempt.
pub fn event(job: &Job) -> RequestEvent {
    RequestEvent {
        request_id: job.id.clone(),
        tenant: Some(job.tenant.clone()),
        dialect: Some(job.call.api.dialect().name()),
        route: Some("drain"),
        class: Some(job.class.name()),
        ..RequestEvent::default()
    }
}

/// Finds when requests like the one of `job` fit the limits of its tenant, until `until` and for up
/// to `max` requests. Nothing is reserved.
///
/// # Errors
/// Returns an error if such a request can never be served, or if a service is unavailable.
pub async fn capacity(app: &App, job: &Job, body: &Bytes, until: UnixMs, max: usize) -> Result<Capacity, Problem> {
    let body = app.body_memory.to_parse(&job.tenant, body.clone()).await?;
    broker::capacity(app, &read(app, job, &body, None).await?.request, until, max).await
}

/// The request of a job.
struct JobRequest {
    request: ModelRequest,
    api: Api,
    echo: Echo,
}

/// Reads the request of a job, to be served within `times`. Its tenant, its model or its
/// permissions may have changed while it waited.
async fn read(app: &App, job: &Job, body: &[u8], times: Option<AttemptTimes>) -> Result<JobRequest, Problem> {
    let tenant = app.registry.tenant(&job.tenant).await?;
    let tenant =
        tenant.ok_or_else(|| Problem::new(Kind::Unauthenticated, "The tenant of this job no longer exists."))?;
    let api = job.call.api;
    let draft = heavy_work::run(body.len(), || api.read(body, job.call.model.as_deref(), job.call.stream))?;
    let model = app.registry.model_for(&tenant, draft.model()).await?;
    let headers = (&job.call.headers).into();
    let translate = || draft.permitted_request(model.format(), &headers, &tenant, app.own_bucket());
    let (mut chat, echo) = heavy_work::run(body.len(), translate)?;
    // The numbers of a background response's events must not depend on when it is read.
    chat.stream |= job.reader == JobReader::Background;
    let event = RequestEvent {
        parent: tenant.parent.clone(),
        model: Some(model.name.clone()),
        stream: chat.stream,
        ..event(job)
    };
    let conversation = broker::conversation(&tenant, &model, &chat);
    let request = ModelRequest {
        request_id: job.id.clone(),
        class: job.class,
        hold: Millis::ZERO,
        deadline: times.map(|times| times.deadline),
        permit_deadline: times.map(|times| times.permit_deadline).filter(|_| job.class == Class::Batch),
        event,
        tenant,
        model,
        chat,
        conversation,
        body_bytes: body.len(),
    };
    Ok(JobRequest { request, api, echo })
}

fn stored(rendered: Rendered, more: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> StoredResult {
    let headers: Vec<_> = rendered.headers.into_iter().chain(more).collect();
    StoredResult { status: rendered.status.as_u16(), headers: StoredHeaders::from(&headers[..]), body: rendered.body }
}
