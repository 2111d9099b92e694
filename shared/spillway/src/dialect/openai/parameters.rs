//! Parameters that chat completions and responses share.

use serde_json::{Number, Value};

use crate::dialect::{
    converse,
    json::{self, Fields, Ignored, Path, Read, sanitized},
};

/// Reads `temperature`.
pub fn temperature(value: Value, at: &Path) -> Read<Number> {
    if value.as_f64().is_some_and(|number| number > 1.0 && number <= 2.0) {
        return Err(at.error("is above 1; OpenAI allows up to 2, but Bedrock's models take 0 to 1"));
    }
    json::fraction(value, at)
}

/// Reads the reasoning effort, as `outputConfig.effort`.
pub fn effort(value: Value, at: &Path) -> Read<Option<Value>> {
    match json::string(value, at)?.as_str() {
        // Bedrock's models do not reason unless a parameter requests it.
        "none" => Ok(None),
        "minimal" => converse::effort("low", at).map(Some),
        level => converse::effort(level, at).map(Some),
    }
}

/// Reads the format of the answer, as `outputConfig.textFormat`; `None` for plain text. `schema`
/// reads a JSON schema.
pub fn text_format(
    value: Value,
    at: &Path,
    ignored: &mut Ignored,
    schema: impl FnOnce(&mut Fields, &mut Ignored) -> Read<Value>,
) -> Read<Option<Value>> {
    let mut format = Fields::from_value(value, at)?;
    let text_format = match format.required("type", json::string)?.as_str() {
        "text" => None,
        "json_schema" => Some(schema(&mut format, ignored)?),
        "json_object" => {
            return Err(at.key("type").error("json_object is not supported by Bedrock; use json_schema"));
        }
        unknown => return Err(at.key("type").error(format_args!("{} is not text or json_schema", sanitized(unknown)))),
    };
    format.finish(ignored);
    Ok(text_format)
}

/// Reads a JSON schema with its name and description.
pub fn json_schema(fields: &mut Fields) -> Read<Value> {
    let definition = fields.required("schema", json::object)?;
    let (name, description) = (fields.optional("name", json::name)?, fields.optional("description", json::string)?);
    // Bedrock always enforces the schema, as `strict` requests.
    fields.optional("strict", json::boolean)?;
    Ok(converse::text_format(&Value::Object(definition), name, description))
}

/// Reads the service tier; `None` leaves the choice to the operator's ladder.
pub fn service_tier(value: Value, at: &Path) -> Read<Option<String>> {
    match json::string(value, at)? {
        tier if tier == "auto" || tier == "default" => Ok(None),
        tier if tier == "flex" || tier == "priority" => Ok(Some(tier)),
        unknown => Err(at.error(format_args!("{} is not one of auto, default, flex, priority", sanitized(&unknown)))),
    }
}
