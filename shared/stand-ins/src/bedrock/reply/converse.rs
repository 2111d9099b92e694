//! Answers in the words of Converse and ConverseStream.

use serde_json::{Map, Value, json};

use super::{Receipt, deltas};
use crate::bedrock::{
    cache::Lifetime,
    engine::{Answer, Block},
    events::Event,
    thinking, tokens,
};

pub(super) fn body(answer: &Answer, receipt: &Receipt) -> Value {
    let mut body = closing(answer, receipt);
    body.insert("output".to_owned(), json!({ "message": { "role": "assistant", "content": content(answer) } }));
    body.insert("stopReason".to_owned(), json!(answer.stop_reason));
    if let Some(sequence) = &answer.stop_sequence {
        body.insert("additionalModelResponseFields".to_owned(), json!({ "stop_sequence": sequence }));
    }
    Value::Object(body)
}

/// The blocks of the answering message.
pub(super) fn content(answer: &Answer) -> Value {
    let block = |block: &Block| match block {
        Block::Thinking(thoughts) => json!({ "reasoningContent": {
            "reasoningText": { "text": thoughts, "signature": thinking::signature(thoughts) },
        } }),
        Block::Text(text) => json!({ "text": text }),
        Block::ToolUse(call) => {
            json!({ "toolUse": { "toolUseId": call.id, "name": call.name, "input": call.input } })
        }
    };
    answer.blocks.iter().map(block).collect()
}

pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let mut events = vec![Event::new("messageStart", json!({ "role": "assistant" }))];
    for (index, block) in answer.blocks.iter().enumerate() {
        block_events(&mut events, index, block);
        events.push(Event::new("contentBlockStop", json!({ "contentBlockIndex": index })));
    }
    events.push(Event::new("messageStop", json!({ "stopReason": answer.stop_reason })));
    events
}

fn block_events(events: &mut Vec<Event>, index: usize, block: &Block) {
    let delta = |delta: Value| Event::new("contentBlockDelta", json!({ "contentBlockIndex": index, "delta": delta }));
    match block {
        Block::Thinking(thoughts) => {
            let piece = |(piece, tokens)| delta(json!({ "reasoningContent": { "text": piece } })).carrying(tokens);
            events.extend(deltas(thoughts).map(piece));
            let signature = thinking::signature(thoughts);
            events.push(delta(json!({ "reasoningContent": { "signature": signature } })));
        }
        Block::Text(text) => {
            let piece = |(piece, tokens)| delta(json!({ "text": piece })).carrying(tokens);
            events.extend(deltas(text).map(piece));
        }
        Block::ToolUse(call) => {
            let start = json!({ "toolUse": { "toolUseId": call.id, "name": call.name } });
            let start = Event::new("contentBlockStart", json!({ "contentBlockIndex": index, "start": start }));
            events.push(start.carrying(tokens::tool_use_tokens(&call.name, "")));
            let piece = |(piece, tokens)| delta(json!({ "toolUse": { "input": piece } })).carrying(tokens);
            events.extend(deltas(&call.input.to_string()).map(piece));
        }
    }
}

pub(super) fn last_event(answer: &Answer, receipt: &Receipt) -> Event {
    Event::new("metadata", Value::Object(closing(answer, receipt)))
}

/// Usage, metrics and how the call was served: the same in a body and in a stream's last event.
fn closing(answer: &Answer, receipt: &Receipt) -> Map<String, Value> {
    let mut closing = Map::new();
    closing.insert("usage".to_owned(), usage(answer, receipt));
    closing.insert("metrics".to_owned(), json!({ "latencyMs": receipt.latency_ms }));
    if let Some(tier) = &receipt.service_tier {
        closing.insert("serviceTier".to_owned(), json!({ "type": tier }));
    }
    if let Some(latency) = &receipt.latency {
        closing.insert("performanceConfig".to_owned(), json!({ "latency": latency }));
    }
    if let Some(trace) = receipt.verdict.as_ref().and_then(|verdict| verdict.converse_trace()) {
        closing.insert("trace".to_owned(), trace);
    }
    closing
}

fn usage(answer: &Answer, receipt: &Receipt) -> Value {
    let input = &receipt.input;
    let mut usage = json!({
        "inputTokens": input.input_tokens,
        "outputTokens": answer.output_tokens,
        "totalTokens": receipt.total_tokens(answer),
        "cacheReadInputTokens": input.cache_read_tokens,
        "cacheWriteInputTokens": input.cache_write_tokens,
    });
    let details: Vec<Value> = [Lifetime::FiveMinutes, Lifetime::OneHour]
        .into_iter()
        .filter_map(|lifetime| {
            let writes = input.writes.iter().filter(|(life, _)| *life == lifetime);
            let tokens: u64 = writes.map(|(_, tokens)| tokens).sum();
            (tokens > 0).then(|| json!({ "ttl": lifetime.name(), "inputTokens": tokens }))
        })
        .collect();
    if !details.is_empty() {
        usage["cacheDetails"] = Value::Array(details);
    }
    usage
}
