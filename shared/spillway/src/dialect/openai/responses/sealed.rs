//! `encrypted_content` of reasoning items: what Converse wants back of its own reasoning, in one word that only we read.
//! It is not secret, because what is in it was the caller's before; the model checks its own signature.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Reasoning with the model's signature, if it has one.
pub fn signed(text: &str, signature: &str) -> Value {
    let mut reasoning = json!({"text": text});
    if !signature.is_empty() {
        reasoning["signature"] = json!(signature);
    }
    json!({"reasoningText": reasoning})
}

/// Reasoning that the model itself keeps secret.
pub fn redacted(data: &str) -> Value {
    json!({"redactedContent": data})
}

/// The word for a `reasoningContent`.
pub fn seal(reasoning: &Value) -> String {
    STANDARD.encode(reasoning.to_string())
}

/// The `reasoningContent` in a word; `None` if it is not one of ours.
pub fn unseal(word: &str) -> Option<Value> {
    let reasoning: Value = serde_json::from_slice(&STANDARD.decode(word).ok()?).ok()?;
    if let Some(data) = reasoning.get("redactedContent") {
        let data = data.as_str()?;
        return STANDARD.decode(data).is_ok().then(|| redacted(data));
    }
    let text = reasoning.pointer("/reasoningText/text")?.as_str()?;
    let signature = reasoning.pointer("/reasoningText/signature").and_then(Value::as_str);
    Some(signed(text, signature.unwrap_or_default()))
}
