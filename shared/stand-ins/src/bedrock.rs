//! A stand-in for Amazon Bedrock Runtime that the unmodified AWS SDKs can talk to.
//!
//! It serves Converse, ConverseStream, InvokeModel and InvokeModelWithResponseStream (the bodies of
//! [`Format`]), CountTokens and ApplyGuardrail over HTTP/1.1 and h2c, accepts any or no
//! authorization, answers deterministically from the prompt (`engine`), counts tokens in one way
//! ([`tokens`]), and gives its pools the capacity of Bedrock's (`capacity`). A guardrail blocks a
//! text that contains `sim-blocked`, or what [`SimulatedGuardrail`] says.
//!
//! Model ids that begin with `sim.` are always served and bring a behaviour along: `sim.slow`,
//! `sim.throttled`, `sim.breaks`, `sim.throttles-mid-stream`, `sim.stalls`, `sim.errors`,
//! `sim.timeout`, `sim.refuses`, `sim.denied`, `sim.uncountable` (to CountTokens); a further
//! `.name` makes several of one kind. Others are disturbed by [`config::SimulatedPool::fault`] or
//! by `POST /_sim/faults` with a [`faults::Fault`]; `DELETE /_sim/faults` ends that.
//!
//! `GET /_sim/stats` is the simulator's own account (`DELETE` resets it), `GET /_sim/calls` its log
//! of calls if [`Simulator::call_log`] is on, `POST /_sim/clock {"advance_ms": n}` moves its clock,
//! `GET /_sim/health` says that it listens.

use std::{io, sync::Arc};

use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{body::Body, problem::Problem, state::State};
use crate::{clock::Clock, connections};

mod anthropic;
mod body;
mod cache;
mod call;
mod capacity;
mod chat;
pub mod config;
mod control;
mod converse;
mod embeddings;
mod engine;
mod events;
pub mod faults;
mod format;
mod guardrail;
mod invocation;
mod llama;
mod log;
mod malformed;
mod nova;
mod operation;
mod problem;
mod prompt;
mod reply;
mod run;
mod schema;
mod state;
mod stats;
mod thinking;
pub mod tokens;

pub use self::config::{SimulatedGuardrail, SimulatedPool, Simulator};
pub use self::format::Format;

/// What a simulator is started with.
#[derive(Clone, Default)]
pub struct Options {
    /// Measures and waits; share it with the other stand-ins to advance them together.
    pub clock: Clock,
    pub simulator: Simulator,
}

/// Serves on `listener` until `shutdown` is cancelled, then lets open calls finish for up to five
/// seconds.
///
/// # Errors
/// When a pool's fault cannot be.
pub async fn serve(listener: TcpListener, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let state = Arc::new(State::new(options)?);
    connections::serve(listener, shutdown, move |request| answer(state.clone(), request)).await;
    Ok(())
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let mut response = if let Some(route) = path.strip_prefix("/_sim/") {
        control::answer(&state, &parts.method, route, body).await
    } else {
        match operation::of_path(path).filter(|_| parts.method == Method::POST) {
            Some((model_id, operation)) => call::answer(&state, &model_id, operation, &parts.headers, body).await?,
            None => call::refusal(&Problem::unknown_operation()),
        }
    };
    if let Ok(id) = HeaderValue::try_from(Uuid::new_v4().to_string()) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    Ok(response)
}
