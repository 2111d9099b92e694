//! Responses in the format of the Anthropic Messages API, as InvokeModel returns and streams them.

use serde_json::{Value, json};

use super::{CallMetadata, deltas};
use crate::bedrock::{
    event_stream::Event,
    model::{Answer, Block},
    prompt_cache::CacheTtl,
    thinking, tokens,
};

/// Returns the complete body.
pub(super) fn body(answer: &Answer, metadata: &CallMetadata) -> Value {
    let content = answer.blocks.iter().map(|block| match block {
        Block::Thinking(thinking_text) => {
            json!({ "type": "thinking", "thinking": thinking_text, "signature": thinking::signature(thinking_text) })
        }
        Block::Text(text) => json!({ "type": "text", "text": text }),
        Block::ToolUse(call) => json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": call.input }),
    });
    json!({
        "id": metadata.message_id,
        "type": "message",
        "role": "assistant",
        "model": metadata.model_id,
        "content": content.collect::<Value>(),
        "stop_reason": stop_reason(answer),
        "stop_sequence": answer.stop_sequence,
        "usage": usage(answer.output_tokens, answer.thinking_tokens, metadata),
    })
}

/// Returns all events of a stream except the last.
pub(super) fn events(answer: &Answer, metadata: &CallMetadata) -> Vec<Event> {
    let mut events = vec![Event::chunk(&json!({ "type": "message_start", "message": {
        "id": metadata.message_id,
        "type": "message",
        "role": "assistant",
        "model": metadata.model_id,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(answer.output_tokens.min(1), 0, metadata),
    } }))];
    for (index, block) in answer.blocks.iter().enumerate() {
        block_events(&mut events, index, block);
        events.push(Event::chunk(&json!({ "type": "content_block_stop", "index": index })));
    }
    let mut usage = json!({ "output_tokens": answer.output_tokens });
    add_details(&mut usage, answer.thinking_tokens);
    events.push(Event::chunk(&json!({
        "type": "message_delta",
        "delta": { "stop_reason": stop_reason(answer), "stop_sequence": answer.stop_sequence },
        "usage": usage,
    })));
    events
}

fn block_events(events: &mut Vec<Event>, index: usize, block: &Block) {
    let start =
        |block: Value| Event::chunk(&json!({ "type": "content_block_start", "index": index, "content_block": block }));
    let delta = |delta: Value| Event::chunk(&json!({ "type": "content_block_delta", "index": index, "delta": delta }));
    match block {
        Block::Thinking(thinking_text) => {
            events.push(start(json!({ "type": "thinking", "thinking": "", "signature": "" })));
            let to_event = |(fragment, tokens)| {
                delta(json!({ "type": "thinking_delta", "thinking": fragment })).with_tokens(tokens)
            };
            events.extend(deltas(thinking_text).map(to_event));
            let signature = thinking::signature(thinking_text);
            events.push(delta(json!({ "type": "signature_delta", "signature": signature })));
        }
        Block::Text(text) => {
            events.push(start(json!({ "type": "text", "text": "" })));
            let to_event =
                |(fragment, tokens)| delta(json!({ "type": "text_delta", "text": fragment })).with_tokens(tokens);
            events.extend(deltas(text).map(to_event));
        }
        Block::ToolUse(call) => {
            let block = json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": {} });
            events.push(start(block).with_tokens(tokens::tool_use_tokens(&call.name, "")));
            events.extend(deltas(&call.input.to_string()).map(|(fragment, tokens)| {
                delta(json!({ "type": "input_json_delta", "partial_json": fragment })).with_tokens(tokens)
            }));
        }
    }
}

/// Returns the last chunk of a stream.
pub(super) fn last_chunk() -> Value {
    json!({ "type": "message_stop" })
}

/// Returns the stop reason. InvokeModel reports the intervention of a guardrail beside the message,
/// not in the stop reason.
fn stop_reason(answer: &Answer) -> &'static str {
    if answer.stop_reason == "guardrail_intervened" { "end_turn" } else { answer.stop_reason }
}

fn usage(output_tokens: u64, thinking_tokens: u64, metadata: &CallMetadata) -> Value {
    let written = |ttl: CacheTtl| -> u64 {
        metadata.input.writes.iter().filter(|(written_ttl, _)| *written_ttl == ttl).map(|(_, tokens)| tokens).sum()
    };
    let mut usage = json!({
        "input_tokens": metadata.input.input_tokens,
        "cache_creation_input_tokens": metadata.input.cache_write_tokens,
        "cache_read_input_tokens": metadata.input.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written(CacheTtl::FiveMinutes),
            "ephemeral_1h_input_tokens": written(CacheTtl::OneHour),
        },
        "output_tokens": output_tokens,
    });
    add_details(&mut usage, thinking_tokens);
    usage
}

fn add_details(usage: &mut Value, thinking_tokens: u64) {
    if thinking_tokens > 0 {
        usage["output_tokens_details"] = json!({ "thinking_tokens": thinking_tokens });
    }
}
