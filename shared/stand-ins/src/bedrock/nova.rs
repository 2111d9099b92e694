//! InvokeModel requests for Amazon Nova: the members of Converse, checked against the schema of
//! Nova.

use serde_json::Value;

use super::{body_schema, converse, problem::Problem, prompt::Prompt};

const OPTIONAL: [&str; 4] = ["schemaVersion", "system", "inferenceConfig", "toolConfig"];
const INFERENCE: [&str; 7] =
    ["maxTokens", "max_new_tokens", "temperature", "topP", "topK", "stopSequences", "reasoningConfig"];

/// Parses and checks the body of an InvokeModel call.
pub(super) fn parse(body: &[u8]) -> Result<Prompt, Problem> {
    let mut body = body_schema::object(body)?;
    body_schema::check_members(&body, &["messages"], &OPTIONAL)?;
    body_schema::enum_value(&body, "schemaVersion", &["messages-v1"])?;
    if let Some(config) = body.get_mut("inferenceConfig").and_then(Value::as_object_mut) {
        body_schema::check_members(config, &[], &INFERENCE)?;
        // Which of two limits Nova obeys is not documented. The simulator obeys the larger one.
        let limit = ["maxTokens", "max_new_tokens"].iter().filter_map(|name| config.remove(*name));
        if let Some(limit) = limit.max_by_key(|limit| limit.as_i64()) {
            config.insert("maxTokens".to_owned(), limit);
        }
    }
    let request = serde_json::from_value(Value::Object(body))
        .map_err(|_| body_schema::invalid_member("messages", "the value does not match the schema of messages-v1"))?;
    converse::prompt(request)
}
