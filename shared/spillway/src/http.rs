//! The API: one function from request to response, for Lambda and for loopback alike.

mod auth;
mod batches;
mod chat;
mod count_tokens;
mod files;
mod follow;
mod guardrail;
mod jobs;
mod models;
mod once;
mod prefer;
mod profiles;
mod query;
mod quota;
mod record;
mod reply;
mod responses;
pub(crate) mod route;
mod terms;
pub(crate) mod told;
mod wait;

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::UnsyncBoxBody};

use crate::{
    app::App,
    chat::{Kind, Problem},
    dialect::Dialect,
};
use route::{BatchRoute, FileRoute, MessageBatchRoute, Route};

/// What a response carries.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The largest request body, in bytes: Lambda takes 6 MB in one invocation, and base64 and headers are part of it.
pub const MAX_BODY_BYTES: usize = 6 * 1024 * 1024;

/// One request with what every answer to it needs.
struct Call {
    parts: Parts,
    dialect: Dialect,
    request_id: String,
    /// When this process must be done, in milliseconds since 1970, if it must.
    deadline_ms: Option<u64>,
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
    let call = Arc::new(Call {
        dialect: route::dialect(parts.uri.path(), &parts.headers),
        request_id: uuid::Uuid::now_v7().to_string(),
        deadline_ms: parts.extensions.get::<Deadline>().map(|deadline| deadline.0),
        parts,
    });
    let answered = match (outside, read(body).await) {
        // On the heap, as the larger answers are below: the futures of all routes together would fill a small stack.
        (None, Ok(body)) => Box::pin(answer(app, &call, body)).await,
        (Some(problem), _) | (None, Err(problem)) => Err(problem),
    };
    answered.unwrap_or_else(|problem| reply::problem(&call, &problem, app.clock.now_ms()))
}

async fn answer(app: &App, call: &Arc<Call>, body: Bytes) -> Result<Response<Body>, Problem> {
    match route::route(&call.parts.method, call.parts.uri.path())? {
        Route::Root => Ok(reply::empty(StatusCode::OK)),
        Route::Health => Ok(reply::json(call, StatusCode::OK, &serde_json::json!({ "status": "ok" }))),
        Route::Ask { api, model, stream } => {
            let answer = async move |app: App, call: Arc<Call>, body| {
                Box::pin(chat::chat(&app, &call, api, body, model.as_deref(), stream)).await
            };
            once::once(app, call, body, chat::route_name(api, stream), answer).await
        }
        Route::Response(id) => responses::get(app, call, &id).await,
        Route::CancelResponse(id) => responses::cancel(app, call, &id).await,
        Route::DeleteResponse(id) => responses::delete(app, call, &id).await,
        Route::Count { api, model } => count_tokens::count(app, call, api, body, model.as_deref()).await,
        Route::Guardrail { id, version } => guardrail::apply(app, call, &id, &version, body).await,
        Route::Profiles => profiles::list(app, call).await,
        Route::Profile(id) => profiles::get(app, call, &id).await,
        Route::Models => models::list(app, call).await,
        Route::Model(id) => models::get(app, call, &id).await,
        Route::Quota => quota::quota(app, call).await,
        Route::Jobs => jobs::list(app, call).await,
        Route::Job(id) => jobs::get(app, call, &id).await,
        Route::JobResult(id) => jobs::result(app, call, &id).await,
        Route::CancelJob(id) => jobs::cancel(app, call, &id).await,
        Route::Files(asked) => match asked {
            FileRoute::Upload => files::upload(app, call, body).await,
            FileRoute::List => files::list(app, call).await,
            FileRoute::Get(id) => files::get(app, call, &id).await,
            FileRoute::Content(id) => files::content(app, call, &id).await,
            FileRoute::Delete(id) => files::delete(app, call, &id).await,
        },
        Route::Batches(asked) => match asked {
            BatchRoute::Create => batches::openai::create(app, call, body).await,
            BatchRoute::List => batches::openai::list(app, call).await,
            BatchRoute::Get(id) => batches::openai::get(app, call, &id).await,
            BatchRoute::Cancel(id) => batches::openai::cancel(app, call, &id).await,
        },
        Route::MessageBatches(asked) => match asked {
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
