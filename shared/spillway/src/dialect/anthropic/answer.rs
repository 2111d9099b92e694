//! Renders a Converse reply as a message.

use serde_json::{Value, json};

use crate::{
    dialect::{
        AnswerContext,
        json::object_of,
        reply::{self, Block},
    },
    usage::Usage,
};

/// Renders a Converse reply as a complete message.
pub fn answer(context: &AnswerContext, body: &Value, used: &Usage) -> Value {
    let content: Vec<Value> = reply::blocks(body).map(block).collect();
    let mut message = frame(context, content, usage(used));
    message["stop_reason"] = json!(stop_reason(reply::stop_reason(body)));
    message["stop_sequence"] = json!(reply::stop_sequence(body));
    message
}

/// Renders a message without a stop reason.
pub fn frame(context: &AnswerContext, content: Vec<Value>, usage: Value) -> Value {
    object_of([
        ("id", format!("msg_{}", context.request_id).into()),
        ("type", "message".into()),
        ("role", "assistant".into()),
        ("model", context.model.as_str().into()),
        ("content", Value::Array(content)),
        ("stop_reason", Value::Null),
        ("stop_sequence", Value::Null),
        ("stop_details", Value::Null),
        ("container", Value::Null),
        ("usage", usage),
    ])
}

fn block(block: Block) -> Value {
    match block {
        Block::Text(text) => json!({"type": "text", "text": text, "citations": null}),
        Block::Reasoning { text, signature } => json!({"type": "thinking", "thinking": text, "signature": signature}),
        Block::Redacted(data) => json!({"type": "redacted_thinking", "data": data}),
        Block::ToolUse { id, name, input } => {
            json!({"type": "tool_use", "id": id, "name": name, "input": input, "caller": {"type": "direct"}})
        }
    }
}

/// Returns Anthropic's stop reason for a stop reason of Converse.
pub fn stop_reason(stop_reason: &str) -> &'static str {
    match stop_reason {
        "max_tokens" => "max_tokens",
        "stop_sequence" => "stop_sequence",
        "tool_use" => "tool_use",
        "guardrail_intervened" | "content_filtered" => "refusal",
        "model_context_window_exceeded" => "model_context_window_exceeded",
        _ => "end_turn",
    }
}

/// Renders the usage. Like Converse, Anthropic counts cached tokens beside `input_tokens`. Members
/// that Converse does not report are null.
pub fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_input_tokens.saturating_sub(usage.cache_write_1h_input_tokens),
            "ephemeral_1h_input_tokens": usage.cache_write_1h_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "server_tool_use": null,
        "service_tier": null,
        "inference_geo": null,
    })
}
