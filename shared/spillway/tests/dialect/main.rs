//! The dialects from outside: requests and answers, byte for byte where clients depend on it.

mod anthropic;
mod bedrock;
mod fuzz;
mod golden;
mod native;
mod openai;
mod problems;
mod properties;
mod responses;
mod roundtrip;

use http::HeaderMap;
use serde_json::{Map, Value, json};
use spillway::{
    chat::{Answer, Output, Request, StreamEvent},
    dialect::{AnswerContext, Api, Echo},
    problem::Problem,
    units::UnixMs,
    usage::Usage,
};

/// A transparent pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

/// Reads a body as the API does for an unknown model.
fn read(api: Api, body: &[u8], path_model: Option<&str>, stream: bool) -> Result<(Request, Echo), Problem> {
    api.read(body, path_model, stream)?.request(None, &HeaderMap::new())
}

fn parse(api: Api, body: &Value) -> Request {
    read(api, body.to_string().as_bytes(), Some("claude"), false).expect("a valid body").0
}

/// The body for the model.
fn body(request: &Request) -> &Map<String, Value> {
    &request.input.bodies()[0]
}

fn sent(request: &Request) -> Value {
    Value::Object(body(request).clone())
}

/// The Converse body of a valid request.
fn converse(api: Api, body: Value) -> Value {
    sent(&parse(api, &body))
}

fn rejection(api: Api, body: &Value) -> Problem {
    read(api, body.to_string().as_bytes(), Some("claude"), false).expect_err("an error")
}

/// The message of the error for a request. Fails unless the error names `param`.
fn rejection_message(api: Api, body: Value, param: &str) -> String {
    let problem = rejection(api, &body);
    assert_eq!(problem.param.as_deref(), Some(param), "{problem}");
    problem.message
}

fn context() -> AnswerContext {
    AnswerContext {
        request_id: "r1".into(),
        model: "claude".into(),
        created_at: UnixMs::from_ms(1_700_000_000_000),
        echo: Echo::default(),
    }
}

const USAGE: Usage = Usage {
    input_tokens: 10,
    output_tokens: 5,
    cache_read_input_tokens: 100,
    cache_write_input_tokens: 1000,
    cache_write_1h_input_tokens: 400,
    reasoning_tokens: 2,
};

/// An answer with the blocks `content`.
fn answer(content: Value, stop_reason: &str) -> Answer {
    let message = json!({"role": "assistant", "content": content});
    let body = json!({"output": {"message": message}, "stopReason": stop_reason});
    Answer { output: Output::Converse(body), usage: Some(USAGE) }
}

fn rendered(api: Api, answer: &Answer) -> Value {
    serde_json::from_slice(&api.answer(&context(), answer).body).expect("an answer is JSON")
}

fn event(name: &str, payload: Value) -> StreamEvent {
    StreamEvent::Converse { name: name.into(), payload }
}

/// A stream as Bedrock sends it: reasoning, `Hello`, a tool call, and a call of a tool without
/// parameters.
fn busy_stream() -> Vec<StreamEvent> {
    let usage = json!({"inputTokens": 10, "outputTokens": 5, "totalTokens": 1115,
        "cacheReadInputTokens": 100, "cacheWriteInputTokens": 1000});
    let delta =
        |block: u64, delta: Value| event("contentBlockDelta", json!({"contentBlockIndex": block, "delta": delta}));
    let stop = |block: u64| event("contentBlockStop", json!({"contentBlockIndex": block}));
    let tool = |block: u64, id: &str, name: &str| {
        let start = json!({"toolUse": {"toolUseId": id, "name": name}});
        event("contentBlockStart", json!({"contentBlockIndex": block, "start": start}))
    };
    vec![
        event("messageStart", json!({"role": "assistant"})),
        delta(0, json!({"reasoningContent": {"text": "Hm."}})),
        delta(0, json!({"reasoningContent": {"signature": "c2ln"}})),
        stop(0),
        delta(1, json!({"text": "Hel"})),
        delta(1, json!({"text": "lo"})),
        stop(1),
        tool(3, "t1", "weather"),
        delta(3, json!({"toolUse": {"input": "{\"city\":"}})),
        delta(3, json!({"toolUse": {"input": "\"Ulm\"}"}})),
        stop(3),
        tool(4, "t2", "clock"),
        delta(4, json!({"toolUse": {"input": ""}})),
        stop(4),
        event("messageStop", json!({"stopReason": "tool_use"})),
        event("metadata", json!({"usage": usage, "metrics": {"latencyMs": 7}})),
    ]
}

/// All bytes of a successful stream.
fn streamed(api: Api, context: AnswerContext, events: &[StreamEvent]) -> Vec<u8> {
    let mut encoder = api.stream(context);
    let mut bytes = Vec::new();
    events.iter().for_each(|event| bytes.extend(encoder.event(event)));
    bytes.extend(encoder.finish());
    assert!(encoder.finish().is_empty() && encoder.event(&events[0]).is_empty(), "no bytes after the end");
    bytes
}

/// The `data:` payloads of an SSE stream, parsed if they are JSON.
fn payloads(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).expect("SSE is text");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
}
