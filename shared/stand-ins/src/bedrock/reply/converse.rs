//! Answers in the words of Converse and ConverseStream.

use serde_json::{Map, Value, json};

use super::{Receipt, deltas};
use crate::bedrock::engine::{Answer, Content};
use crate::bedrock::events::Event;
use crate::bedrock::tokens;

pub(super) fn body(answer: &Answer, receipt: &Receipt) -> Value {
    let content = match &answer.content {
        Content::Text(text) if text.is_empty() => json!([]),
        Content::Text(text) => json!([{ "text": text }]),
        Content::ToolUse(call) => {
            json!([{ "toolUse": { "toolUseId": call.id, "name": call.name, "input": call.input } }])
        }
    };
    let mut body = closing(answer, receipt);
    body.insert("output".to_owned(), json!({ "message": { "role": "assistant", "content": content } }));
    body.insert("stopReason".to_owned(), json!(answer.stop_reason));
    if let Some(sequence) = &answer.stop_sequence {
        body.insert("additionalModelResponseFields".to_owned(), json!({ "stop_sequence": sequence }));
    }
    Value::Object(body)
}

pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let mut events = vec![Event::new("messageStart", json!({ "role": "assistant" }))];
    match &answer.content {
        Content::Text(text) => events.extend(deltas(text).map(|(piece, tokens)| {
            let delta = json!({ "contentBlockIndex": 0, "delta": { "text": piece } });
            Event::new("contentBlockDelta", delta).carrying(tokens)
        })),
        Content::ToolUse(call) => {
            let start = json!({ "toolUse": { "toolUseId": call.id, "name": call.name } });
            let start = Event::new("contentBlockStart", json!({ "contentBlockIndex": 0, "start": start }));
            events.push(start.carrying(tokens::tool_use_tokens(&call.name, "")));
            events.extend(deltas(&call.input.to_string()).map(|(piece, tokens)| {
                let delta = json!({ "contentBlockIndex": 0, "delta": { "toolUse": { "input": piece } } });
                Event::new("contentBlockDelta", delta).carrying(tokens)
            }));
        }
    }
    if events.len() > 1 {
        events.push(Event::new("contentBlockStop", json!({ "contentBlockIndex": 0 })));
    }
    events.push(Event::new("messageStop", json!({ "stopReason": answer.stop_reason })));
    events
}

pub(super) fn last_event(answer: &Answer, receipt: &Receipt) -> Event {
    Event::new("metadata", Value::Object(closing(answer, receipt)))
}

/// Usage, metrics and how the call was served: the same in a body and in a stream's last event.
fn closing(answer: &Answer, receipt: &Receipt) -> Map<String, Value> {
    let input = &receipt.input;
    let total = input.input_tokens + input.cache_read_tokens + input.cache_write_tokens + answer.output_tokens;
    let mut usage = json!({
        "inputTokens": input.input_tokens,
        "outputTokens": answer.output_tokens,
        "totalTokens": total,
        "cacheReadInputTokens": input.cache_read_tokens,
        "cacheWriteInputTokens": input.cache_write_tokens,
    });
    if !input.writes.is_empty() {
        let details = input.writes.iter().map(|(life, tokens)| json!({ "ttl": life.name(), "inputTokens": tokens }));
        usage["cacheDetails"] = details.collect();
    }
    let mut closing = Map::new();
    closing.insert("usage".to_owned(), usage);
    closing.insert("metrics".to_owned(), json!({ "latencyMs": receipt.latency_ms }));
    if let Some(tier) = &receipt.service_tier {
        closing.insert("serviceTier".to_owned(), json!({ "type": tier }));
    }
    if let Some(latency) = &receipt.latency {
        closing.insert("performanceConfig".to_owned(), json!({ "latency": latency }));
    }
    closing
}
