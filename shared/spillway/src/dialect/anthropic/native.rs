//! Requests and stream events for Claude, which takes Anthropic's messages unchanged.

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    betas,
    request::{UNSUPPORTED, check_fixed_values},
};
use crate::{
    chat::{Format, Input, InvokeOptions, NativeInput, Request},
    dialect::{
        json::{self, Fields, Ignored, Path},
        sse,
    },
    problem::Problem,
};

/// Version that Bedrock requires in the body (Amazon Bedrock User Guide, "Anthropic Claude Messages
/// API").
const BEDROCK_VERSION: &str = "bedrock-2023-05-31";

/// Member that Bedrock adds to the last event.
const METRICS: &str = "amazon-bedrock-invocationMetrics";

/// Parameters that InvokeModel rejects and that do not change the answer.
const WITHOUT_EFFECT: [&str; 4] = ["service_tier", "user_profile_id", "workspace_id", "diagnostics"];

/// Reads a messages request for Claude. It removes the members that InvokeModel has in its path,
/// adds the members that InvokeModel requires in the body, and leaves the rest to the model.
pub fn request(model: String, body: Map<String, Value>, headers: &HeaderMap) -> Result<Request, Problem> {
    let mut ignored = Ignored::default();
    let mut fields = Fields::new(body, &Path::Root);
    fields.take("model");
    let stream = fields.optional("stream", json::boolean)?.unwrap_or(false);
    let max_tokens = fields.optional("max_tokens", json::token_limit)?;
    for (name, text) in UNSUPPORTED {
        fields.reject(name, text)?;
    }
    for name in WITHOUT_EFFECT {
        fields.ignore(name, &mut ignored);
    }
    check_fixed_values(&mut fields)?;
    let betas = fields.optional("anthropic_beta", json::names)?;
    let betas = betas.unwrap_or_else(|| betas::from_headers(headers, &mut ignored));
    let format = fields.take("output_format");
    let version = fields.take("anthropic_version").unwrap_or_else(|| json!(BEDROCK_VERSION));
    let mut body = fields.into_members();
    body.insert("anthropic_version".to_owned(), version);
    if let Some(format) = format {
        rename_format(&mut body, format)?;
    }
    body.extend(max_tokens.map(|max_tokens| ("max_tokens".to_owned(), max_tokens.into())));
    body.extend((!betas.is_empty()).then(|| ("anthropic_beta".to_owned(), betas.into())));
    let native = NativeInput { format: Some(Format::Messages), bodies: vec![body], options: InvokeOptions::default() };
    let (input, ignored) = (Input::Native(native), ignored.into_names());
    Ok(Request { model, input, stream, max_tokens, service_tier: None, ignored })
}

/// Renames `output_format`, the parameter of the former beta, to Bedrock's `output_config.format`
/// (Amazon Bedrock User Guide, "Structured outputs").
fn rename_format(body: &mut Map<String, Value>, format: Value) -> Result<(), Problem> {
    let config = body.entry("output_config").or_insert_with(|| json!({}));
    match config {
        Value::Object(config) => drop(config.entry("format").or_insert(format)),
        value => return Err(Path::Root.key("output_config").mistyped("an object", value)),
    }
    Ok(())
}

/// Encodes an event of Claude, which InvokeModelWithResponseStream carries as JSON, as a
/// server-sent event. The bytes stay the same, without the member that Bedrock adds. Returns no
/// bytes for an event that is not Anthropic's.
pub fn event(bytes: &[u8]) -> Bytes {
    #[derive(Deserialize)]
    struct TypedEvent<'e> {
        r#type: &'e str,
        #[serde(rename = "amazon-bedrock-invocationMetrics")]
        metrics: Option<serde::de::IgnoredAny>,
    }
    let (Ok(typed), Ok(text)) = (serde_json::from_slice::<TypedEvent>(bytes), std::str::from_utf8(bytes)) else {
        return Bytes::new();
    };
    if typed.metrics.is_none() && !text.contains(['\n', '\r']) {
        return sse::named(typed.r#type, text);
    }
    let mut event: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    event.shift_remove(METRICS);
    sse::named(typed.r#type, &Value::Object(event).to_string())
}
