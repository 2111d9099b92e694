//! Handling of a call: read, admit, respond at the speed of the model, settle.

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
    body_format::BodyFormat,
    call_log::{self, Caller},
    converse,
    faults::{InjectedFault, Refusal},
    generation::Generation,
    guardrail::{self, Assessment, Guardrail, GuardrailReference, Verdict},
    invoke_model,
    model::{self, Answer},
    operation::Operation,
    problem::Problem,
    prompt::Prompt,
    response_body::ResponseBody,
    response_format::{CallMetadata, ResponseFormat},
    state::State,
    stats::Outcome,
    thinking,
};

const MAX_BODY_BYTES: usize = 25_000_000;

/// Handles a call of an operation.
///
/// # Errors
/// An error closes the connection without a response.
pub(super) async fn respond(
    state: &Arc<State>,
    id: &str,
    operation: Operation,
    headers: &HeaderMap,
    body: Incoming,
) -> io::Result<Response<ResponseBody>> {
    let injected_fault = state.lock().faults.strike(id);
    let app = call_log::app_id(headers);
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map(|body| body.to_bytes());
    if injected_fault.refusal == Some(Refusal::Disconnect) {
        state.refuse(id, &Caller::default(), Outcome::Failed);
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let body = body.map_err(|_| Problem::invalid("The request body is larger than 25000000 bytes or incomplete."));
    let response = match operation {
        Operation::CountTokens => count_tokens(state, id, body, injected_fault),
        Operation::ApplyGuardrail { version } => apply_guardrail(state, id, version, body, injected_fault),
        Operation::Converse { streamed } => {
            let read = body.and_then(|body| read_converse(state, id, &body));
            generate(state, id, with_app(read, app), streamed, injected_fault).await
        }
        Operation::Invoke { streamed } => {
            let read = body.and_then(|body| read_invocation(state, id, &body, headers, streamed));
            generate(state, id, with_app(read, app), streamed, injected_fault).await
        }
    };
    Ok(response.unwrap_or_else(|problem| error_response(&problem)))
}

/// Creates the response for an error.
pub(super) fn error_response(problem: &Problem) -> Response<ResponseBody> {
    let mut response = json_response(ResponseBody::complete(problem.body()));
    *response.status_mut() = problem.status;
    if let Ok(error_type) = HeaderValue::try_from(problem.error_type()) {
        response.headers_mut().insert("x-amzn-errortype", error_type);
    }
    response
}

/// Creates a response with a JSON body.
pub(super) fn json_response(body: ResponseBody) -> Response<ResponseBody> {
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

/// Runs CountTokens. It is free and uses no quota, so it is not in the statistics.
fn count_tokens(
    state: &State,
    model_id: &str,
    body: Result<Bytes, Problem>,
    injected_fault: InjectedFault,
) -> Result<Response<ResponseBody>, Problem> {
    check_model(state, model_id, injected_fault.refusal)?;
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
            invoke_model::parse(body_format(state, model_id)?, &body)?.0
        }
    };
    Ok(json_response(ResponseBody::complete(json!({ "inputTokens": prompt.input_tokens() }).to_string())))
}

fn check_model(state: &State, model_id: &str, refusal: Option<Refusal>) -> Result<(), Problem> {
    if !state.simulator.serves(model_id) {
        return Err(Problem::unknown_model());
    }
    match refusal {
        Some(Refusal::Error(problem)) => Err(problem),
        Some(Refusal::Disconnect) | None => Ok(()),
    }
}

fn body_format(state: &State, model_id: &str) -> Result<BodyFormat, Problem> {
    state.simulator.format(model_id).ok_or_else(|| {
        Problem::invalid(
            "The provided model identifier is invalid: the simulator has no InvokeModel body format for its provider.",
        )
    })
}

/// Runs ApplyGuardrail. It uses no tokens and no quota, so it is not in the statistics.
fn apply_guardrail(
    state: &State,
    identifier: &str,
    version: String,
    body: Result<Bytes, Problem>,
    injected_fault: InjectedFault,
) -> Result<Response<ResponseBody>, Problem> {
    if let Some(Refusal::Error(problem)) = injected_fault.refusal {
        return Err(problem);
    }
    let reference = GuardrailReference { identifier: identifier.to_owned(), version, has_trace: true };
    let answer = guardrail::apply::answer(&state.simulator, &reference, &body?)?;
    Ok(json_response(ResponseBody::complete(answer.to_string())))
}

fn read_converse(state: &State, model_id: &str, body: &[u8]) -> Result<(Prompt, ResponseFormat), Problem> {
    if state.simulator.format(model_id).is_some_and(BodyFormat::is_embedding) {
        return Err(Problem::invalid(
            "This action doesn't support the model that you provided. Try again with a supported text or chat model.",
        ));
    }
    Ok((converse::parse(body)?, ResponseFormat::Converse))
}

