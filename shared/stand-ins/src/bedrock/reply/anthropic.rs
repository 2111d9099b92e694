//! Answers in the words of Anthropic's Messages API, as InvokeModel and its stream carry them.

use serde_json::{Value, json};

use super::{Receipt, deltas};
use crate::bedrock::{
    cache::Lifetime,
    engine::{Answer, Block},
    events::Event,
    thinking, tokens,
};

pub(super) fn body(answer: &Answer, receipt: &Receipt) -> Value {
    let content = answer.blocks.iter().map(|block| match block {
        Block::Thinking(thoughts) => {
            json!({ "type": "thinking", "thinking": thoughts, "signature": thinking::signature(thoughts) })
        }
        Block::Text(text) => json!({ "type": "text", "text": text }),
        Block::ToolUse(call) => json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": call.input }),
    });
    json!({
        "id": receipt.message_id,
        "type": "message",
        "role": "assistant",
        "model": receipt.model_id,
        "content": content.collect::<Value>(),
        "stop_reason": stop_reason(answer),
        "stop_sequence": answer.stop_sequence,
        "usage": usage(answer.output_tokens, answer.thinking_tokens, receipt),
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
        "usage": usage(answer.output_tokens.min(1), 0, receipt),
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
        Block::Thinking(thoughts) => {
            events.push(start(json!({ "type": "thinking", "thinking": "", "signature": "" })));
            let piece =
                |(piece, tokens)| delta(json!({ "type": "thinking_delta", "thinking": piece })).carrying(tokens);
            events.extend(deltas(thoughts).map(piece));
            let signature = thinking::signature(thoughts);
            events.push(delta(json!({ "type": "signature_delta", "signature": signature })));
        }
        Block::Text(text) => {
            events.push(start(json!({ "type": "text", "text": "" })));
            let piece = |(piece, tokens)| delta(json!({ "type": "text_delta", "text": piece })).carrying(tokens);
            events.extend(deltas(text).map(piece));
        }
        Block::ToolUse(call) => {
            let block = json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": {} });
            events.push(start(block).carrying(tokens::tool_use_tokens(&call.name, "")));
            events.extend(deltas(&call.input.to_string()).map(|(piece, tokens)| {
                delta(json!({ "type": "input_json_delta", "partial_json": piece })).carrying(tokens)
            }));
        }
    }
}

pub(super) fn last() -> Value {
    json!({ "type": "message_stop" })
}

/// That a guardrail intervened, InvokeModel tells beside the message and not in it.
fn stop_reason(answer: &Answer) -> &'static str {
    if answer.stop_reason == "guardrail_intervened" { "end_turn" } else { answer.stop_reason }
}

fn usage(output_tokens: u64, thinking_tokens: u64, receipt: &Receipt) -> Value {
    let written = |lifetime: Lifetime| -> u64 {
        receipt.input.writes.iter().filter(|(life, _)| *life == lifetime).map(|(_, tokens)| tokens).sum()
    };
    let mut usage = json!({
        "input_tokens": receipt.input.input_tokens,
        "cache_creation_input_tokens": receipt.input.cache_write_tokens,
        "cache_read_input_tokens": receipt.input.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written(Lifetime::FiveMinutes),
            "ephemeral_1h_input_tokens": written(Lifetime::OneHour),
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
