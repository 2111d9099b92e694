//! OpenAI responses.

mod answers;
mod conversations;
mod requests;
mod streams;

use serde_json::{Value, json};
use spillway::dialect::{AnswerContext, Api};

use super::{answer, context, read};

const API: Api = Api::Responses;

fn hello(extra: Value) -> Value {
    let mut body = json!({"model": "claude", "input": "Hi"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("extra members").clone());
    body
}

fn weather() -> Value {
    json!({"type": "function", "name": "weather", "description": "Asks.", "strict": true,
        "parameters": {"type": "object", "properties": {"z": {}, "a": {}}}})
}

fn patch() -> Value {
    json!({"type": "custom", "name": "patch", "description": "Edits.",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}})
}

/// The context of an answer to a request with the members `extra`.
fn context_for(extra: Value) -> AnswerContext {
    let (_, echo) = read(API, hello(extra).to_string().as_bytes(), None, false).expect("a valid request");
    AnswerContext { echo, ..context() }
}

fn rendered(context: &AnswerContext, content: Value, stop_reason: &str) -> Value {
    serde_json::from_slice(&API.answer(context, &answer(content, stop_reason)).body).expect("JSON")
}
