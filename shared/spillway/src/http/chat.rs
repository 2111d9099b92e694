//! A request to a model in any dialect: answered now, streamed, or accepted as a job.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::{Body, Call, auth, jobs, prefer, record, reply, responses, terms, told, wait};
use crate::{
    app::App,
    broker::{self, Ask, Reply, Served},
    chat::{Kind, Problem, Request},
    dialect::{Api, Context, Draft, Echo},
    telemetry::{Outcome, RequestEvent},
    tenant::{Class, Overflow, Tenant},
};

/// The longest that a caller is held, in milliseconds, if it does not tell how long it waits: boto3 gives up after 60 s and
/// sends its paid request again.
pub const MAX_HOLD_MS: u64 = 50_000;

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
    let mut event = record::event(call, route_name(api, stream));
    let draft = api.read(&body, path_model, stream);
    let unanswered = match ask(app, call, draft, &mut event).await {
        Ok((ask, echo)) if echo.response.background => {
            event.outcome = Outcome::Queued;
            responses::create(app, call, &ask, body).await
        }
        Ok((ask, echo)) => {
            let (tenant, is_stream) = (Arc::clone(&ask.tenant), ask.request.stream);
            let ignored = ask.request.ignored.join(", ");
            let context = context(app, call, &ask.request, echo);
            let when_full = when_full(app, call, &tenant);
            let served = match when_full {
                WhenFull::Queue if ask.hold_ms == 0 => match jobs::behind_others(app, &tenant).await {
                    Ok(()) => Box::pin(broker::serve(app, ask)).await,
                    Err(behind) => Err(behind),
                },
                _ => Box::pin(broker::serve(app, ask)).await,
            };
            match served {
                // The broker records what it answers, when it is over.
                Ok(served) => return Ok(respond(app, call, api, context, &ignored, served)),
                Err(refused) if refused.kind == Kind::Throttled => match when_full {
                    WhenFull::Refuse => Err(refused),
                    WhenFull::Queue => {
                        event.outcome = Outcome::Queued;
                        Box::pin(jobs::accept(app, call, &tenant, body, is_stream, refused)).await
                    }
                    WhenFull::Wait => {
                        event.outcome = Outcome::Queued;
                        let stream = is_stream.then(|| api.stream(context));
                        let waiting = wait::Waiting { api, tenant, body, stream, refused, started_ms };
                        Box::pin(wait::wait(app, call, waiting)).await
                    }
                },
                Err(problem) => Err(problem),
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

/// Who asks for what. `event` learns what is found out on the way, whether or not it ends well.
async fn ask(
    app: &App,
    call: &Call,
    draft: Result<Draft, Problem>,
    event: &mut RequestEvent,
) -> Result<(Ask, Echo), Problem> {
    let tenant = auth::tenant(app, &call.parts).await?;
    event.tenant = Some(tenant.name.clone());
    event.class = Some(tenant.class.name());
    event.parent = tenant.parent.clone();
    let draft = draft?;
    terms::terms(&call.parts.headers, app.clock.now_ms())?;
    let model = broker::find_model(app, &tenant, draft.model()).await?;
    event.model = Some(model.name.clone());
    let (request, echo) = draft.request(model.format(), &call.parts.headers)?;
    event.stream = request.stream;
    let asked_ms = prefer::prefer(&call.parts.headers).wait_ms;
    let when_full = when_full(app, call, &tenant);
    let hold_ms = match when_full {
        WhenFull::Refuse => asked_ms.unwrap_or(tenant.hold_ms),
        WhenFull::Queue => asked_ms.unwrap_or(0),
        // What it asks for is how long it waits in the queue.
        WhenFull::Wait => tenant.hold_ms,
    };
    // What can wait takes no more of a pool than what waits already.
    let class = if when_full == WhenFull::Queue { Class::Batch } else { tenant.class };
    let ask = Ask {
        request_id: call.request_id.clone(),
        class,
        hold_ms: hold_ms.min(MAX_HOLD_MS),
        deadline_ms: call.deadline_ms,
        patient_until_ms: None,
        event: event.clone(),
        tenant,
        model,
        request,
    };
    Ok((ask, echo))
}

/// What becomes of a request that finds no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    Refuse,
    Queue,
    Wait,
}

/// Only who says that it can wait gets a job for an answer: to a chat SDK a 202 looks like an empty completion.
fn when_full(app: &App, call: &Call, tenant: &Tenant) -> WhenFull {
    let can_wait = prefer::prefer(&call.parts.headers).respond_async;
    match tenant.overflow {
        _ if app.queue.is_none() => WhenFull::Refuse,
        Overflow::Refuse => WhenFull::Refuse,
        Overflow::Queue | Overflow::Wait if can_wait => WhenFull::Queue,
        Overflow::Queue => WhenFull::Refuse,
        Overflow::Wait => WhenFull::Wait,
    }
}

/// The route in events.
pub fn route_name(api: Api, stream: bool) -> &'static str {
    match (api, stream) {
        (Api::ChatCompletions, _) => "POST /v1/chat/completions",
        (Api::Responses, _) => "POST /v1/responses",
        (Api::Embeddings, _) => "POST /v1/embeddings",
        (Api::Messages, _) => "POST /v1/messages",
        (Api::Converse, false) => "POST /model/{id}/converse",
        (Api::Converse, true) => "POST /model/{id}/converse-stream",
        (Api::Invoke, false) => "POST /model/{id}/invoke",
        (Api::Invoke, true) => "POST /model/{id}/invoke-with-response-stream",
    }
}

fn context(app: &App, call: &Call, request: &Request, echo: Echo) -> Context {
    Context {
        request_id: call.request_id.clone(),
        model: request.model.clone(),
        created_s: app.clock.now_ms() / 1_000,
        echo,
    }
}

fn respond(app: &App, call: &Call, api: Api, context: Context, ignored: &str, served: Served) -> Response<Body> {
    let mut headers = told::told(ignored, &served);
    headers.extend(call.dialect.limit_headers(&served.limits, app.clock.now_ms()));
    match served.reply {
        Reply::Whole(answer) => {
            let rendered = api.answer(&context, &answer);
            headers.extend(rendered.headers);
            reply::whole(call, rendered.status, headers, rendered.body)
        }
        Reply::Stream { headers: of_model, deltas } => {
            headers.extend(api.stream_headers(&call.request_id, &of_model));
            reply::stream(call, headers, api.stream(context), deltas)
        }
    }
}
