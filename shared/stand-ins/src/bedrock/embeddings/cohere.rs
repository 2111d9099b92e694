//! Cohere Embed v3 and v4.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{encode, vector};
use crate::bedrock::{body_schema, problem::Problem, prompt::Prompt};

const MAX_ITEMS: usize = 96;
const V3_DIMENSIONS: usize = 1_024;
const MAX_V3_TEXT_CHARACTERS: usize = 2_048;
const KINDS: [&str; 5] = ["float", "int8", "uint8", "binary", "ubinary"];
const MAX_V4_TOKENS: u64 = 128_000;

/// Parses a request of Embed v3 and returns its response.
pub(in crate::bedrock) fn v3(body: &[u8]) -> Result<(Prompt, Value), Problem> {
    let body = body_schema::object(body)?;
    let has_images = body.contains_key("images");
    let required: &[&str] = if has_images { &["input_type"] } else { &["texts", "input_type"] };
    body_schema::check_members(&body, required, &["texts", "images", "truncate", "embedding_types"])?;
    let input_types = ["search_document", "search_query", "classification", "clustering", "image"];
    body_schema::enum_value(&body, "input_type", &input_types)?;
    body_schema::enum_value(&body, "truncate", &["NONE", "START", "END"])?;
    let texts = body_schema::strings(&body, "texts")?;
    if let Some((at, text)) = texts.iter().enumerate().find(|(_, text)| text.chars().count() > MAX_V3_TEXT_CHARACTERS) {
        let rule = format!("expected maxLength: {MAX_V3_TEXT_CHARACTERS}, actual: {}", text.chars().count());
        return Err(body_schema::invalid_member(&format!("texts/{at}"), &rule));
    }
    let items = items(&body, &texts, if has_images { 1 } else { MAX_ITEMS })?;
    answer(&body, &items, &texts, V3_DIMENSIONS)
}

/// Parses a request of Embed v4 and returns its response.
pub(in crate::bedrock) fn v4(body: &[u8]) -> Result<(Prompt, Value), Problem> {
    let body = body_schema::object(body)?;
    let optional = ["texts", "images", "inputs", "embedding_types", "output_dimension", "max_tokens", "truncate"];
    body_schema::check_members(&body, &["input_type"], &optional)?;
    let input_types = ["search_document", "search_query", "classification", "clustering", "image"];
    body_schema::enum_value(&body, "input_type", &input_types)?;
    body_schema::enum_value(&body, "truncate", &["NONE", "LEFT", "RIGHT"])?;
    body_schema::integer(&body, "max_tokens", (1, MAX_V4_TOKENS))?;
    let dimensions = match body.get("output_dimension").map(Value::as_u64) {
        None | Some(Some(1_536)) => 1_536,
        Some(Some(256)) => 256,
        Some(Some(512)) => 512,
        Some(Some(1_024)) => 1_024,
        Some(_) => return Err(body_schema::invalid_member("output_dimension", "the value is not a valid enum value")),
    };
    let texts = body_schema::strings(&body, "texts")?;
    let items = items(&body, &texts, MAX_ITEMS)?;
    answer(&body, &items, &texts, dimensions)
}

/// Content of a vector.
struct Item {
    texts: Vec<String>,
    images: Vec<String>,
}

/// Reads the content to embed, which is in exactly one of `texts`, `images` and `inputs`.
fn items(body: &Map<String, Value>, texts: &[&str], max_images: usize) -> Result<Vec<Item>, Problem> {
    let images = body_schema::strings(body, "images")?;
    let inputs = body.get("inputs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if [texts.is_empty(), images.is_empty(), inputs.is_empty()].iter().filter(|empty| !**empty).count() != 1 {
        return Err(Problem::invalid(
            "Invalid parameter combination: exactly one of texts, images and inputs is needed.",
        ));
    }
    for (name, count, max_count) in
        [("texts", texts.len(), MAX_ITEMS), ("images", images.len(), max_images), ("inputs", inputs.len(), MAX_ITEMS)]
    {
        if count > max_count {
            return Err(body_schema::invalid_member(
                name,
                &format!("expected maximum item count: {max_count}, found: {count}"),
            ));
        }
    }
    let from_text = |text: &&str| Item { texts: vec![(*text).to_owned()], images: Vec::new() };
    let from_image = |image: &&str| Item { texts: Vec::new(), images: vec![(*image).to_owned()] };
    Ok(texts.iter().map(from_text).chain(images.iter().map(from_image)).chain(inputs.iter().map(from_input)).collect())
}

fn from_input(input: &Value) -> Item {
    let parts = input["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let image = |part: &Value| {
        let url = &part["image_url"];
        url.as_str().or_else(|| url["url"].as_str()).map(str::to_owned)
    };
    Item {
        texts: parts.iter().filter_map(|part| part["text"].as_str().map(str::to_owned)).collect(),
        images: parts.iter().filter_map(image).collect(),
    }
}

fn answer(
    body: &Map<String, Value>,
    items: &[Item],
    texts: &[&str],
    dimensions: usize,
) -> Result<(Prompt, Value), Problem> {
    let kinds = body_schema::strings(body, "embedding_types")?;
    if let Some(at) = kinds.iter().position(|kind| !KINDS.contains(kind)) {
        return Err(body_schema::invalid_member(
            &format!("embedding_types/{at}"),
            "the value is not a valid enum value",
        ));
    }
    let mut prompt = Prompt::for_embedding();
    let mut vectors = Vec::new();
    for item in items {
        item.texts.iter().for_each(|text| prompt.add_text(text));
        item.images.iter().for_each(|image| prompt.add_image(image));
        vectors.push(vector(&[item.texts.concat(), item.images.concat()].concat(), dimensions, true));
    }
    let encode_all = |kind: &str| vectors.iter().map(|vector| encode(vector, kind)).collect::<Value>();
    let (embeddings, response_type) = if kinds.is_empty() {
        (encode_all("float"), "embeddings_floats")
    } else {
        let by_type: Map<String, Value> = kinds.iter().map(|kind| ((*kind).to_owned(), encode_all(kind))).collect();
        (Value::Object(by_type), "embeddings_by_type")
    };
    let mut answer = json!({ "id": Uuid::new_v4().to_string(), "embeddings": embeddings });
    answer["response_type"] = json!(response_type);
    answer["texts"] = json!(texts);
    Ok((prompt, answer))
}
