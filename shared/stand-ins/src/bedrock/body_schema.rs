//! Checks of InvokeModel bodies against the schema of their model, with the error messages of
//! Bedrock.

use serde_json::{Map, Value};

use super::problem::Problem;

/// Parses a body as a JSON object.
///
/// # Errors
/// Returns an error if the body is not a JSON object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    serde_json::from_slice(body).map_err(|error| malformed(&Problem::unreadable(&error).message))
}

/// Checks that a body has all `required` members and no members other than `required` and
/// `optional`.
pub(super) fn check_members(body: &Map<String, Value>, required: &[&str], optional: &[&str]) -> Result<(), Problem> {
    let missing = required.iter().filter(|name| !body.contains_key(**name));
    let mut violations: String = missing.map(|name| format!("#: required key [{name}] not found")).collect();
    let is_known = |name: &str| required.contains(&name) || optional.contains(&name);
    for name in body.keys().filter(|name| !is_known(name)) {
        // Cut to 64 characters, so that the message does not repeat a misplaced text.
        let name: String = name.chars().take(64).collect();
        violations.push_str(&format!("#: extraneous key [{name}] is not permitted"));
    }
    if violations.is_empty() { Ok(()) } else { Err(malformed(&violations)) }
}

/// Creates the error for a missing member.
pub(super) fn missing_member(name: &str) -> Problem {
    malformed(&format!("#: required key [{name}] not found"))
}

/// Creates the error for an invalid member, named as `#/path`.
pub(super) fn invalid_member(path: &str, rule: &str) -> Problem {
    malformed(&format!("#/{path}: {rule}"))
}

/// Reads an integer within a range.
pub(super) fn integer(body: &Map<String, Value>, name: &str, range: (u64, u64)) -> Result<Option<u64>, Problem> {
    let Some(value) = body.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let Some(number) = value.as_i64() else {
        return Err(invalid_member(name, "expected type: Integer"));
    };
    match u64::try_from(number).ok().filter(|number| (range.0..=range.1).contains(number)) {
        Some(number) => Ok(Some(number)),
        None => Err(invalid_member(name, &format!("{number} is not between {} and {}", range.0, range.1))),
    }
}

/// Reads a member that has one of several values.
pub(super) fn enum_value<'a>(
    body: &'a Map<String, Value>,
    name: &str,
    words: &[&str],
) -> Result<Option<&'a str>, Problem> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if words.contains(&word.as_str()) => Ok(Some(word)),
        Some(_) => Err(invalid_member(name, "the value is not a valid enum value")),
    }
}

/// Reads a list of strings.
pub(super) fn strings<'a>(body: &'a Map<String, Value>, name: &str) -> Result<Vec<&'a str>, Problem> {
    let Some(value) = body.get(name).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let items = value.as_array().ok_or_else(|| invalid_member(name, "expected type: JSONArray"))?;
    let text = |(at, item): (usize, &'a Value)| {
        item.as_str().ok_or_else(|| invalid_member(&format!("{name}/{at}"), "expected type: String"))
    };
    items.iter().enumerate().map(text).collect()
}

fn malformed(violations: &str) -> Problem {
    Problem::invalid(format!("Malformed input request: {violations}, please reformat your input and try again."))
}
