//! A call of a model in any API: answered now, streamed, or accepted as a job.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::{Body, Call, idempotency, jobs, record, reply, responses, streaming, wait};
use crate::{
    app::App,
    broker::{self, ModelRequest, Reply, ServeError, Served},
    chat::Request,
    dialect::{AnswerContext, Api, Echo},
    heavy_work,
    job::StoredCall,
    overflow,
    problem::{Kind, Problem},
    telemetry::{RequestEvent, RequestOutcome},
    tenant::{Class, MAX_HOLD, Overflow},
    units::{Millis, UnixMs},
};

/// The part of a call that its path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRoute {
    pub api: Api,
    /// The model; only Bedrock's paths name one.
    pub model: Option<String>,
    /// Whether a Bedrock path asks for a stream. In other APIs, the body does.
    pub stream: bool,
}

impl ModelRoute {
    /// A path that names only the API.
    pub fn new(api: Api) -> Self {
        Self { api, model: None, stream: false }
    }

    /// A path of Bedrock.
    pub fn bedrock(api: Api, model: String, stream: bool) -> Self {
        Self { api, model: Some(model), stream }
    }
}

/// Answers a call of a model, or repeats the answer of an earlier attempt at the same call.
///
/// # Errors
/// Returns an error if the request is invalid, cannot be admitted, or is not answered by the model.
pub async fn answer(app: &App, call: &Arc<Call>, route: ModelRoute, body: Bytes) -> Result<Response<Body>, Problem> {
    let answer = async move |app: App, call: Arc<Call>, body| attempt(&app, &call, &route, body).await;
    idempotency::answer(app, call, body, answer).await
}

/// A response, and whether its request event is recorded already.
enum Answered {
    /// The broker records the event when the answer has ended.
    ByBroker(Response<Body>),
    /// The request became a job.
    ByJob(Response<Body>),
}

async fn attempt(app: &App, call: &Call, route: &ModelRoute, body: Bytes) -> Result<Response<Body>, Problem> {
    let started = app.clock.now();
    let mut event = record::event(call);
    let response = match Box::pin(admit_or_queue(app, call, route, body, started, &mut event)).await {
        Ok(Answered::ByBroker(response)) => return Ok(response),
        Ok(Answered::ByJob(response)) => {
            event.outcome = RequestOutcome::Queued;
            event.status = Some(response.status().as_u16());
            event.job_id = response.extensions().get().map(|reply::JobId(id)| id.clone());
            Ok(response)
        }
        Err(problem) => {
            record::fail(&mut event, &call.head, &problem);
            Err(problem)
        }
    };
    record::end(app, event, started);
    response
}

/// Answers a call through the broker, or makes it a job. `event` gets the facts that are known on
/// the way, whether or not the call succeeds.
async fn admit_or_queue(
    app: &App,
    call: &Call,
    route: &ModelRoute,
    body: Bytes,
    started: UnixMs,
    event: &mut RequestEvent,
) -> Result<Answered, Problem> {
    let when_full = WhenFull::for_call(app, call);
    let (request, echo) = read(app, call, route, &body, when_full, event).await?;
    let stored = stored(call, route, request.chat.stream);
    if echo.response.background {
        return responses::create(app, call, &request, stored, body).await.map(Answered::ByJob);
    }
    let ignored = request.chat.ignored.join(", ");
    let is_stream = request.chat.stream;
    let context = context(app, call, &request.chat, echo);
    let refusal = match serve(app, call, request, when_full).await {
        Ok(served) => return Ok(Answered::ByBroker(respond(app, call, route.api, context, &ignored, served))),
        Err(ServeError { problem, calls, .. }) if problem.kind == Kind::Throttled => {
            event.attempts = Some(calls);
            problem
        }
        Err(ServeError { problem, receipt, calls }) => {
            event.attempts = Some(calls);
            receipt.iter().for_each(|receipt| event.charge(receipt));
            return Err(call.head.explained(problem, app.clock.now(), is_stream));
        }
    };
    let response = match when_full {
        WhenFull::Refuse => return Err(refusal),
        WhenFull::Queue => Box::pin(jobs::accept(app, call, stored, body, refusal)).await?,
        WhenFull::Wait => {
            let api = route.api;
            let encoder = is_stream.then(|| api.stream(context));
            let refused = wait::RefusedCall { api, request: stored, body, encoder, refusal, started };
            Box::pin(wait::wait(app, call, refused)).await?
        }
    };
    Ok(Answered::ByJob(response))
}

