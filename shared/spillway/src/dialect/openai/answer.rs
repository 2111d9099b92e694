//! Renders a Converse reply as a chat completion.

use serde_json::{Value, json};

use crate::{
    dialect::{
        AnswerContext,
        json::object_of,
        reply::{self, Block},
    },
    usage::Usage,
};

/// Renders a Converse reply as a `chat.completion` object.
pub fn answer(context: &AnswerContext, body: &Value, used: &Usage) -> Value {
    let (mut content, mut reasoning, mut calls) = (None::<String>, String::new(), Vec::new());
    for block in reply::blocks(body) {
        match block {
            Block::Text(text) => content.get_or_insert_default().push_str(&text),
            Block::Reasoning { text, .. } => reasoning.push_str(text),
            Block::Redacted(_) => {}
            Block::ToolUse { id, name, input } => {
                let function = json!({"name": name, "arguments": input.to_string()});
                calls.push(json!({"id": id, "type": "function", "function": function}));
            }
        }
    }
    if content.is_none() && calls.is_empty() {
        content = Some(String::new());
    }
    let mut message = object_of([
        ("role", "assistant".into()),
        ("content", content.into()),
        ("refusal", Value::Null),
        ("annotations", json!([])),
    ]);
    if !reasoning.is_empty() {
        message["reasoning_content"] = Value::String(reasoning);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    let reason = finish_reason(reply::stop_reason(body));
    let choice = object_of([
        ("index", 0.into()),
        ("message", message),
        ("logprobs", Value::Null),
        ("finish_reason", reason.into()),
    ]);
    object_of([
        ("id", id(context).into()),
        ("object", "chat.completion".into()),
        ("created", context.created_at.as_s().into()),
        ("model", context.model.as_str().into()),
        ("choices", Value::Array(vec![choice])),
        ("usage", usage(used)),
    ])
}

/// Returns the id of a completion and of all its chunks.
pub fn id(context: &AnswerContext) -> String {
    format!("chatcmpl-{}", context.request_id)
}

/// Returns OpenAI's finish reason for a stop reason of Converse.
pub fn finish_reason(stop_reason: &str) -> &'static str {
    match stop_reason {
        "tool_use" => "tool_calls",
        "max_tokens" | "model_context_window_exceeded" => "length",
        "guardrail_intervened" | "content_filtered" => "content_filter",
        _ => "stop",
    }
}

/// Renders the usage. OpenAI counts cached tokens within the prompt, Converse beside it.
pub fn usage(usage: &Usage) -> Value {
    let prompt = usage.all_input_tokens();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt.saturating_add(usage.output_tokens),
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    })
}
