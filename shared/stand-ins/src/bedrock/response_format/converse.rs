//! Responses of Converse and ConverseStream.

use serde_json::{Map, Value, json};

use super::{CallMetadata, deltas};
use crate::bedrock::{
    event_stream::Event,
    model::{Answer, Block},
    prompt_cache::CacheTtl,
    thinking, tokens,
};

/// Returns the complete body.
pub(super) fn body(answer: &Answer, metadata: &CallMetadata) -> Value {
    let mut body = closing(answer, metadata);
    body.insert("output".to_owned(), json!({ "message": { "role": "assistant", "content": content(answer) } }));
    body.insert("stopReason".to_owned(), json!(answer.stop_reason));
    if let Some(sequence) = &answer.stop_sequence {
        body.insert("additionalModelResponseFields".to_owned(), json!({ "stop_sequence": sequence }));
    }
    Value::Object(body)
}

/// Returns the content blocks of the message.
pub(super) fn content(answer: &Answer) -> Value {
    let block = |block: &Block| match block {
        Block::Thinking(thinking_text) => json!({ "reasoningContent": {
            "reasoningText": { "text": thinking_text, "signature": thinking::signature(thinking_text) },
        } }),
        Block::Text(text) => json!({ "text": text }),
        Block::ToolUse(call) => {
            json!({ "toolUse": { "toolUseId": call.id, "name": call.name, "input": call.input } })
        }
    };
    answer.blocks.iter().map(block).collect()
}

/// Returns all events of a stream except the last.
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
        Block::Thinking(thinking_text) => {
            let to_event =
                |(fragment, tokens)| delta(json!({ "reasoningContent": { "text": fragment } })).with_tokens(tokens);
            events.extend(deltas(thinking_text).map(to_event));
            let signature = thinking::signature(thinking_text);
            events.push(delta(json!({ "reasoningContent": { "signature": signature } })));
        }
        Block::Text(text) => {
            let to_event = |(fragment, tokens)| delta(json!({ "text": fragment })).with_tokens(tokens);
            events.extend(deltas(text).map(to_event));
        }
        Block::ToolUse(call) => {
            let start = json!({ "toolUse": { "toolUseId": call.id, "name": call.name } });
            let start = Event::new("contentBlockStart", json!({ "contentBlockIndex": index, "start": start }));
            events.push(start.with_tokens(tokens::tool_use_tokens(&call.name, "")));
            let to_event = |(fragment, tokens)| delta(json!({ "toolUse": { "input": fragment } })).with_tokens(tokens);
            events.extend(deltas(&call.input.to_string()).map(to_event));
        }
    }
}

/// Returns the last event of a stream.
pub(super) fn last_event(answer: &Answer, metadata: &CallMetadata) -> Event {
    Event::new("metadata", Value::Object(closing(answer, metadata)))
}

/// Returns usage, metrics, service tier, latency and trace: the members that a body and the last
/// event of a stream share.
fn closing(answer: &Answer, metadata: &CallMetadata) -> Map<String, Value> {
    let mut closing = Map::new();
    closing.insert("usage".to_owned(), usage(answer, metadata));
    closing.insert("metrics".to_owned(), json!({ "latencyMs": metadata.latency_ms }));
    if let Some(tier) = &metadata.service_tier {
        closing.insert("serviceTier".to_owned(), json!({ "type": tier }));
    }
    if let Some(latency) = &metadata.latency {
        closing.insert("performanceConfig".to_owned(), json!({ "latency": latency }));
    }
    if let Some(trace) = metadata.verdict.as_ref().and_then(|verdict| verdict.converse_trace()) {
        closing.insert("trace".to_owned(), trace);
    }
    closing
}

fn usage(answer: &Answer, metadata: &CallMetadata) -> Value {
    let input = &metadata.input;
    let mut usage = json!({
        "inputTokens": input.input_tokens,
        "outputTokens": answer.output_tokens,
        "totalTokens": metadata.total_tokens(answer),
        "cacheReadInputTokens": input.cache_read_tokens,
        "cacheWriteInputTokens": input.cache_write_tokens,
    });
    let details: Vec<Value> = [CacheTtl::FiveMinutes, CacheTtl::OneHour]
        .into_iter()
        .filter_map(|ttl| {
            let writes = input.writes.iter().filter(|(written_ttl, _)| *written_ttl == ttl);
            let tokens: u64 = writes.map(|(_, tokens)| tokens).sum();
            (tokens > 0).then(|| json!({ "ttl": ttl.name(), "inputTokens": tokens }))
        })
        .collect();
    if !details.is_empty() {
        usage["cacheDetails"] = Value::Array(details);
    }
    usage
}
