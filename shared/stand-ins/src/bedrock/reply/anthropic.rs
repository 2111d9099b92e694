//! Answers in the words of Anthropic's Messages API, as InvokeModel and its stream carry them.

use serde_json::{Value, json};

use super::{Receipt, deltas};
use crate::bedrock::cache::Lifetime;
use crate::bedrock::engine::{Answer, Content};
use crate::bedrock::events::Event;
use crate::bedrock::tokens;

pub(super) fn body(answer: &Answer, receipt: &Receipt) -> Value {
    let content = match &answer.content {
        Content::Text(text) if text.is_empty() => json!([]),
        Content::Text(text) => json!([{ "type": "text", "text": text }]),
        Content::ToolUse(call) => {
            json!([{ "type": "tool_use", "id": call.id, "name": call.name, "input": call.input }])
        }
    };
    json!({
        "id": receipt.message_id,
        "type": "message",
        "role": "assistant",
        "model": receipt.model_id,
        "content": content,
        "stop_reason": answer.stop_reason,
        "stop_sequence": answer.stop_sequence,
        "usage": usage(answer.output_tokens, receipt),
    })
}

pub(super) fn events(answer: &Answer, receipt: &Receipt) -> Vec<Event> {
    let mut events = vec![Event::chunk(&json!({ "type": "message_start", "message": {
        "id": receipt.message_id,
        "type": "message",
        "role": "assistant",
        "model": receipt.model_id,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(answer.output_tokens.min(1), receipt),
    } }))];
    match &answer.content {
        Content::Text(text) if text.is_empty() => {}
        Content::Text(text) => {
            events.push(start(&json!({ "type": "text", "text": "" })));
            events.extend(
                deltas(text)
                    .map(|(piece, tokens)| delta(&json!({ "type": "text_delta", "text": piece })).carrying(tokens)),
            );
        }
        Content::ToolUse(call) => {
            let block = json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": {} });
            events.push(start(&block).carrying(tokens::tool_use_tokens(&call.name, "")));
            events.extend(deltas(&call.input.to_string()).map(|(piece, tokens)| {
                delta(&json!({ "type": "input_json_delta", "partial_json": piece })).carrying(tokens)
            }));
        }
    }
    if events.len() > 1 {
        events.push(Event::chunk(&json!({ "type": "content_block_stop", "index": 0 })));
    }
    events.push(Event::chunk(&json!({
        "type": "message_delta",
        "delta": { "stop_reason": answer.stop_reason, "stop_sequence": answer.stop_sequence },
        "usage": { "output_tokens": answer.output_tokens },
    })));
    events
}

pub(super) fn last_event(answer: &Answer, receipt: &Receipt) -> Event {
    Event::chunk(&json!({ "type": "message_stop", "amazon-bedrock-invocationMetrics": {
        "inputTokenCount": receipt.input.input_tokens,
        "outputTokenCount": answer.output_tokens,
        "invocationLatency": receipt.latency_ms,
        "firstByteLatency": receipt.first_token_ms,
        "cacheReadInputTokenCount": receipt.input.cache_read_tokens,
        "cacheWriteInputTokenCount": receipt.input.cache_write_tokens,
    } }))
}

fn start(block: &Value) -> Event {
    Event::chunk(&json!({ "type": "content_block_start", "index": 0, "content_block": block }))
}

fn delta(delta: &Value) -> Event {
    Event::chunk(&json!({ "type": "content_block_delta", "index": 0, "delta": delta }))
}

fn usage(output_tokens: u64, receipt: &Receipt) -> Value {
    let written = |lifetime: Lifetime| -> u64 {
        receipt.input.writes.iter().filter(|(life, _)| *life == lifetime).map(|(_, tokens)| tokens).sum()
    };
    json!({
        "input_tokens": receipt.input.input_tokens,
        "cache_creation_input_tokens": receipt.input.cache_write_tokens,
        "cache_read_input_tokens": receipt.input.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written(Lifetime::FiveMinutes),
            "ephemeral_1h_input_tokens": written(Lifetime::OneHour),
        },
        "output_tokens": output_tokens,
    })
}
