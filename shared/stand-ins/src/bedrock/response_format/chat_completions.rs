//! Responses in the format of OpenAI chat completions.

use serde_json::{Value, json};

use super::{CallMetadata, deltas};
use crate::bedrock::{
    event_stream::Event,
    model::{Answer, Block, ToolUse},
    tokens,
};

/// Returns the complete body.
pub(super) fn body(answer: &Answer, metadata: &CallMetadata) -> Value {
    let text = answer.text();
    let mut message =
        json!({ "role": "assistant", "content": if text.is_empty() { Value::Null } else { json!(text) } });
    let calls: Vec<Value> = answer.tool_uses().map(|call| tool_call(call, &call.input.to_string())).collect();
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    let finish_reason = finish_reason(answer);
    let choice =
        |index| json!({ "index": index, "message": message, "finish_reason": finish_reason, "logprobs": null });
    let mut body = envelope("chat.completion", metadata);
    body["choices"] = (0..answer.choices).map(choice).collect();
    body["usage"] = usage(answer, metadata);
    body
}

/// Returns all events of a stream except the last, one choice after the other.
pub(super) fn events(answer: &Answer, metadata: &CallMetadata) -> Vec<Event> {
    (0..answer.choices).flat_map(|index| choice_events(answer, metadata, index)).collect()
}

fn choice_events(answer: &Answer, metadata: &CallMetadata, index: u64) -> Vec<Event> {
    let chunk = |delta: Value| Event::chunk(&chunk(metadata, json!([choice_delta(index, &delta, None)])));
    let mut events = vec![chunk(json!({ "role": "assistant", "content": "" }))];
    let mut calls = 0;
    for block in &answer.blocks {
        match block {
            Block::Thinking(_) => {}
            Block::Text(text) => {
                let to_event = |(fragment, tokens)| chunk(json!({ "content": fragment })).with_tokens(tokens);
                events.extend(deltas(text).map(to_event));
            }
            Block::ToolUse(call) => {
                let mut start = tool_call(call, "");
                start["index"] = json!(calls);
                let start = chunk(json!({ "tool_calls": [start] }));
                events.push(start.with_tokens(tokens::tool_use_tokens(&call.name, "")));
                events.extend(deltas(&call.input.to_string()).map(|(fragment, tokens)| {
                    let call_delta = json!({ "index": calls, "function": { "arguments": fragment } });
                    chunk(json!({ "tool_calls": [call_delta] })).with_tokens(tokens)
                }));
                calls += 1;
            }
        }
    }
    events
}

/// Returns the last chunk of a stream.
pub(super) fn last_chunk(answer: &Answer, metadata: &CallMetadata) -> Value {
    let end = |index| choice_delta(index, &json!({}), Some(finish_reason(answer)));
    let mut last = chunk(metadata, (0..answer.choices).map(end).collect());
    last["usage"] = usage(answer, metadata);
    last
}

fn chunk(metadata: &CallMetadata, choices: Value) -> Value {
    let mut chunk = envelope("chat.completion.chunk", metadata);
    chunk["choices"] = choices;
    chunk
}

fn choice_delta(index: u64, delta: &Value, finish_reason: Option<&str>) -> Value {
    json!({ "index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": null })
}

fn envelope(object: &str, metadata: &CallMetadata) -> Value {
    json!({
        "id": metadata.message_id.replace("msg_bdrk_", "chatcmpl-"),
        "object": object,
        "created": metadata.begun_ms / 1_000,
        "model": metadata.model_id,
    })
}

fn tool_call(call: &ToolUse, arguments: &str) -> Value {
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": arguments } })
}

fn finish_reason(answer: &Answer) -> &'static str {
    match answer.stop_reason {
        "max_tokens" => "length",
        "tool_use" => "tool_calls",
        _ => "stop",
    }
}

fn usage(answer: &Answer, metadata: &CallMetadata) -> Value {
    let prompt_tokens = metadata.total_tokens(answer) - answer.output_tokens;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": metadata.total_tokens(answer),
    })
}
