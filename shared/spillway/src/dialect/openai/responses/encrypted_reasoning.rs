//! `encrypted_content` of reasoning items: the reasoning block that Converse needs back, as an
//! opaque string. It is not secret, because the caller has already read its content; the model
//! checks its own signature.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

/// Builds reasoning with the model's signature, if it has one.
pub fn signed(text: &str, signature: &str) -> Value {
    let mut reasoning = json!({"text": text});
    if !signature.is_empty() {
        reasoning["signature"] = json!(signature);
    }
    json!({"reasoningText": reasoning})
}

/// Builds reasoning that the model keeps secret.
pub fn redacted(data: &str) -> Value {
    json!({"redactedContent": data})
}

/// Encodes a `reasoningContent`.
pub fn encode(reasoning: &Value) -> String {
    STANDARD.encode(reasoning.to_string())
}

/// Decodes a `reasoningContent`; `None` if [`encode`] did not make it. Other members are not
/// built.
pub fn decode(content: &str) -> Option<Value> {
    let reasoning: ReasoningContent = serde_json::from_slice(&STANDARD.decode(content).ok()?).ok()?;
    if let Some(data) = reasoning.redacted {
        return STANDARD.decode(&data).is_ok().then(|| redacted(&data));
    }
    let ReasoningText { text, signature } = reasoning.text?;
    Some(signed(&text, &signature.unwrap_or_default()))
}

#[derive(Deserialize)]
struct ReasoningContent {
    #[serde(rename = "redactedContent")]
    redacted: Option<String>,
    #[serde(rename = "reasoningText")]
    text: Option<ReasoningText>,
}

#[derive(Deserialize)]
struct ReasoningText {
    text: String,
    signature: Option<String>,
}
