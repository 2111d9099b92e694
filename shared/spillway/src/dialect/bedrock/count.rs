//! `POST /model/{id}/count-tokens`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use crate::{
    chat::{Format, Input, InvokeOptions, NativeInput, Request},
    dialect::json::{self, Fields, Path, Read, ValueBudget},
    problem::Problem,
};

/// Reads a request to count tokens: a Converse body, or an InvokeModel body in base64.
pub fn parse(model: String, body: Map<String, Value>, format: Option<Format>) -> Result<Request, Problem> {
    let mut fields = Fields::new(body, &Path::Root);
    let input = fields.required("input", |value, at| {
        let mut input = Fields::from_value(value, at)?;
        if let Some(body) = input.optional("converse", json::object)? {
            return Ok(Input::Converse(body));
        }
        let bodies = vec![input.required("invokeModel", invoke_body)?];
        Ok(Input::Native(NativeInput { format, bodies, options: InvokeOptions::default() }))
    })?;
    Ok(Request { model, input, stream: false, max_tokens: None, service_tier: None, ignored: Vec::new() })
}

fn invoke_body(value: Value, at: &Path) -> Read<Map<String, Value>> {
    Fields::from_value(value, at)?.required("body", |value, at| {
        let bytes = STANDARD.decode(json::string(value, at)?).map_err(|_| at.error("is not valid base64"))?;
        let wrong = "is not JSON in base64";
        let text = String::from_utf8(bytes).map_err(|_| at.error(wrong))?;
        json::object(json::inner(&text, &mut ValueBudget::for_body(), at, wrong)?, at)
    })
}
