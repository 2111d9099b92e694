//! Entry points of the Lambda functions: pass events to [`http::handle`](crate::http::handle) or to
//! [`drain`](crate::drain).

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
    units::{Millis, UnixMs},
};

/// Runs a Lambda function: starts the runtime, creates the app from the environment, and serves.
///
/// # Errors
/// Returns an error if the environment is invalid, or the Lambda runtime ends.
pub fn run<F: Future<Output = Result<(), Error>>>(serve: impl FnOnce(App) -> F) -> Result<(), Error> {
    // A function of this size has a fraction of a CPU, and the broker mostly waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { serve(App::from_env().await?).await })
}

/// Serves events of API Gateway, Function URLs and load balancers. Streams every response.
///
/// # Errors
/// Returns an error if the Lambda runtime ends.
pub async fn serve_http(app: App) -> Result<(), Error> {
    let handler = service_fn(move |event: LambdaEvent<LambdaRequest>| {
        let app = app.clone();
        async move {
            let request = request::read(event.payload).with_lambda_context(event.context);
            // Boxed, because the compiler cannot compute the layout of futures nested this deep.
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

/// Serves SQS batches and the schedule of the sweep.
///
/// # Errors
/// Returns an error if the Lambda runtime ends.
pub async fn serve_queue(app: App) -> Result<(), Error> {
    let handler = service_fn(move |event: LambdaEvent<DrainEvent>| {
        let app = app.clone();
        async move {
            let deadline = usable_deadline(&app, event.context.deadline);
            Ok::<_, Error>(drain::handle(&app, event.payload, deadline).await?)
        }
    });
    lambda_runtime::run_concurrent(handler).await
}

/// Answers one HTTP event.
pub async fn answer(app: &App, mut request: Request) -> Response<Body> {
    if let Some(caller) = request::caller(&request) {
        request.extensions_mut().insert(caller);
    }
    let deadline = request.lambda_context_ref().and_then(|context| usable_deadline(app, context.deadline));
    if let Some(deadline) = deadline {
        request.extensions_mut().insert(Deadline(deadline));
    }
    handle(app, request).await
}

/// Time of an invocation that is reserved for settling and answering.
const MARGIN: Millis = Millis::from_s(2);

/// Returns the deadline of an invocation, less the margin. A deadline in the past means that there
/// is none: the local emulator sends such deadlines.
fn usable_deadline(app: &App, deadline_ms: u64) -> Option<UnixMs> {
    let deadline = UnixMs::from_ms(deadline_ms) - MARGIN;
    (deadline > app.clock.now()).then_some(deadline)
}

/// An event as Lambda delivers it to one of the two functions.
pub enum FunctionEvent {
    /// For `api`.
    Http(Box<Request>),
    /// For `drain`.
    Queue(DrainEvent),
}

impl FunctionEvent {
    /// Parses an event from JSON.
    ///
    /// # Errors
    /// Returns an error if it is neither an HTTP event of API Gateway or a Function URL, nor an SQS
    /// batch, nor the schedule of the sweep.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        match serde_json::from_str(json) {
            Ok(event) => Ok(Self::Queue(event)),
            Err(_) => serde_json::from_str(json).map(|event| Self::Http(Box::new(request::read(event)))),
        }
    }
}
