//! Claude's own events, as InvokeModelWithResponseStream carries them.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::dialect::sse;

/// What Bedrock adds to the last event.
const METRICS: &str = "amazon-bedrock-invocationMetrics";

#[derive(Deserialize)]
struct Typed<'e> {
    r#type: &'e str,
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    metrics: Option<serde::de::IgnoredAny>,
}

/// The event as server-sent events have it: its bytes, unless Bedrock added to them. One that is not Anthropic's is left
/// out.
pub fn event(bytes: &[u8]) -> Bytes {
    let (Ok(typed), Ok(text)) = (serde_json::from_slice::<Typed>(bytes), std::str::from_utf8(bytes)) else {
        return Bytes::new();
    };
    if typed.metrics.is_none() && !text.contains(['\n', '\r']) {
        return sse::named(typed.r#type, text);
    }
    let mut event: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    event.shift_remove(METRICS);
    sse::named(typed.r#type, &Value::Object(event).to_string())
}
