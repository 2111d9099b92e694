//! Runs a job as if its request came in now, and keeps what the caller would have been sent.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    app::App,
    broker::{self, Ask, Reply, ServeError},
    chat,
    dialect::{Api, Context, Echo, Rendered},
    job::{Job, Outcome, Reader, Reason, StoredResult},
    pool::Model,
    problem::{Kind, Problem},
    quota::Receipt,
    telemetry::RequestEvent,
    tenant::{Class, Tenant},
};
use std::sync::Arc;

use super::{partial_output::Parts, time_budget::AttemptTimes};

/// What an attempt to run a job came to.
pub enum Attempt {
    /// It has its answer.
    Answered(StoredResult),
    /// There is no room for another `wait_ms` milliseconds, or nobody who could answer: it was `refused`. Nothing was billed.
    NoRoom { refused: Problem, wait_ms: u64 },
    /// It failed; `is_final` if another attempt would fail the same way.
    Failed { error: String, reason: Reason, result: StoredResult, is_final: bool },
}

/// How long a call may take at most, in milliseconds: as long as any model may.
///
/// # Errors
/// The registry cannot be reached.
pub async fn longest_ms(app: &App) -> anyhow::Result<u64> {
    let catalogue = app.registry.catalogue().await?;
    Ok(catalogue.models().map(|model| model.timeout.as_ms()).max().unwrap_or_default())
}

/// Runs the job once, within `times`: no hold, no overflow, at the pace of the drain, and only as much of a pool as work that
/// can wait may take.
///
/// It calls each pool of the ladder once at most, and no further one after a call that may be billed.
pub async fn attempt(app: &App, job: &Job, body: &Bytes, times: AttemptTimes) -> Attempt {
    let mut parts = Parts::new(app, job);
    let served = serve(app, job, body, times, &mut parts).await;
    // Who waits is told of a failure as if there had been no queue: a call that may have been billed is not made again, and
    // what has been read cannot be taken back.
    let is_waiting = job.reader == Reader::Waiting;
    match served {
        Ok(result) => Attempt::Answered(result),
        Err(problem) => match (problem.kind, problem.retry_after) {
            (Kind::Throttled | Kind::Unavailable, Some(wait)) if !(is_waiting && parts.is_begun()) => {
                Attempt::NoRoom { refused: problem, wait_ms: wait.as_ms() }
            }
            // A model that answers when its time is up would do so again.
            (Kind::Timeout, _) if parts.has_output() => failed(job, &problem, true),
            _ => failed(job, &problem, is_waiting),
        },
    }
}

fn failed(job: &Job, problem: &Problem, is_last: bool) -> Attempt {
    let is_final = is_last
        || !matches!(problem.kind, Kind::Unavailable | Kind::Timeout | Kind::Model | Kind::Internal | Kind::Throttled);
    let result = stored(job.call.api.dialect().problem(&job.id, problem), []);
    Attempt::Failed { error: problem.message.clone(), reason: Reason::of(problem.kind), result, is_final }
}

/// What is stored of an answer that does not fit.
pub fn too_large_to_store(job: &Job, bytes: usize, limit: usize) -> Outcome {
    let told = format!("The answer of {bytes} bytes is larger than the {limit} bytes that a job can keep.");
    let problem = Problem::new(Kind::Model, told);
    let result = stored(job.call.api.dialect().problem(&job.id, &problem), []);
    Outcome::Failed { error: problem.message, result }
}

async fn serve(
    app: &App,
    job: &Job,
    body: &Bytes,
    times: AttemptTimes,
    parts: &mut Parts<'_>,
) -> Result<StoredResult, Problem> {
    let Reading { tenant, model, request, api, echo } = read(app, job, body).await?;
    let ignored = request.ignored.join(", ");
    let context = Context {
        request_id: job.answer_id(),
        model: request.model.clone(),
        // The same for every attempt, so that who follows a stream can go on with another.
        created_s: job.created_ms / 1_000,
        echo,
    };
    let event = RequestEvent {
        request_id: job.id.clone(),
        tenant: Some(tenant.name.clone()),
        parent: tenant.parent.clone(),
        dialect: Some(job.call.api.dialect().name()),
        model: Some(model.name.clone()),
        route: Some("drain"),
        class: Some(job.class.name()),
        stream: request.stream,
        ..RequestEvent::default()
    };
    let ask = Ask {
        request_id: job.id.clone(),
        class: job.class,
        hold_ms: 0,
        deadline_ms: Some(times.deadline_ms),
        patient_until_ms: (job.class == Class::Batch).then_some(times.patient_until_ms),
        event: event.clone(),
        tenant,
        model,
        request,
    };
    let _running = ask.patient_until_ms.is_none().then(|| app.concurrency.start_work());
    let served = match broker::serve(app, ask).await {
        Ok(served) => served,
        Err(ServeError { problem, receipt }) => {
            if let Some(receipt) = receipt {
                record_charge(app, event, &receipt);
            }
            return Err(problem);
        }
    };
    let headers = served.headers(&ignored);
    match served.reply {
        Reply::Whole(answer) => Ok(stored(api.answer(&context, &answer), headers)),
        Reply::Stream { headers: of_model, deltas } => {
            let mut headers = headers;
            headers.extend(api.stream_headers(&job.id, &of_model));
            let body = parts.collect(api.stream(context), deltas, texts(&headers)).await?;
            Ok(stored(Rendered { status: StatusCode::OK, headers, body }, []))
        }
    }
}

/// Records an event for a failed attempt for which a charge remains.
fn record_charge(app: &App, mut event: RequestEvent, receipt: &Receipt) {
    event.charge(receipt);
    app.telemetry.record(event);
}

/// A job's request, read again.
struct Reading {
    tenant: Arc<Tenant>,
    model: Arc<Model>,
    api: Api,
    request: chat::Request,
    echo: Echo,
}

/// Reads the job's request again. Its tenant, its model or its rights may have changed while it waited.
async fn read(app: &App, job: &Job, body: &[u8]) -> Result<Reading, Problem> {
    let tenant = app.registry.tenant(&job.tenant).await;
    let tenant = tenant?;
    let tenant =
        tenant.ok_or_else(|| Problem::new(Kind::Unauthenticated, "The job's tenant does not exist any more."))?;
    let api = job.call.api;
    let draft = api.read(body, job.call.model.as_deref(), job.call.stream)?;
    let model = broker::find_model(app, &tenant, draft.model()).await?;
    let headers = job.call.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    let (mut request, echo) = draft.request(model.format(), &headers.collect())?;
    // The numbers of its events must not depend on when somebody reads them.
    request.stream |= job.reader == Reader::Background;
    Ok(Reading { tenant, model, api, request, echo })
}

fn stored(rendered: Rendered, more: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> StoredResult {
    let headers: Vec<_> = rendered.headers.into_iter().chain(more).collect();
    StoredResult { status: rendered.status.as_u16(), headers: texts(&headers), body: rendered.body }
}

fn texts(headers: &[(HeaderName, HeaderValue)]) -> Vec<(String, String)> {
    let text = |(name, value): &(HeaderName, HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    headers.iter().filter_map(text).collect()
}
