//! The life of one call: read, admit, answer at the model's pace, settle.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::body::Body;
use super::faults::{Disturbance, Refusal};
use super::operation::Operation;
use super::problem::Problem;
use super::prompt::{Prompt, tenant_of};
use super::reply::{Receipt, Shape};
use super::run::Run;
use super::state::State;
use super::stats::Ending;
use super::{anthropic, converse, engine};

const BODY_BYTES: usize = 25_000_000;

/// Answers one operation; an error means that the connection is dropped without an answer.
pub(super) async fn answer(
    state: &Arc<State>,
    model_id: &str,
    operation: Operation,
    headers: &HeaderMap,
    body: Incoming,
) -> io::Result<Response<Body>> {
    let disturbance = state.memory().faults.strike(model_id);
    let body = Limited::new(body, BODY_BYTES).collect().await.map(|body| body.to_bytes());
    if disturbance.refusal == Some(Refusal::Drop) {
        state.memory().stats.refuse(model_id, None, Ending::Failed);
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let body = body.map_err(|_| Problem::invalid("The request body is larger than 25000000 bytes or broke off."));
    let response = match operation {
        Operation::CountTokens => count(state, model_id, body, disturbance),
        Operation::Generate { shape, streamed } => {
            generate(state, model_id, (shape, streamed), headers, body, disturbance).await
        }
    };
    Ok(response.unwrap_or_else(|problem| refusal(&problem)))
}

/// The response of an error.
pub(super) fn refusal(problem: &Problem) -> Response<Body> {
    let mut response = json_response(Body::whole(problem.body()));
    *response.status_mut() = problem.status;
    if let Ok(error_type) = HeaderValue::try_from(problem.error_type()) {
        response.headers_mut().insert("x-amzn-errortype", error_type);
    }
    response
}

pub(super) fn json_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[derive(Deserialize)]
struct CountTokens {
    input: CountInput,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum CountInput {
    Converse(Box<converse::Request>),
    InvokeModel { body: String },
}

/// Counts without answering; free of charge and of quota, so it is in no account.
fn count(
    state: &State,
    model_id: &str,
    body: Result<Bytes, Problem>,
    disturbance: Disturbance,
) -> Result<Response<Body>, Problem> {
    let request: CountTokens = serde_json::from_slice(&body?).map_err(|error| Problem::unreadable(&error))?;
    let prompt = match request.input {
        CountInput::Converse(request) => converse::prompt(*request)?,
        CountInput::InvokeModel { body } => {
            use base64::Engine;
            let body = base64::engine::general_purpose::STANDARD
                .decode(body)
                .map_err(|_| Problem::invalid("input.invokeModel.body is not base64."))?;
            anthropic::parse(&body)?
        }
    };
    check_model(state, model_id, disturbance.refusal)?;
    Ok(json_response(Body::whole(json!({ "inputTokens": prompt.input_tokens() }).to_string())))
}

fn check_model(state: &State, model_id: &str, refusal: Option<Refusal>) -> Result<(), Problem> {
    if !state.simulator.serves(model_id) {
        return Err(Problem::unknown_model());
    }
    match refusal {
        Some(Refusal::Answer(problem)) => Err(problem),
        Some(Refusal::Drop) | None => Ok(()),
    }
}

async fn generate(
    state: &Arc<State>,
    model_id: &str,
    (shape, streamed): (Shape, bool),
    headers: &HeaderMap,
    body: Result<Bytes, Problem>,
    disturbance: Disturbance,
) -> Result<Response<Body>, Problem> {
    let mut tenant = None;
    let run = begin(state, model_id, shape, headers, body, disturbance, &mut tenant).inspect_err(|problem| {
        let ending = if problem.is_throttle() { Ending::Throttled } else { Ending::Failed };
        state.memory().stats.refuse(model_id, tenant.as_deref(), ending);
    })?;
    if streamed { Ok(run.stream()) } else { Ok(run.whole().await) }
}

/// Everything that can refuse a call; `tenant` is told as soon as it is known.
fn begin(
    state: &Arc<State>,
    model_id: &str,
    shape: Shape,
    headers: &HeaderMap,
    body: Result<Bytes, Problem>,
    disturbance: Disturbance,
    tenant: &mut Option<String>,
) -> Result<Run, Problem> {
    let prompt = match shape {
        Shape::Converse => converse::parse(&body?)?,
        Shape::Anthropic => with_headers(anthropic::parse(&body?)?, headers)?,
    };
    tenant.clone_from(&prompt.tenant);
    check_model(state, model_id, disturbance.refusal.clone())?;
    let limit = state.simulator.max_output_tokens(model_id);
    let max_tokens = prompt.max_tokens.unwrap_or(limit);
    if max_tokens > limit {
        return Err(Problem::invalid(format!(
            "The maximum tokens you requested exceeds the model limit of {limit}. Try again with a maximum tokens \
             value that is lower than {limit}."
        )));
    }
    let admitted = state.admit(model_id, &prompt, max_tokens)?;
    let receipt = Receipt {
        model_id: model_id.to_owned(),
        message_id: format!("msg_bdrk_{}", Uuid::new_v4().simple()),
        input: admitted.input.clone(),
        latency_ms: 0,
        first_token_ms: 0,
        service_tier: prompt.service_tier.clone(),
        latency: prompt.latency.clone(),
    };
    let answer = engine::answer(&prompt, state.simulator.default_output_tokens(), max_tokens);
    Ok(Run { state: state.clone(), admitted, shape, answer, receipt, disturbance, vanished: false })
}

/// InvokeModel carries in headers what Converse has in its body.
fn with_headers(mut prompt: Prompt, headers: &HeaderMap) -> Result<Prompt, Problem> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(metadata) = header("x-amzn-bedrock-request-metadata") {
        let metadata = serde_json::from_str(metadata)
            .map_err(|_| Problem::invalid("X-Amzn-Bedrock-Request-Metadata is no JSON object of strings."))?;
        prompt.tenant = tenant_of(&metadata)?;
    }
    prompt.service_tier = header("x-amzn-bedrock-service-tier").map(str::to_owned);
    prompt.latency = header("x-amzn-bedrock-performanceconfig-latency").map(str::to_owned);
    if prompt.service_tier.as_deref().is_some_and(|tier| !converse::is_service_tier(tier)) {
        return Err(Problem::invalid("X-Amzn-Bedrock-Service-Tier is not one of priority, default, flex, reserved."));
    }
    Ok(prompt)
}
