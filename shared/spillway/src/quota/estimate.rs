//! How many input tokens a request will count for, before any model has seen it.

use serde_json::Value;

/// Bytes of UTF-8 that make a token. English prose runs at about 4, code and JSON nearer to 3; a low figure reserves
/// too much rather than too little, and the settle corrects it.
const BYTES_PER_TOKEN: u64 = 3;

/// What a message or block costs beside its text.
const BLOCK_TOKENS: u64 = 4;

/// An image, at the size above which Claude scales it down (Anthropic, "Vision": width × height / 750).
const IMAGE_TOKENS: u64 = 1_600;

/// A document page is text and an image; we cannot count pages, so this many bytes of the file make a token.
const DOCUMENT_BYTES_PER_TOKEN: u64 = 12;

/// Estimated input tokens of a Converse body: its messages, system prompts and tools.
pub fn input_tokens(body: &serde_json::Map<String, Value>) -> u64 {
    ["messages", "system", "toolConfig"].iter().filter_map(|part| body.get(*part)).map(estimate).sum::<u64>().max(1)
}

fn estimate(value: &Value) -> u64 {
    match value {
        Value::String(text) => (text.len() as u64).div_ceil(BYTES_PER_TOKEN),
        Value::Array(items) => items.iter().map(|item| BLOCK_TOKENS + estimate(item)).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| field(name, value)).sum(),
        Value::Number(_) => 2,
        Value::Bool(_) | Value::Null => 1,
    }
}

fn field(name: &str, value: &Value) -> u64 {
    match name {
        "image" => IMAGE_TOKENS,
        "document" | "video" | "audio" => binary_bytes(value).div_ceil(DOCUMENT_BYTES_PER_TOKEN),
        // What the schema or the tool's arguments call things is text to the model as well.
        _ => (name.len() as u64).div_ceil(BYTES_PER_TOKEN) + estimate(value),
    }
}

fn binary_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(binary_bytes).sum(),
        Value::Object(fields) => fields.values().map(binary_bytes).sum(),
        _ => 0,
    }
}
