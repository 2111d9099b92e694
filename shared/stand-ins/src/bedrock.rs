//! Stand-in for Amazon Bedrock Runtime that works with the unmodified AWS SDKs.
//!
//! It serves Converse, ConverseStream, InvokeModel and InvokeModelWithResponseStream (with the
//! bodies of [`BodyFormat`]), CountTokens and ApplyGuardrail over HTTP/1.1 and h2c. It accepts any
//! authorization or none, answers deterministically from the prompt (`model`), counts all tokens in
//! the same way ([`tokens`]), and limits its pools as Bedrock does (`capacity`). A guardrail blocks
//! a text that contains `sim-blocked`, or the words of [`SimulatedGuardrail`].
//!
//! Model ids that begin with `sim.` are always served and select a behaviour: `sim.slow`,
//! `sim.throttled`, `sim.breaks`, `sim.throttles-mid-stream`, `sim.stalls`, `sim.silent`,
//! `sim.errors`, `sim.timeout`, `sim.refuses`, `sim.denied`, `sim.uncountable` (for CountTokens). A
//! suffix `.name` makes several models with the same behaviour. For other models,
//! [`config::SimulatedPool::fault`] or `POST /_sim/faults` with a [`faults::Fault`] injects a
//! fault; `DELETE /_sim/faults` removes the faults.
//!
//! `GET /_sim/stats` returns the usage statistics (`DELETE` resets them), `GET /_sim/calls` returns
//! the call log if [`Simulator::call_log`] is on, `POST /_sim/clock {"advance_ms": n}` advances the
//! clock, and `GET /_sim/health` reports that the simulator accepts requests.

use std::{io, sync::Arc};

use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{problem::Problem, response_body::ResponseBody, state::State};
use crate::{clock::Clock, connections};

mod anthropic;
mod body_format;
mod body_schema;
mod call;
mod call_log;
mod capacity;
mod chat_completions;
pub mod config;
mod control;
mod converse;
mod document;
mod embeddings;
mod event_stream;
pub mod faults;
mod generation;
mod guardrail;
mod invoke_model;
mod json_schema;
mod llama;
mod model;
mod nova;
mod operation;
mod output_members;
mod problem;
mod prompt;
mod prompt_cache;
mod response_body;
mod response_format;
mod state;
mod stats;
mod thinking;
pub mod tokens;

pub use self::body_format::BodyFormat;
pub use self::config::{SimulatedGuardrail, SimulatedPool, Simulator};

/// Settings of the Bedrock stand-in.
#[derive(Clone, Default)]
pub struct Options {
    /// Clock for all times and waits. Share it with the other stand-ins to advance them together.
    pub clock: Clock,
    /// Behaviour of the simulated models.
    pub simulator: Simulator,
}

/// Serves Bedrock Runtime on `listener` until `shutdown`, then waits up to five seconds for calls
/// in flight.
///
/// # Errors
/// Returns an error if the fault of a pool is invalid.
pub async fn serve(listener: TcpListener, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let state = Arc::new(State::new(options)?);
    connections::serve(listener, shutdown, move |request| respond(state.clone(), request)).await;
    Ok(())
}

async fn respond(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<ResponseBody>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let mut response = if let Some(route) = path.strip_prefix("/_sim/") {
        control::respond(&state, &parts.method, route, body).await
    } else {
        match operation::parse_path(path).filter(|_| parts.method == Method::POST) {
            Some((model_id, operation)) => call::respond(&state, &model_id, operation, &parts.headers, body).await?,
            None => call::error_response(&Problem::unknown_operation()),
        }
    };
    if let Ok(id) = HeaderValue::try_from(Uuid::new_v4().to_string()) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    Ok(response)
}
