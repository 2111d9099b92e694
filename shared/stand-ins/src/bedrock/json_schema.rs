//! Structured output: the smallest JSON value that a simple schema accepts.

use serde_json::{Map, Value, json};

/// Maximum depth of nested schemas and references. Deeper values are null.
const MAX_DEPTH: usize = 16;

/// Returns a value that satisfies `schema`: all properties, and the first of several choices. The
/// value is always the same.
pub(super) fn example(schema: &Value) -> Value {
    value(schema, schema, MAX_DEPTH)
}

fn value(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(target) = schema["$ref"].as_str() {
        let target = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or(Value::Null, |target| value(target, root, depth - 1));
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    for choices in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema[choices].as_array().and_then(|schemas| schemas.first()) {
            return value(first, root, depth - 1);
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind.unwrap_or(if schema["properties"].is_object() { "object" } else { "string" }) {
        "object" => object(schema, root, depth),
        "array" => {
            let length = schema["minItems"].as_u64().unwrap_or(1).clamp(1, 64);
            (0..length).map(|_| value(&schema["items"], root, depth - 1)).collect()
        }
        "boolean" => json!(true),
        "integer" | "number" => min_number(schema),
        "null" => Value::Null,
        _ => text(schema),
    }
}

fn object(schema: &Value, root: &Value, depth: usize) -> Value {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut object: Map<String, Value> =
        properties.map(|(name, schema)| (name.clone(), value(schema, root, depth - 1))).collect();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        object.entry(name).or_insert_with(|| json!("text"));
    }
    Value::Object(object)
}

fn min_number(schema: &Value) -> Value {
    match (&schema["minimum"], &schema["exclusiveMinimum"]) {
        (minimum @ Value::Number(_), _) => minimum.clone(),
        (_, Value::Number(below)) => below.as_i64().map_or(json!(1), |below| json!(below.saturating_add(1))),
        _ => json!(1),
    }
}

fn text(schema: &Value) -> Value {
    let text = match schema["format"].as_str() {
        Some("date") => "2026-01-01",
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("email") => "someone@example.com",
        Some("uri") => "https://example.com",
        _ => "text",
    };
    let min_length = usize::try_from(schema["minLength"].as_u64().unwrap_or(0)).unwrap_or(0).min(1_000);
    json!(format!("{text:x<min_length$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_simple_type_is_satisfied() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "age": {"type": "integer", "minimum": 18},
                "tall": {"type": "boolean"},
                "colour": {"enum": ["red", "green"]},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "maybe": {"type": ["number", "null"]},
                "home": {"$ref": "#/$defs/place"},
            },
            "required": ["name", "extra"],
            "$defs": {"place": {"type": "object", "properties": {"next": {"$ref": "#/$defs/other"}}}},
        });
        let expected = json!({
            "name": "text", "age": 18, "tall": true, "colour": "red", "tags": ["text", "text"], "maybe": 1,
            "home": {"next": null}, "extra": "text",
        });
        assert_eq!(example(&schema), expected);
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(example(&schema).is_object());
    }
}
