//! The HTTP API: one function from a request to its response, for Lambda and for loopback.
//!
//! [`handle`] finds the route, authenticates the caller, reads its preferences and then the body,
//! and calls the handler of the route. `route` lists all routes.

mod auth;
mod batches;
mod count_tokens;
mod files;
mod guardrail;
mod idempotency;
mod jobs;
mod model_call;
mod models;
mod preferences;
mod profiles;
mod query;
mod quota;
mod record;
mod reply;
mod request_body;
mod responses;
mod route;
mod streaming;
mod wait;

use std::{convert::Infallible, pin::pin, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::combinators::UnsyncBoxBody;

use crate::{
    allowance,
    app::App,
    connections::Patience,
    dialect::Dialect,
    problem::{Kind, Problem},
    tenant::Tenant,
    units::{Millis, UnixMs},
};
use preferences::Preferences;
use request_body::Unread;
use route::Handler;

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request without its body: all that a response to it needs.
struct Head {
    parts: Parts,
    dialect: Dialect,
    request_id: String,
    /// Start of the caller's path, before the API's own paths: the stage of a front, and the prefix
    /// of the API. Paths in responses start with it.
    base_path: String,
    /// Time when the process must end, if it must.
    deadline: Option<UnixMs>,
    /// Time when the front closes the connection if the caller has received nothing, if it does.
    silence_ends_at: Option<UnixMs>,
}

impl Head {
    /// Returns the time by which an answer must have ended, if there is one. A whole answer is
    /// silent until then.
    fn answer_deadline(&self, is_stream: bool) -> Option<UnixMs> {
        let silence_ends_at = self.silence_ends_at.filter(|_| !is_stream);
        self.deadline.into_iter().chain(silence_ends_at).min()
    }

    /// Returns `problem`, with the reason and what would be right if a whole answer was cut off
    /// because the front closes a silent connection.
    fn explained(&self, problem: Problem, now: UnixMs, is_stream: bool) -> Problem {
        let is_silent_too_long = self.silence_ends_at.is_some_and(|ends_at| ends_at <= now);
        if problem.kind != Kind::Timeout || is_stream || !is_silent_too_long {
            return problem;
        }
        let message = "The answer takes longer than API Gateway keeps a connection open without data, which is five \
                       minutes. Ask for a stream or for a job (Prefer: respond-async), or use the Function URL.";
        Problem { message: message.to_owned(), ..problem }
    }
}

/// An authenticated request. Its tenant and its preferences are read once, before any handler runs.
struct Call {
    head: Arc<Head>,
    /// Method and path pattern, such as `POST /v1/messages`.
    route: &'static str,
    tenant: Arc<Tenant>,
    /// Public part of its API key, if it has one.
    key_id: Option<String>,
    preferences: Preferences,
}

impl Call {
    /// Authenticates the caller and reads its preferences.
    ///
    /// # Errors
    /// Returns an error if the caller has no valid key or identity, if the registry is unavailable,
    /// or if a header is malformed.
    async fn new(app: &App, head: &Arc<Head>, route: &'static str) -> Result<Arc<Self>, Problem> {
        let (tenant, key_id) = auth::tenant(app, &head.parts).await?;
        let preferences = Preferences::read(&head.parts.headers, app.clock.now())?;
        Ok(Arc::new(Self { head: Arc::clone(head), route, tenant, key_id, preferences }))
    }
}

/// Time when the process that serves a request must end: a request extension that the Lambda front
/// sets.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub UnixMs);

/// Maximum time for which a front keeps a connection open without data: a request extension that
/// the Lambda front sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxSilence(pub Millis);

/// Start of the caller's path that a front has removed, such as the stage of API Gateway: a request
/// extension that the Lambda front sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount(pub String);

/// The caller's identity that the front door has verified: the ARN of an IAM identity, or an access
/// key id on loopback. Only a front sets this request extension; the library never derives it from
/// the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub String);

/// Answers one request. Each failure is a response in the caller's dialect.
///
/// The body is read only if the route takes one and the caller is known. Otherwise its bytes are
/// dropped as they arrive.
pub async fn handle<B>(app: &App, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
{
    let (mut parts, body) = request.into_parts();
    let body = pin!(body);
    let mut body = Some(body);
    let inner = route::without_prefix(&app.path_prefix, &parts.uri).map(|uri| parts.uri = uri);
    let mount = parts.extensions.get::<Mount>().map_or("", |mount| mount.0.as_str());
    let head = Arc::new(Head {
        base_path: format!("{mount}{}", app.path_prefix),
        dialect: route::dialect(parts.uri.path(), &parts.headers),
        request_id: uuid::Uuid::now_v7().to_string(),
        deadline: parts.extensions.get::<Deadline>().map(|deadline| deadline.0),
        silence_ends_at: parts.extensions.get::<MaxSilence>().map(|max| app.clock.now() + max.0),
        parts,
    });
    let answered = match inner {
        // On the heap, because the compiler cannot compute the layout of futures nested this deep.
        Ok(()) => Patience::default().scope(Box::pin(answer(app, &head, &mut body))).await,
        Err(problem) => Err(problem),
    };
    let response = answered.unwrap_or_else(|problem| reply::problem(&head, &problem, app.clock.now()));
    request_body::discard(&head.parts.headers, body).await;
    response
}

async fn answer<B>(app: &App, head: &Arc<Head>, body: &mut Unread<'_, B>) -> Result<Response<Body>, Problem>
where
    B: http_body::Body<Data: Send> + Send,
{
    let (route, ids) = route::find(&head.parts.method, head.parts.uri.path())?;
    let started = app.clock.now();
    let record = |problem: &Problem| record::refused(app, head, route.name, problem, started);
    let record_failure = |problem: &Problem| {
        if problem.kind.is_server_error() {
            record(problem);
        }
    };
    match route.handler {
        Handler::Public(respond) => Ok(respond(head)),
        Handler::WithoutBody(serve) => {
            let call = admitted_call(app, head, route.name).await.inspect_err(record_failure)?;
            serve(app, &call, ids).await.inspect_err(record_failure)
        }
        Handler::WithBody(serve) => {
            let call = admitted_call(app, head, route.name).await.inspect_err(record_failure)?;
            let body = request_body::read(app, &call, body).await.inspect_err(record_failure)?;
            serve(app, &call, ids, body).await.inspect_err(record_failure)
        }
        Handler::Recorded(serve) => {
            let call = Call::new(app, head, route.name).await.inspect_err(record)?;
            let body = request_body::read_to_parse(app, &call, body).await;
            let body = body.inspect_err(|problem| record::unread(app, &call, problem, started))?;
            serve(app, &call, ids, body).await
        }
    }
}

/// Authenticates the caller of a request that calls no model, and admits the request.
async fn admitted_call(app: &App, head: &Arc<Head>, route: &'static str) -> Result<Arc<Call>, Problem> {
    let call = Call::new(app, head, route).await?;
    allowance::admit_request(app, &call.tenant).await?;
    Ok(call)
}