fn read_invocation(
    state: &State,
    model_id: &str,
    body: &[u8],
    headers: &HeaderMap,
    streamed: bool,
) -> Result<(Prompt, ResponseFormat), Problem> {
    let format = body_format(state, model_id)?;
    if streamed && format.is_embedding() {
        return Err(Problem::invalid("The model is unsupported for streaming."));
    }
    let (mut prompt, response_format) = invoke_model::parse(format, body)?;
    invoke_model::read_headers(&mut prompt, headers)?;
    Ok((prompt, response_format))
}

/// Adds the application id to the caller.
fn with_app(
    read: Result<(Prompt, ResponseFormat), Problem>,
    app: Option<String>,
) -> Result<(Prompt, ResponseFormat), Problem> {
    read.map(|(mut prompt, response_format)| {
        prompt.caller.app = app;
        (prompt, response_format)
    })
}

async fn generate(
    state: &Arc<State>,
    model_id: &str,
    read: Result<(Prompt, ResponseFormat), Problem>,
    streamed: bool,
    injected_fault: InjectedFault,
) -> Result<Response<ResponseBody>, Problem> {
    let caller = read.as_ref().map(|(prompt, _)| prompt.caller.clone()).unwrap_or_default();
    let generation =
        read.and_then(|(prompt, response_format)| admit(state, model_id, prompt, response_format, injected_fault));
    let generation = generation.inspect_err(|problem| {
        let outcome = if problem.is_throttle() { Outcome::Throttled } else { Outcome::Failed };
        state.refuse(model_id, &caller, outcome);
    })?;
    if streamed { Ok(generation.respond_with_stream()) } else { Ok(generation.respond().await) }
}

/// Checks a parsed call and reserves its capacity.
fn admit(
    state: &Arc<State>,
    model_id: &str,
    mut prompt: Prompt,
    response_format: ResponseFormat,
    injected_fault: InjectedFault,
) -> Result<Generation, Problem> {
    check_model(state, model_id, injected_fault.refusal.clone())?;
    let mut max_tokens = check_length(state, model_id, &prompt, &response_format)?;
    let reference = prompt.guardrail.as_ref().filter(|_| !matches!(response_format, ResponseFormat::Vectors(_)));
    let guard = reference.map(|reference| Guardrail::find(&state.simulator, reference)).transpose()?;
    let guard = guard.map(|guardrail| (guardrail.assess(prompt.guarded_text()), guardrail));
    if guard.as_ref().is_some_and(|(input, _)| input.intervenes()) {
        // A blocked prompt does not reach the model, so it costs nothing.
        prompt.parts.clear();
        max_tokens = 0;
    }
    let admitted = state.admit(model_id, &prompt, max_tokens)?;
    let (answer, verdict) = answer_to(state, &prompt, &response_format, max_tokens, guard);
    let metadata = CallMetadata {
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
    Ok(Generation {
        state: state.clone(),
        admitted,
        response_format,
        answer,
        metadata,
        injected_fault,
        is_client_gone: false,
    })
}

fn check_length(
    state: &State,
    model_id: &str,
    prompt: &Prompt,
    response_format: &ResponseFormat,
) -> Result<u64, Problem> {
    let limit = state.simulator.max_output_tokens(model_id);
    let max_tokens = prompt.max_tokens.unwrap_or(limit);
    if max_tokens > limit {
        return Err(Problem::invalid(format!(
            "The maximum tokens you requested exceeds the model limit of {limit}. Try again with a maximum tokens \
             value that is lower than {limit}."
        )));
    }
    thinking::check(prompt, max_tokens).map_err(|message| match response_format {
        ResponseFormat::Converse => converse::from_model(message),
        _ => Problem::invalid(message),
    })?;
    Ok(max_tokens)
}

/// Returns the answer of the model, unless a guardrail blocks the prompt or the answer.
fn answer_to(
    state: &State,
    prompt: &Prompt,
    response_format: &ResponseFormat,
    max_tokens: u64,
    guard: Option<(Assessment, Guardrail)>,
) -> (Answer, Option<Verdict>) {
    let generate_answer = || match response_format {
        ResponseFormat::Vectors(_) => Answer::empty("end_turn"),
        _ => model::answer(prompt, state.simulator.default_output_tokens(), max_tokens),
    };
    match guard {
        None => (generate_answer(), None),
        Some((input, guardrail)) if input.intervenes() => {
            let (answer, verdict) = guardrail.block(input);
            (answer, Some(verdict))
        }
        Some((input, guardrail)) => {
            let mut answer = generate_answer();
            let verdict = guardrail.check_answer(input, &mut answer);
            (answer, Some(verdict))
        }
    }
}
