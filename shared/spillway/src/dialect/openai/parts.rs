//! Parts of messages that chat completions and responses share: content, images, files, arguments
//! and tool results.

use serde_json::{Value, json};

use crate::dialect::{
    converse,
    json::{self, Fields, Path, Read, ValueBudget},
    media::{self, DocumentBuilder},
};

/// Reads content, which is a string or an array of parts; `part` reads a part.
pub fn content(
    value: Value,
    at: &Path,
    mut part: impl FnMut(Value, &Path, &mut Vec<Value>) -> Read<()>,
) -> Read<Vec<Value>> {
    match value {
        Value::String(text) => Ok(converse::text(text).into_iter().collect()),
        Value::Array(parts) => {
            let mut blocks = Vec::with_capacity(parts.len());
            for (index, value) in parts.into_iter().enumerate() {
                part(value, &at.index(index), &mut blocks)?;
            }
            Ok(blocks)
        }
        value => Err(at.mistyped("a string or an array of parts", &value)),
    }
}

/// Checks the blocks of a system message, which Converse takes only as text.
pub fn only_text(blocks: Vec<Value>, at: &Path) -> Read<Vec<Value>> {
    match blocks.iter().all(|block| block.get("text").is_some() || is_cache_point(block)) {
        true => Ok(blocks),
        false => Err(at.error("a system message takes only text")),
    }
}

/// Reads an image, which is a `data:` URL.
pub fn image(value: Value, at: &Path) -> Read<Value> {
    let (media_type, data) = media::data_url(&json::string(value, at)?, at)?;
    media::image(&media_type, data, at)
}

/// Reads a file from `file_data` and `filename`.
pub fn file(file: &mut Fields, at: &Path, documents: &mut DocumentBuilder) -> Read<Value> {
    file.reject("file_id", "stored files are not supported; send file_data")?;
    file.reject("file_url", "Bedrock fetches no URLs; send file_data")?;
    let source = |value, at: &Path| media::data_url(&json::string(value, at)?, at);
    let (media_type, data) = file.required("file_data", source)?;
    let title = file.optional("filename", json::string)?;
    let at = at.key("file_data");
    let (format, data) = (media::document_format(&media_type, &at)?, media::base64_data(data, &at)?);
    Ok(json!({"document": documents.block(format, title.as_deref(), json!({"bytes": data}))}))
}

/// Reads the arguments of a tool call, which OpenAI sends as JSON inside a string.
pub fn arguments(value: Value, at: &Path, budget: &mut ValueBudget) -> Read<Value> {
    let text = json::string(value, at)?;
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    match json::inner(&text, budget, at, "is not valid JSON inside the string")? {
        input @ Value::Object(_) => Ok(input),
        value => Err(at.mistyped("a JSON object inside the string", &value)),
    }
}

/// Builds a tool call.
pub fn tool_use(id: &str, name: &str, input: Value) -> Value {
    json!({"toolUse": {"toolUseId": id, "name": name, "input": input}})
}

/// Builds a tool result. Converse has no cache points inside a result, only after it.
pub fn tool_result(id: &str, content: Vec<Value>) -> Vec<Value> {
    let (points, content): (Vec<_>, Vec<_>) = content.into_iter().partition(is_cache_point);
    let result = json!({"toolResult": {"toolUseId": id, "content": content}});
    std::iter::once(result).chain(points.into_iter().next_back()).collect()
}

fn is_cache_point(block: &Value) -> bool {
    block.get("cachePoint").is_some()
}
