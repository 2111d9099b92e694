//! `POST /guardrail/{id}/version/{version}/apply`: what the content costs.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    dialect::json::{self, Path, Read, sanitized},
    problem::Problem,
    tenant::GuardrailUnits,
};

/// Content for a guardrail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardrailContent {
    /// The body that is sent. It is the body that was read: a name that came twice is sent once.
    pub body: Bytes,
    /// The units of the content: an upper bound of what Bedrock bills for one policy.
    pub units: GuardrailUnits,
}

impl GuardrailContent {
    /// Reads the body of ApplyGuardrail. Only texts and images pass, because only they have a
    /// price.
    ///
    /// # Errors
    /// Returns an error if the body is not a JSON object, or has an unknown member.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let body = json::body(body)?;
        known(&body, &["source", "content", "outputScope"], &Path::Root)?;
        let at = Path::Root.key("content");
        let units = body.get("content").map_or(Ok(GuardrailUnits::default()), |content| units(content, &at))?;
        Ok(Self { body: Value::Object(body).to_string().into(), units })
    }
}

fn units(content: &Value, at: &Path) -> Read<GuardrailUnits> {
    let blocks = content.as_array().ok_or_else(|| at.mistyped("an array", content))?;
    let mut units = blocks.iter().enumerate().map(|(index, block)| block_units(block, &at.index(index)));
    units.try_fold(GuardrailUnits::default(), |sum, units| Ok(sum.plus(units?)))
}

fn block_units(block: &Value, at: &Path) -> Read<GuardrailUnits> {
    let mut units = GuardrailUnits::default();
    for (name, value) in known(object(block, at)?, &["text", "image"], at)? {
        let at = at.key(name);
        let members = object(value, &at)?;
        units = units.plus(if name == "text" {
            known(members, &["text", "qualifiers"], &at)?;
            let text = members.get("text").and_then(Value::as_str);
            GuardrailUnits::for_text(text.ok_or_else(|| at.key("text").error("is not a string"))?)
        } else {
            known(members, &["format", "source"], &at)?;
            if let Some(source) = members.get("source") {
                let at = at.key("source");
                known(object(source, &at)?, &["bytes"], &at)?;
            }
            GuardrailUnits { text_units: 0, images: 1 }
        });
    }
    Ok(units)
}

/// Refuses any member but `names`.
fn known<'v>(members: &'v Map<String, Value>, names: &[&str], at: &Path) -> Read<&'v Map<String, Value>> {
    match members.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(at.key(&sanitized(name)).error(format_args!("is unknown; expected {}", names.join(", ")))),
        None => Ok(members),
    }
}

fn object<'v>(value: &'v Value, at: &Path) -> Read<&'v Map<String, Value>> {
    value.as_object().ok_or_else(|| at.mistyped("an object", value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(content: &Value) -> Result<GuardrailUnits, Option<String>> {
        let body = json!({"source": "INPUT", "content": content}).to_string();
        GuardrailContent::parse(body.as_bytes()).map(|content| content.units).map_err(|problem| problem.param)
    }

    #[test]
    fn each_text_and_each_image_has_its_units() {
        let text = |chars: usize| json!({"text": {"text": "é".repeat(chars), "qualifiers": ["query"]}});
        let image = json!({"image": {"format": "png", "source": {"bytes": "AAAA"}}});
        let units = |text_units, images| Ok(GuardrailUnits { text_units, images });
        assert_eq!(parse(&json!([])), units(0, 0));
        assert_eq!(parse(&json!([text(0), text(1_000), text(1_001), image])), units(4, 1));
    }

    #[test]
    fn content_without_a_known_price_is_refused() {
        for (content, place) in [
            (json!("text"), "content"),
            (json!(["text"]), "content[0]"),
            (json!([{"document": {}}]), "content[0].document"),
            (json!([{"text": {"text": 7}}]), "content[0].text.text"),
            (json!([{"text": {"text": "a", "s3Location": {}}}]), "content[0].text.s3Location"),
            (json!([{"image": {"source": {"s3Location": {}}}}]), "content[0].image.source.s3Location"),
        ] {
            assert_eq!(parse(&content), Err(Some(place.to_owned())), "{content}");
        }
        let problem = GuardrailContent::parse(br#"{"projectIdentifier": "p"}"#).expect_err("unknown");
        assert_eq!(problem.param.as_deref(), Some("projectIdentifier"));
    }

    #[test]
    fn a_name_that_comes_twice_is_sent_once() {
        let body = br#"{"content": [], "content": [{"text": {"text": "a", "text": "b"}}]}"#;
        let content = GuardrailContent::parse(body).expect("content");
        assert_eq!(content.body, r#"{"content":[{"text":{"text":"b"}}]}"#);
        assert_eq!(content.units.text_units, 1);
    }
}
