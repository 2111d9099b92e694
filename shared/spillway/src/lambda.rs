//! The Lambda front: events in, [`http::handle`](crate::http::handle) or [`drain`](crate::drain) out.

mod request;

use std::convert::Infallible;

use http::Response;
use http_body_util::{BodyDataStream, BodyExt};
use lambda_http::{Request, RequestExt, request::LambdaRequest};
pub use lambda_runtime::Error;
use lambda_runtime::{LambdaEvent, MetadataPrelude, StreamResponse, service_fn};

use crate::{
    app::App,
    drain::{self, DrainEvent},
    http::{Body, Deadline, handle},
};

/// Runs a function's main: starts the runtime and the app of the environment, then serves.
///
/// # Errors
/// The environment cannot be used, or the Lambda runtime ended.
pub fn run<F: Future<Output = Result<(), Error>>>(serve: impl FnOnce(App) -> F) -> Result<(), Error> {
    // A function of this size has a part of one CPU, and the broker waits more than it computes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { serve(App::from_env().await?).await })
}

/// Serves API Gateway, Function URL and load balancer events, streaming every response.
///
/// # Errors
/// The Lambda runtime ended.
pub async fn serve_http(app: App) -> Result<(), Error> {
    let handler = service_fn(move |event: LambdaEvent<LambdaRequest>| {
        let app = app.clone();
        async move {
            let request = request::read(event.payload).with_lambda_context(event.context);
            // Boxed, because the compiler gives up on the layout of futures nested this deep.
            Ok::<_, Infallible>(streamed(Box::pin(answer(&app, request)).await))
        }
    });
    lambda_runtime::run_concurrent(handler).await
}

fn streamed(response: Response<Body>) -> StreamResponse<BodyDataStream<Body>> {
    let (parts, body) = response.into_parts();
    let metadata_prelude = MetadataPrelude { status_code: parts.status, headers: parts.headers, cookies: Vec::new() };
    StreamResponse { metadata_prelude, stream: body.into_data_stream() }
}

/// Serves SQS batches and the sweep's schedule.
///
/// # Errors
/// The Lambda runtime ended.
pub async fn serve_queue(app: App) -> Result<(), Error> {
    let handler = service_fn(move |event: LambdaEvent<DrainEvent>| {
        let app = app.clone();
        async move {
            let deadline_ms = deadline_ms(&app, event.context.deadline);
            Ok::<_, Error>(drain::handle(&app, event.payload, deadline_ms).await?)
        }
    });
    lambda_runtime::run_concurrent(handler).await
}

/// Answers one HTTP event.
pub async fn answer(app: &App, mut request: Request) -> Response<Body> {
    if let Some(caller) = request::caller(&request) {
        request.extensions_mut().insert(caller);
    }
    let deadline = request.lambda_context_ref().and_then(|context| deadline_ms(app, context.deadline));
    if let Some(deadline_ms) = deadline {
        request.extensions_mut().insert(Deadline(deadline_ms));
    }
    handle(app, request).await
}

/// What is kept of the invocation's time for settling and answering, in milliseconds.
const RESERVE_MS: u64 = 2_000;

/// The invocation's deadline. One in the past means that nobody knows it: the local emulator sends such.
fn deadline_ms(app: &App, deadline_ms: u64) -> Option<u64> {
    let usable_ms = deadline_ms.saturating_sub(RESERVE_MS);
    (usable_ms > app.clock.now_ms()).then_some(usable_ms)
}

/// An event as Lambda would deliver it to one of the two functions.
pub enum Event {
    /// For `api`.
    Http(Box<Request>),
    /// For `drain`.
    Queue(DrainEvent),
}

impl Event {
    /// Reads an event from JSON.
    ///
    /// # Errors
    /// It is neither an HTTP event of API Gateway or a Function URL, nor an SQS batch, nor the sweep's schedule.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        match serde_json::from_str(json) {
            Ok(event) => Ok(Self::Queue(event)),
            Err(_) => serde_json::from_str(json).map(|event| Self::Http(Box::new(request::read(event)))),
        }
    }
}