/// Reads the request.
async fn read(
    app: &App,
    call: &Call,
    route: &ModelRoute,
    body: &[u8],
    when_full: WhenFull,
    event: &mut RequestEvent,
) -> Result<(ModelRequest, Echo), Problem> {
    let tenant = Arc::clone(&call.tenant);
    let read = || route.api.read(body, route.model.as_deref(), route.stream);
    let draft = heavy_work::run(body.len(), read)?;
    let model = app.registry.model_for(&tenant, draft.model()).await?;
    event.model = Some(model.name.clone());
    let translate = || draft.permitted_request(model.format(), &call.head.parts.headers, &tenant, app.own_bucket());
    let (chat_request, echo) = heavy_work::run(body.len(), translate)?;
    event.stream = chat_request.stream;
    let wait = call.preferences.wait;
    let hold = match when_full {
        WhenFull::Refuse => wait.unwrap_or(tenant.hold),
        WhenFull::Queue => wait.unwrap_or(Millis::ZERO),
        // The time that the caller waits is spent in the queue.
        WhenFull::Wait => tenant.hold,
    };
    let conversation = broker::conversation(&tenant, &model, &chat_request);
    let request = ModelRequest {
        request_id: call.head.request_id.clone(),
        // A request that can wait takes no more of a pool than the jobs that wait already.
        class: if when_full == WhenFull::Queue { Class::Batch } else { tenant.class },
        hold: hold.min(MAX_HOLD),
        deadline: call.head.answer_deadline(chat_request.stream),
        permit_deadline: None,
        event: event.clone(),
        tenant,
        model,
        chat: chat_request,
        conversation,
        body_bytes: body.len(),
    };
    Ok((request, echo))
}

/// Asks the broker, unless the request can wait and would overtake jobs that wait already.
async fn serve(app: &App, call: &Call, request: ModelRequest, when_full: WhenFull) -> Result<Served, ServeError> {
    if when_full == WhenFull::Queue && request.hold.is_zero() {
        overflow::check_backlog(app, &call.tenant).await?;
    }
    Box::pin(broker::serve(app, request)).await
}

/// The fate of a request that finds no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    /// It is refused.
    Refuse,
    /// It becomes a job, whose address is the response.
    Queue,
    /// It becomes a job, and its caller waits for the answer.
    Wait,
}

impl WhenFull {
    /// Only a caller that opts in gets a job for an answer. To a chat SDK, a 202 looks like an
    /// empty completion.
    fn for_call(app: &App, call: &Call) -> Self {
        match call.tenant.overflow {
            _ if app.queue.is_none() => Self::Refuse,
            Overflow::Refuse => Self::Refuse,
            Overflow::Queue | Overflow::Wait if call.preferences.respond_async => Self::Queue,
            Overflow::Queue => Self::Refuse,
            Overflow::Wait => Self::Wait,
        }
    }
}

/// The call as its job keeps it, without its body.
fn stored(call: &Call, route: &ModelRoute, stream: bool) -> StoredCall {
    StoredCall {
        api: route.api,
        model: route.model.clone(),
        path: call.head.parts.uri.path().to_owned(),
        base_path: call.head.base_path.clone(),
        headers: jobs::kept_headers(call),
        stream,
    }
}

fn context(app: &App, call: &Call, request: &Request, echo: Echo) -> AnswerContext {
    AnswerContext {
        request_id: call.head.request_id.clone(),
        model: request.model.clone(),
        created_at: app.clock.now(),
        echo,
    }
}

fn respond(app: &App, call: &Call, api: Api, context: AnswerContext, ignored: &str, served: Served) -> Response<Body> {
    let mut headers = served.headers(ignored);
    headers.extend(reply::skipped_header(&call.head, served.skipped.as_deref()));
    headers.extend(call.head.dialect.limit_headers(&served.limit_states, app.clock.now()));
    match served.reply {
        Reply::Whole(answer) => {
            let rendered = api.answer(&context, &answer);
            headers.extend(rendered.headers);
            reply::whole(&call.head, rendered.status, headers, rendered.body)
        }
        Reply::Stream { headers: model_headers, deltas } => {
            headers.extend(api.stream_headers(&call.head.request_id, &model_headers));
            streaming::from_model(&call.head, headers, api.stream(context), deltas)
        }
    }
}
