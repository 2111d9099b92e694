//! Amazon Titan Text Embeddings, G1 and V2.

use serde_json::{Map, Value, json};

use super::vector;
use crate::bedrock::{body_schema, problem::Problem, prompt::Prompt};

const MAX_INPUT_TOKENS: u64 = 8_192;
const V1_DIMENSIONS: usize = 1_536;

/// Parses a request of G1 and returns its response.
pub(in crate::bedrock) fn v1(body: &[u8]) -> Result<(Prompt, Value), Problem> {
    let body = body_schema::object(body)?;
    body_schema::check_members(&body, &["inputText"], &[])?;
    let (prompt, text) = input(&body)?;
    let embedding = vector(text, V1_DIMENSIONS, false);
    let answer = json!({ "embedding": embedding, "inputTextTokenCount": prompt.input_tokens() });
    Ok((prompt, answer))
}

/// Parses a request of V2 and returns its response.
pub(in crate::bedrock) fn v2(body: &[u8]) -> Result<(Prompt, Value), Problem> {
    let body = body_schema::object(body)?;
    body_schema::check_members(&body, &["inputText"], &["dimensions", "normalize", "embeddingTypes"])?;
    let (prompt, text) = input(&body)?;
    let dimensions = match body.get("dimensions").map(Value::as_u64) {
        None => 1_024,
        Some(Some(256)) => 256,
        Some(Some(512)) => 512,
        Some(Some(1_024)) => 1_024,
        Some(_) => return Err(body_schema::invalid_member("dimensions", "the value is not a valid enum value")),
    };
    let normalize = match body.get("normalize") {
        None => true,
        Some(Value::Bool(normalize)) => *normalize,
        Some(_) => return Err(body_schema::invalid_member("normalize", "expected type: Boolean")),
    };
    let kinds = body_schema::strings(&body, "embeddingTypes")?;
    if let Some(at) = kinds.iter().position(|kind| !["float", "binary"].contains(kind)) {
        return Err(body_schema::invalid_member(
            &format!("embeddingTypes/{at}"),
            "the value is not a valid enum value",
        ));
    }
    let embedding = vector(text, dimensions, normalize);
    let mut by_type = Map::new();
    if kinds.contains(&"binary") {
        let bits: Vec<u8> = embedding.iter().map(|value| u8::from(*value > 0.0)).collect();
        by_type.insert("binary".to_owned(), json!(bits));
    }
    if kinds.is_empty() || kinds.contains(&"float") {
        by_type.insert("float".to_owned(), json!(embedding));
    }
    let count = prompt.input_tokens();
    Ok((prompt, json!({ "embedding": embedding, "embeddingsByType": by_type, "inputTextTokenCount": count })))
}

fn input(body: &Map<String, Value>) -> Result<(Prompt, &str), Problem> {
    let Some(text) = body.get("inputText").and_then(Value::as_str) else {
        return Err(body_schema::invalid_member("inputText", "expected type: String"));
    };
    if text.is_empty() {
        return Err(body_schema::invalid_member("inputText", "expected minLength: 1, actual: 0"));
    }
    let mut prompt = Prompt::for_embedding();
    prompt.add_text(text);
    let count = prompt.input_tokens();
    if count > MAX_INPUT_TOKENS {
        return Err(Problem::invalid(format!(
            "400 Bad Request: Too many input tokens. Max input tokens: {MAX_INPUT_TOKENS}, request input token count: \
             {count} "
        )));
    }
    Ok((prompt, text))
}
