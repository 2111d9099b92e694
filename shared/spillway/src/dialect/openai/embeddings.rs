//! `POST /v1/embeddings`, for Amazon's and Cohere's models.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    chat::{Format, Input, InvokeOptions, NativeInput, NativeReply, Request},
    dialect::{
        AnswerContext, Echo,
        json::{self, Fields, Ignored, Path, Read, sanitized},
    },
    problem::{Kind, Problem},
    usage::Usage,
};

/// Maximum number of texts in one call of Cohere Embed (Amazon Bedrock User Guide, "Cohere Embed").
const MAX_COHERE_TEXTS: usize = 96;

/// Maximum number of texts in one request, as in OpenAI's API ("Create embeddings").
const MAX_TEXTS: usize = 2048;

/// Reads an embeddings request for a model whose own bodies have `format`.
pub fn parse(model: String, mut body: Map<String, Value>, format: Option<Format>) -> Result<(Request, Echo), Problem> {
    body.shift_remove("model");
    let mut ignored = Ignored::default();
    let mut fields = Fields::new(body, &Path::Root);
    let texts = fields.required("input", texts)?;
    let base64 = fields.optional("encoding_format", is_base64)?.unwrap_or(false);
    let dimensions = fields.optional("dimensions", json::token_limit)?;
    let input_type = fields.optional("input_type", json::name)?;
    let bodies = match format {
        Some(Format::TitanEmbed) => {
            if input_type.is_some() {
                ignored.note(&Path::Root.key("input_type"));
            }
            texts.into_iter().map(|text| titan(text, dimensions)).collect()
        }
        Some(Format::CohereEmbed) => {
            let input_type = input_type.unwrap_or_else(|| "search_document".to_owned());
            texts.chunks(MAX_COHERE_TEXTS).map(|texts| cohere(texts, &input_type, dimensions)).collect()
        }
        _ => return Err(Path::Root.key("model").error("is not an embedding model of Amazon Titan or Cohere")),
    };
    fields.ignore("user", &mut ignored);
    fields.finish(&mut ignored);
    let input = Input::Native(NativeInput { format, bodies, options: InvokeOptions::default() });
    let ignored = ignored.into_names();
    let request = Request { model, input, stream: false, max_tokens: None, service_tier: None, ignored };
    Ok((request, Echo { base64, ..Echo::default() }))
}

fn texts(value: Value, at: &Path) -> Read<Vec<String>> {
    let is_token = |value: &Value| value.is_number() || value.is_array();
    match value {
        Value::String(_) => Ok(vec![json::name(value, at)?]),
        Value::Array(elements) if elements.first().is_some_and(is_token) => {
            Err(at.error("token arrays are not supported, because the model has another tokenizer; send text"))
        }
        Value::Array(elements) if (1..=MAX_TEXTS).contains(&elements.len()) => json::names(elements.into(), at),
        Value::Array(elements) => {
            Err(at.error(format_args!("has {} texts; expected 1 to {MAX_TEXTS}", elements.len())))
        }
        value => Err(at.mistyped("a string or an array of strings", &value)),
    }
}

fn is_base64(value: Value, at: &Path) -> Read<bool> {
    match json::string(value, at)?.as_str() {
        "float" => Ok(false),
        "base64" => Ok(true),
        unknown => Err(at.error(format_args!("{} is not float or base64", sanitized(unknown)))),
    }
}

fn titan(text: String, dimensions: Option<u64>) -> Map<String, Value> {
    let mut body = Map::from_iter([("inputText".to_owned(), Value::String(text))]);
    body.extend(dimensions.map(|dimensions| ("dimensions".to_owned(), dimensions.into())));
    body
}

fn cohere(texts: &[String], input_type: &str, dimensions: Option<u64>) -> Map<String, Value> {
    let body = [("texts", json!(texts)), ("input_type", json!(input_type)), ("embedding_types", json!(["float"]))];
    let mut body: Map<_, _> = body.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    body.extend(dimensions.map(|dimensions| ("output_dimension".to_owned(), dimensions.into())));
    body
}

/// Renders the list of vectors.
///
/// # Errors
/// Returns [`Kind::Model`] if a reply has no vectors.
pub fn answer(context: &AnswerContext, replies: &[NativeReply], usage: &Usage) -> Result<Value, Problem> {
    let mut data = Vec::new();
    for reply in replies {
        let vectors = vectors(&reply.body).filter(|vectors| !vectors.is_empty());
        let vectors = vectors.ok_or_else(|| Problem::new(Kind::Model, "The model's reply had no embeddings."))?;
        for vector in vectors {
            let embedding = if context.echo.base64 { packed(&vector) } else { json!(vector) };
            data.push(json!({"object": "embedding", "index": data.len(), "embedding": embedding}));
        }
    }
    let tokens = usage.all_input_tokens();
    Ok(json!({
        "object": "list",
        "data": data,
        "model": context.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

/// Returns the vectors of one reply. Titan sends one vector, and Cohere a list, which may be
/// grouped by type.
fn vectors(body: &[u8]) -> Option<Vec<Vec<f32>>> {
    let mut reply: Map<String, Value> = serde_json::from_slice(body).ok()?;
    if let Some(vector) = reply.remove("embedding") {
        return Some(vec![serde_json::from_value(vector).ok()?]);
    }
    match reply.remove("embeddings")? {
        Value::Object(mut by_type) => serde_json::from_value(by_type.remove("float")?).ok(),
        vectors => serde_json::from_value(vectors).ok(),
    }
}

/// Encodes a vector as OpenAI does: little-endian 32-bit floats in base64.
fn packed(vector: &[f32]) -> Value {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes).into()
}
