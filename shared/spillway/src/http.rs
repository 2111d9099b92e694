//! The API: one function from request to response, for Lambda and for loopback alike.

mod auth;
mod batches;
mod chat;
mod count_tokens;
mod files;
mod guardrail;
mod idempotency;
mod jobs;
mod models;
mod preferences;
mod profiles;
mod query;
mod quota;
mod record;
mod reply;
mod responses;
mod route;
mod wait;

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::UnsyncBoxBody};

use crate::{
    app::App,
    dialect::Dialect,
    problem::{Kind, Problem},
    tenant::Tenant,
};
use preferences::Preferences;
use route::{BatchRoute, CallRoute, FileRoute, MessageBatchRoute, Route};

/// What a response carries.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The largest request body, in bytes: Lambda takes 6 MB in one invocation, and base64 and headers are part of it.
pub const MAX_BODY_BYTES: usize = 6 * 1024 * 1024;

/// A request without its body: all that a response to it needs.
struct Head {
    parts: Parts,
    dialect: Dialect,
    request_id: String,
    /// When this process must be done, in milliseconds since 1970, if it must.
    deadline_ms: Option<u64>,
}

/// An authenticated request. Its tenant and its preferences are read once, before any handler runs.
struct Call {
    head: Arc<Head>,
    tenant: Arc<Tenant>,
    preferences: Preferences,
}

impl Call {
    /// Authenticates the caller and reads its preferences.
    ///
    /// # Errors
    /// Returns an error if the caller has no valid key or identity, the registry is unavailable, or a header is malformed.
    async fn new(app: &App, head: &Arc<Head>) -> Result<Arc<Self>, Problem> {
        let tenant = auth::tenant(app, &head.parts).await?;
        let preferences = Preferences::read(&head.parts.headers, app.clock.now_ms())?;
        Ok(Arc::new(Self { head: Arc::clone(head), tenant, preferences }))
    }
}

/// When the process that serves a request must be done, in milliseconds since 1970: a request extension that the Lambda
/// front sets.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub u64);

/// Who sends a request, as the front door has verified it: the ARN of an IAM identity, or on loopback an access key id. A
/// request extension that only fronts set, never from anything that the library reads of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub String);

/// Answers one request. Never fails: every failure is a response in the caller's dialect.
pub async fn handle<B>(app: &App, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
{
    let (mut parts, body) = request.into_parts();
    let outside = match route::inside(&app.path_prefix, &parts.uri) {
        Ok(uri) => {
            parts.uri = uri;
            None
        }
        Err(problem) => Some(problem),
    };
    let head = Arc::new(Head {
        dialect: route::dialect(parts.uri.path(), &parts.headers),
        request_id: uuid::Uuid::now_v7().to_string(),
        deadline_ms: parts.extensions.get::<Deadline>().map(|deadline| deadline.0),
        parts,
    });
    let answered = match (outside, read(body).await) {
        // On the heap, as the larger answers are below: the futures of all routes together would fill a small stack.
        (None, Ok(body)) => Box::pin(answer(app, &head, body)).await,
        (Some(problem), _) | (None, Err(problem)) => Err(problem),
    };
    answered.unwrap_or_else(|problem| reply::problem(&head, &problem, app.clock.now_ms()))
}

async fn answer(app: &App, head: &Arc<Head>, body: Bytes) -> Result<Response<Body>, Problem> {
    let route = match route::route(&head.parts.method, head.parts.uri.path())? {
        Route::Root => return Ok(reply::empty(StatusCode::OK)),
        Route::Health => return Ok(reply::json(head, StatusCode::OK, &serde_json::json!({ "status": "ok" }))),
        Route::Call(route) => route,
    };
    let call = Call::new(app, head).await.inspect_err(|problem| {
        if let Some(name) = route.event_name() {
            record::refused(app, head, name, problem);
        }
    })?;
    answer_call(app, &call, route, body).await
}

async fn answer_call(app: &App, call: &Arc<Call>, route: CallRoute, body: Bytes) -> Result<Response<Body>, Problem> {
    match route {
        CallRoute::Ask { api, model, stream } => {
            let answer = async move |app: App, call: Arc<Call>, body| {
                Box::pin(chat::chat(&app, &call, api, body, model.as_deref(), stream)).await
            };
            idempotency::answer(app, call, body, record::route_name(api, stream), answer).await
        }
        CallRoute::Response(id) => responses::get(app, call, &id).await,
        CallRoute::CancelResponse(id) => responses::cancel(app, call, &id).await,
        CallRoute::DeleteResponse(id) => responses::delete(app, call, &id).await,
        CallRoute::Count { api, model } => count_tokens::count(app, call, api, body, model.as_deref()).await,
        CallRoute::Guardrail { id, version } => guardrail::apply(app, call, &id, &version, body).await,
        CallRoute::Profiles => profiles::list(app, call).await,
        CallRoute::Profile(id) => profiles::get(app, call, &id).await,
        CallRoute::Models => models::list(app, call).await,
        CallRoute::Model(id) => models::get(app, call, &id).await,
        CallRoute::Quota => quota::quota(app, call).await,
        CallRoute::Jobs => jobs::list(app, call).await,
        CallRoute::Job(id) => jobs::get(app, call, &id).await,
        CallRoute::JobResult(id) => jobs::result(app, call, &id).await,
        CallRoute::CancelJob(id) => jobs::cancel(app, call, &id).await,
        CallRoute::Files(asked) => match asked {
            FileRoute::Upload => files::upload(app, call, body).await,
            FileRoute::List => files::list(app, call).await,
            FileRoute::Get(id) => files::get(app, call, &id).await,
            FileRoute::Content(id) => files::content(app, call, &id).await,
            FileRoute::Delete(id) => files::delete(app, call, &id).await,
        },
        CallRoute::Batches(asked) => match asked {
            BatchRoute::Create => batches::openai::create(app, call, body).await,
            BatchRoute::List => batches::openai::list(app, call).await,
            BatchRoute::Get(id) => batches::openai::get(app, call, &id).await,
            BatchRoute::Cancel(id) => batches::openai::cancel(app, call, &id).await,
        },
        CallRoute::MessageBatches(asked) => match asked {
            MessageBatchRoute::Create => batches::anthropic::create(app, call, body).await,
            MessageBatchRoute::List => batches::anthropic::list(app, call).await,
            MessageBatchRoute::Get(id) => batches::anthropic::get(app, call, &id).await,
            MessageBatchRoute::Cancel(id) => batches::anthropic::cancel(app, call, &id).await,
            MessageBatchRoute::Results(id) => batches::anthropic::results(app, call, &id).await,
            MessageBatchRoute::Delete(id) => batches::anthropic::delete(app, call, &id).await,
        },
    }
}

async fn read<B>(body: B) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
{
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let told = format!("The request body is larger than {MAX_BODY_BYTES} bytes.");
            Err(Problem::new(Kind::TooLarge, told))
        }
        Err(_) => Err(Problem::new(Kind::Invalid, "The request body ended before it was complete.")),
    }
}
