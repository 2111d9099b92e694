//! A request to a model in any dialect: answered now, streamed, or accepted as a job.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::{Body, Call, jobs, record, reply, responses, wait};
use crate::{
    app::App,
    broker::{self, ModelRequest, Reply, ServeError, Served},
    chat::Request,
    dialect::{AnswerContext, Api, Draft, Echo},
    job::StoredCall,
    overflow,
    problem::{Kind, Problem},
    telemetry::{RequestEvent, RequestOutcome},
    tenant::{Class, MAX_HOLD, Overflow},
    units::{Millis, UnixMs},
};

/// Answers a request to a model in the API that it came in.
///
/// # Errors
/// What to tell the caller.
pub async fn chat(
    app: &App,
    call: &Call,
    api: Api,
    body: Bytes,
    path_model: Option<&str>,
    stream: bool,
) -> Result<Response<Body>, Problem> {
    let started_ms = app.clock.now_ms();
    let mut event = record::event(call, record::route_name(api, stream));
    let draft = api.read(&body, path_model, stream);
    let unanswered = match read(app, call, draft, &mut event).await {
        Ok((request, echo)) if echo.response.background => {
            event.outcome = RequestOutcome::Queued;
            let stored = stored(call, api, path_model, request.chat.stream);
            responses::create(app, call, &request, stored, body).await
        }
        Ok((request, echo)) => {
            let is_stream = request.chat.stream;
            let ignored = request.chat.ignored.join(", ");
            let stored = stored(call, api, path_model, is_stream);
            let context = context(app, call, &request.chat, echo);
            let when_full = when_full(app, call);
            let served = match when_full {
                WhenFull::Queue if request.hold.is_zero() => match overflow::check_backlog(app, &call.tenant).await {
                    Ok(()) => Box::pin(broker::serve(app, request)).await,
                    Err(behind) => Err(behind.into()),
                },
                _ => Box::pin(broker::serve(app, request)).await,
            };
            match served {
                // The broker records what it answers, when it is over.
                Ok(served) => return Ok(respond(app, call, api, context, &ignored, served)),
                Err(ServeError { problem: refused, .. }) if refused.kind == Kind::Throttled => match when_full {
                    WhenFull::Refuse => Err(refused),
                    WhenFull::Queue => {
                        event.outcome = RequestOutcome::Queued;
                        Box::pin(jobs::accept(app, call, stored, body, refused)).await
                    }
                    WhenFull::Wait => {
                        event.outcome = RequestOutcome::Queued;
                        let stream = is_stream.then(|| api.stream(context));
                        let waiting = wait::Waiting { api, request: stored, body, stream, refused, started_ms };
                        Box::pin(wait::wait(app, call, waiting)).await
                    }
                },
                Err(ServeError { problem, receipt }) => {
                    if let Some(receipt) = receipt {
                        event.charge(&receipt);
                    }
                    Err(problem)
                }
            }
        }
        Err(problem) => Err(problem),
    };
    if let Err(problem) = &unanswered {
        record::note_failure(&mut event, problem);
    }
    record::end(app, event, started_ms);
    unanswered
}

/// Reads the request. `event` gets what is found out on the way, whether or not it ends well.
async fn read(
    app: &App,
    call: &Call,
    draft: Result<Draft, Problem>,
    event: &mut RequestEvent,
) -> Result<(ModelRequest, Echo), Problem> {
    let tenant = Arc::clone(&call.tenant);
    let draft = draft?;
    let model = app.registry.catalogue().await?.resolve_for(&tenant, draft.model())?;
    event.model = Some(model.name.clone());
    let (chat_request, echo) = draft.request(model.format(), &call.head.parts.headers)?;
    event.stream = chat_request.stream;
    let wait_ms = call.preferences.wait_ms;
    let when_full = when_full(app, call);
    let hold_ms = match when_full {
        WhenFull::Refuse => wait_ms.unwrap_or(tenant.hold.as_ms()),
        WhenFull::Queue => wait_ms.unwrap_or(0),
        // The time that the caller waits is spent in the queue.
        WhenFull::Wait => tenant.hold.as_ms(),
    };
    // A request that can wait takes no more of a pool than the jobs that wait already.
    let class = if when_full == WhenFull::Queue { Class::Batch } else { tenant.class };
    let request = ModelRequest {
        request_id: call.head.request_id.clone(),
        class,
        hold: Millis::from_ms(hold_ms).min(MAX_HOLD),
        deadline: call.head.deadline_ms.map(UnixMs::from_ms),
        permit_deadline: None,
        event: event.clone(),
        tenant,
        model,
        chat: chat_request,
    };
    Ok((request, echo))
}

/// What becomes of a request that finds no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    Refuse,
    Queue,
    Wait,
}

/// Only a caller that opts in gets a job for an answer: to a chat SDK a 202 looks like an empty completion.
fn when_full(app: &App, call: &Call) -> WhenFull {
    match call.tenant.overflow {
        _ if app.queue.is_none() => WhenFull::Refuse,
        Overflow::Refuse => WhenFull::Refuse,
        Overflow::Queue | Overflow::Wait if call.preferences.respond_async => WhenFull::Queue,
        Overflow::Queue => WhenFull::Refuse,
        Overflow::Wait => WhenFull::Wait,
    }
}

/// The request as a job keeps it, without its body.
fn stored(call: &Call, api: Api, path_model: Option<&str>, stream: bool) -> StoredCall {
    let parts = &call.head.parts;
    StoredCall {
        api,
        model: path_model.map(str::to_owned),
        path: parts.uri.path().to_owned(),
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
    headers.extend(call.head.dialect.limit_headers(&served.limit_states, app.clock.now()));
    match served.reply {
        Reply::Whole(answer) => {
            let rendered = api.answer(&context, &answer);
            headers.extend(rendered.headers);
            reply::whole(&call.head, rendered.status, headers, rendered.body)
        }
        Reply::Stream { headers: model_headers, deltas } => {
            headers.extend(api.stream_headers(&call.head.request_id, &model_headers));
            reply::stream(&call.head, headers, api.stream(context), deltas)
        }
    }
}
