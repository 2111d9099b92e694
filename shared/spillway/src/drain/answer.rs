//! Runs a job as if its request came in now, and keeps what the caller would have been sent.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    app::App,
    broker::{self, Ask, Delta, Deltas, Reply},
    chat::{self, Kind, Problem},
    dialect::{Api, Context, Echo, Encoder, Rendered},
    http::route::{Route, route},
    job::{Job, Outcome, Reason, StoredResult},
    pool::Model,
    telemetry::RequestEvent,
    tenant::{Class, Tenant},
};
use std::sync::Arc;

/// What an attempt to run a job came to.
pub enum Attempt {
    /// It has its answer.
    Answered(StoredResult),
    /// There is no room for another `wait_ms` milliseconds, or nobody who could answer. Nothing was billed.
    NoRoom { wait_ms: u64 },
    /// It failed; `is_final` if another attempt would fail the same way.
    Failed { error: String, reason: Reason, result: StoredResult, is_final: bool },
}

/// How long a call may take at most, in milliseconds: as long as any model may.
///
/// # Errors
/// The registry cannot be reached.
pub async fn longest_ms(app: &App) -> anyhow::Result<u64> {
    let catalogue = app.registry.catalogue().await?;
    Ok(catalogue.models().map(|model| model.timeout_ms).max().unwrap_or_default())
}

/// Runs the job once: no hold, no overflow, at the pace of the drain until `patient_until_ms`, and only as much of a pool as
/// work that can wait may take.
///
/// It calls each pool of the ladder once at most, and no further one after a call that may be billed.
pub async fn attempt(app: &App, job: &Job, body: &Bytes, deadline_ms: Option<u64>, patient_until_ms: u64) -> Attempt {
    match serve(app, job, body, deadline_ms, patient_until_ms).await {
        Ok(result) => Attempt::Answered(result),
        Err(Problem { kind: Kind::Throttled | Kind::Unavailable, retry_after_ms: Some(wait_ms), .. }) => {
            Attempt::NoRoom { wait_ms }
        }
        Err(problem) => failed(job, &problem),
    }
}

fn failed(job: &Job, problem: &Problem) -> Attempt {
    let is_final =
        !matches!(problem.kind, Kind::Unavailable | Kind::Timeout | Kind::Model | Kind::Internal | Kind::Throttled);
    let result = stored(job.call.dialect.problem(&job.id, problem), []);
    Attempt::Failed { error: problem.message.clone(), reason: Reason::of(problem.kind), result, is_final }
}

/// What is stored of an answer that does not fit.
pub fn too_large_to_store(job: &Job, bytes: usize, limit: usize) -> Outcome {
    let told = format!("The answer of {bytes} bytes is larger than the {limit} bytes that a job can keep.");
    let problem = Problem::new(Kind::Model, told);
    let result = stored(job.call.dialect.problem(&job.id, &problem), []);
    Outcome::Failed { error: problem.message, result }
}

async fn serve(
    app: &App,
    job: &Job,
    body: &Bytes,
    deadline_ms: Option<u64>,
    patient_until_ms: u64,
) -> Result<StoredResult, Problem> {
    let Reading { tenant, model, request, api, echo } = read(app, job, body).await?;
    let context = Context {
        request_id: job.id.clone(),
        model: request.model.clone(),
        created_s: app.clock.now_ms() / 1_000,
        echo,
    };
    let event = RequestEvent {
        request_id: job.id.clone(),
        tenant: Some(tenant.name.clone()),
        parent: tenant.parent.clone(),
        dialect: Some(job.call.dialect.name()),
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
        deadline_ms,
        patient_until_ms: (job.class == Class::Batch).then_some(patient_until_ms),
        event: event.clone(),
        tenant,
        model,
        request,
    };
    let served = broker::serve(app, ask).await.inspect_err(|problem| record_charged(app, event, problem))?;
    let headers = [("x-spillway-pool".to_owned(), served.pool)];
    match served.reply {
        Reply::Whole(answer) => Ok(stored(api.answer(&context, &answer), headers)),
        Reply::Stream { headers: of_model, deltas } => {
            let of_stream = api.stream_headers(&job.id, &of_model);
            let body = collect(api.stream(context), deltas).await?;
            Ok(stored(Rendered { status: StatusCode::OK, headers: of_stream, body }, headers))
        }
    }
}

/// An attempt that failed is worth an event of its own if something stays charged for it.
fn record_charged(app: &App, mut event: RequestEvent, problem: &Problem) {
    if let Some(receipt) = &problem.receipt {
        event.charge(receipt);
        app.telemetry.record(event);
    }
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
    let tenant = tenant.map_err(|error| broker::unreachable("registry", &error))?;
    let tenant =
        tenant.ok_or_else(|| Problem::new(Kind::Unauthenticated, "The job's tenant does not exist any more."))?;
    let method = job.call.method.parse().unwrap_or(http::Method::POST);
    let (api, path_model) = match route(&method, &job.call.path)? {
        Route::Ask { api, model, .. } => (api, model),
        _ => return Err(Problem::new(Kind::Internal, "The job's route asks no model.")),
    };
    let draft = api.read(body, path_model.as_deref(), job.call.stream)?;
    let model = broker::find_model(app, &tenant, draft.model()).await?;
    let headers = job.call.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    let (request, echo) = draft.request(model.format(), &headers.collect())?;
    Ok(Reading { tenant, model, api, request, echo })
}

/// A stream as a client would have received it in the end. One that breaks is a failed attempt: nobody has read it yet.
async fn collect(mut encoder: Encoder, mut deltas: Deltas) -> Result<Bytes, Problem> {
    let mut body = BytesMut::new();
    loop {
        match deltas.recv().await {
            Some(Delta::Event(event)) => body.extend_from_slice(&encoder.event(&event)),
            Some(Delta::End(ended)) => {
                ended?;
                body.extend_from_slice(&encoder.finish());
                return Ok(body.freeze());
            }
            None => return Err(Problem::new(Kind::Timeout, "The answer took longer than the model may take.")),
        }
    }
}

fn stored(rendered: Rendered, more: impl IntoIterator<Item = (String, String)>) -> StoredResult {
    let text = |(name, value): &(HeaderName, HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    let headers = rendered.headers.iter().filter_map(text).chain(more).collect();
    StoredResult { status: rendered.status.as_u16(), headers, body: rendered.body }
}
