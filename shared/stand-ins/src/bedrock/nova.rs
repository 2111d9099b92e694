//! Bodies of InvokeModel for Amazon Nova: Converse's members, checked against Nova's schema.

use serde_json::Value;

use super::{converse, malformed, problem::Problem, prompt::Prompt};

const OPTIONAL: [&str; 4] = ["schemaVersion", "system", "inferenceConfig", "toolConfig"];
const INFERENCE: [&str; 7] =
    ["maxTokens", "max_new_tokens", "temperature", "topP", "topK", "stopSequences", "reasoningConfig"];

/// Reads the body of an InvokeModel call.
pub(super) fn parse(body: &[u8]) -> Result<Prompt, Problem> {
    let mut body = malformed::object(body)?;
    malformed::check_members(&body, &["messages"], &OPTIONAL)?;
    malformed::word(&body, "schemaVersion", &["messages-v1"])?;
    if let Some(config) = body.get_mut("inferenceConfig").and_then(Value::as_object_mut) {
        malformed::check_members(config, &[], &INFERENCE)?;
        if let Some(max_tokens) = config.remove("max_new_tokens") {
            config.entry("maxTokens").or_insert(max_tokens);
        }
    }
    let request = serde_json::from_value(Value::Object(body))
        .map_err(|_| malformed::member("messages", "the value does not match the schema of messages-v1"))?;
    converse::prompt(request)
}
