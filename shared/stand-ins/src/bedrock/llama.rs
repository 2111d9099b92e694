//! InvokeModel requests for Meta Llama: a prompt with the role markers of the model.

use serde_json::Value;

use super::{body_schema, problem::Problem, prompt::Prompt};

const DEFAULT_MAX_TOKENS: u64 = 512;
const MAX_TOKENS: u64 = 8_192;

/// Parses and checks the body of an InvokeModel call.
pub(super) fn parse(body: &[u8]) -> Result<Prompt, Problem> {
    let body = body_schema::object(body)?;
    body_schema::check_members(&body, &["prompt"], &["max_gen_len", "temperature", "top_p", "images"])?;
    let Some(text) = body.get("prompt").and_then(Value::as_str) else {
        return Err(body_schema::invalid_member("prompt", "expected type: String"));
    };
    if text.is_empty() {
        return Err(body_schema::invalid_member("prompt", "expected minLength: 1, actual: 0"));
    }
    for name in ["temperature", "top_p"] {
        if body.get(name).is_some_and(|value| value.as_f64().is_none_or(|value| !(0.0..=1.0).contains(&value))) {
            return Err(body_schema::invalid_member(name, "the value is not between 0 and 1"));
        }
    }
    let max_tokens = body_schema::integer(&body, "max_gen_len", (1, MAX_TOKENS))?;
    let mut prompt = Prompt {
        question: text.to_owned(),
        max_tokens: Some(max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
        ..Prompt::default()
    };
    prompt.add_text(text);
    body_schema::strings(&body, "images")?.into_iter().for_each(|image| prompt.add_image(image));
    Ok(prompt)
}
