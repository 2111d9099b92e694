//! The life of one call: read, admit, answer at the model's pace, settle.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Response,
    header::{CONTENT_TYPE, HeaderMap},
};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{
    body::Body,
    converse,
    engine::{self, Answer},
    faults::{Disturbance, Refusal},
    format::Format,
    guardrail::{self, Assessment, Attached, Guardrail, Verdict},
    invocation,
    log::{self, Caller},
    operation::Operation,
    problem::Problem,
    prompt::Prompt,
    reply::{Receipt, Shape},
    run::Run,
    state::State,
    stats::Ending,
    thinking,
};

const BODY_BYTES: usize = 25_000_000;

/// Answers one operation; an error means that the connection is dropped without an answer.
pub(super) async fn answer(
    state: &Arc<State>,
    id: &str,
    operation: Operation,
    headers: &HeaderMap,
    body: Incoming,
) -> io::Result<Response<Body>> {
    let disturbance = state.memory().faults.strike(id);
    let app = log::app_of(headers);
    let body = Limited::new(body, BODY_BYTES).collect().await.map(|body| body.to_bytes());
    if disturbance.refusal == Some(Refusal::Drop) {
        state.refuse(id, &Caller::default(), Ending::Failed);
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let body = body.map_err(|_| Problem::invalid("The request body is larger than 25000000 bytes or broke off."));
    let response = match operation {
        Operation::CountTokens => count(state, id, body, disturbance),
        Operation::ApplyGuardrail { version } => apply_guardrail(state, id, version, body, disturbance),
        Operation::Converse { streamed } => {
            let read = body.and_then(|body| read_converse(state, id, &body));
            generate(state, id, of_app(read, app), streamed, disturbance).await
        }
        Operation::Invoke { streamed } => {
            let read = body.and_then(|body| read_invocation(state, id, &body, headers, streamed));
            generate(state, id, of_app(read, app), streamed, disturbance).await
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
    check_model(state, model_id, disturbance.refusal)?;
    if !state.simulator.counts_tokens(model_id) {
        return Err(Problem::invalid("The provided model doesn't support counting tokens."));
    }
    let request: CountTokens = serde_json::from_slice(&body?).map_err(|error| Problem::unreadable(&error))?;
    let prompt = match request.input {
        CountInput::Converse(request) => converse::prompt(*request)?,
        CountInput::InvokeModel { body } => {
            use base64::Engine;
            let body = base64::engine::general_purpose::STANDARD
                .decode(body)
                .map_err(|_| Problem::invalid("input.invokeModel.body is not base64."))?;
            invocation::parse(format(state, model_id)?, &body)?.0
        }
    };
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

fn format(state: &State, model_id: &str) -> Result<Format, Problem> {
    state.simulator.format(model_id).ok_or_else(|| {
        Problem::invalid(
            "The provided model identifier is invalid: the simulator knows no body of InvokeModel for its provider.",
        )
    })
}

/// Free of tokens and of the models' quotas, so it is in no account.
fn apply_guardrail(
    state: &State,
    identifier: &str,
    version: String,
    body: Result<Bytes, Problem>,
    disturbance: Disturbance,
) -> Result<Response<Body>, Problem> {
    if let Some(Refusal::Answer(problem)) = disturbance.refusal {
        return Err(problem);
    }
    let attached = Attached { identifier: identifier.to_owned(), version, traced: true };
    let answer = guardrail::apply::answer(&state.simulator, &attached, &body?)?;
    Ok(json_response(Body::whole(answer.to_string())))
}

fn read_converse(state: &State, model_id: &str, body: &[u8]) -> Result<(Prompt, Shape), Problem> {
    if state.simulator.format(model_id).is_some_and(Format::is_embedding) {
        return Err(Problem::invalid(
            "This action doesn't support the model that you provided. Try again with a supported text or chat model.",
        ));
    }
    Ok((converse::parse(body)?, Shape::Converse))
}

fn read_invocation(
    state: &State,
    model_id: &str,
    body: &[u8],
    headers: &HeaderMap,
    streamed: bool,
) -> Result<(Prompt, Shape), Problem> {
    let format = format(state, model_id)?;
    if streamed && format.is_embedding() {
        return Err(Problem::invalid("The model is unsupported for streaming."));
    }
    let (mut prompt, shape) = invocation::parse(format, body)?;
    invocation::read_headers(&mut prompt, headers)?;
    Ok((prompt, shape))
}

/// The same, with the application that sent it.
fn of_app(read: Result<(Prompt, Shape), Problem>, app: Option<String>) -> Result<(Prompt, Shape), Problem> {
    read.map(|(mut prompt, shape)| {
        prompt.caller.app = app;
        (prompt, shape)
    })
}

async fn generate(
    state: &Arc<State>,
    model_id: &str,
    read: Result<(Prompt, Shape), Problem>,
    streamed: bool,
    disturbance: Disturbance,
) -> Result<Response<Body>, Problem> {
    let caller = read.as_ref().map(|(prompt, _)| prompt.caller.clone()).unwrap_or_default();
    let run = read.and_then(|(prompt, shape)| begin(state, model_id, prompt, shape, disturbance));
    let run = run.inspect_err(|problem| {
        let ending = if problem.is_throttle() { Ending::Throttled } else { Ending::Failed };
        state.refuse(model_id, &caller, ending);
    })?;
    if streamed { Ok(run.stream()) } else { Ok(run.whole().await) }
}

/// Everything that can refuse a call that was understood.
fn begin(
    state: &Arc<State>,
    model_id: &str,
    mut prompt: Prompt,
    shape: Shape,
    disturbance: Disturbance,
) -> Result<Run, Problem> {
    check_model(state, model_id, disturbance.refusal.clone())?;
    let mut max_tokens = check_length(state, model_id, &prompt, &shape)?;
    let attached = prompt.guardrail.as_ref().filter(|_| !matches!(shape, Shape::Vectors(_)));
    let guard = attached.map(|attached| Guardrail::find(&state.simulator, attached)).transpose()?;
    let guard = guard.map(|guardrail| (guardrail.assess(prompt.guarded()), guardrail));
    if guard.as_ref().is_some_and(|(input, _)| input.intervenes()) {
        // The model never sees it, so it costs nothing.
        prompt.parts.clear();
        max_tokens = 0;
    }
    let admitted = state.admit(model_id, &prompt, max_tokens)?;
    let (answer, verdict) = answer_to(state, &prompt, &shape, max_tokens, guard);
    let receipt = Receipt {
        model_id: model_id.to_owned(),
        message_id: format!("msg_bdrk_{}", Uuid::new_v4().simple()),
        input: admitted.input.clone(),
        verdict,
        begun_ms: admitted.begun_ms,
        latency_ms: 0,
        first_token_ms: 0,
        service_tier: prompt.service_tier.clone(),
        latency: prompt.latency.clone(),
    };
    Ok(Run { state: state.clone(), admitted, shape, answer, receipt, disturbance, vanished: false })
}

fn check_length(state: &State, model_id: &str, prompt: &Prompt, shape: &Shape) -> Result<u64, Problem> {
    let limit = state.simulator.max_output_tokens(model_id);
    let max_tokens = prompt.max_tokens.unwrap_or(limit);
    if max_tokens > limit {
        return Err(Problem::invalid(format!(
            "The maximum tokens you requested exceeds the model limit of {limit}. Try again with a maximum tokens \
             value that is lower than {limit}."
        )));
    }
    thinking::check(prompt, max_tokens).map_err(|message| match shape {
        Shape::Converse => converse::from_model(message),
        _ => Problem::invalid(message),
    })?;
    Ok(max_tokens)
}

/// The model's answer, unless a guardrail keeps the prompt from the model or the answer from the client.
fn answer_to(
    state: &State,
    prompt: &Prompt,
    shape: &Shape,
    max_tokens: u64,
    guard: Option<(Assessment, Guardrail)>,
) -> (Answer, Option<Verdict>) {
    let model = || match shape {
        Shape::Vectors(_) => Answer::empty("end_turn"),
        _ => engine::answer(prompt, state.simulator.default_output_tokens(), max_tokens),
    };
    match guard {
        None => (model(), None),
        Some((input, guardrail)) if input.intervenes() => {
            let (answer, verdict) = guardrail.block(input);
            (answer, Some(verdict))
        }
        Some((input, guardrail)) => {
            let mut answer = model();
            let verdict = guardrail.check_answer(input, &mut answer);
            (answer, Some(verdict))
        }
    }
}
