//! Bodies that do not fit the schema of their model, in the words in which Bedrock refuses them.

use serde_json::{Map, Value};

use super::problem::Problem;

/// The members of a body.
///
/// # Errors
/// It is no JSON object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    serde_json::from_slice(body).map_err(|error| problem(&Problem::unreadable(&error).message))
}

/// Checks that all `required` members are there and none but those and the `optional` ones.
pub(super) fn check_members(body: &Map<String, Value>, required: &[&str], optional: &[&str]) -> Result<(), Problem> {
    let missing = required.iter().filter(|name| !body.contains_key(**name));
    let mut violations: String = missing.map(|name| format!("#: required key [{name}] not found")).collect();
    let known = |name: &str| required.contains(&name) || optional.contains(&name);
    for name in body.keys().filter(|name| !known(name)) {
        // A misplaced text must not come back as a name.
        let name: String = name.chars().take(64).collect();
        violations.push_str(&format!("#: extraneous key [{name}] is not permitted"));
    }
    if violations.is_empty() { Ok(()) } else { Err(problem(&violations)) }
}

/// The refusal of a body that lacks a member.
pub(super) fn missing(name: &str) -> Problem {
    problem(&format!("#: required key [{name}] not found"))
}

/// The refusal of a member, named as `#/path`.
pub(super) fn member(path: &str, rule: &str) -> Problem {
    problem(&format!("#/{path}: {rule}"))
}

/// A member that is a whole number within a range.
pub(super) fn number(body: &Map<String, Value>, name: &str, range: (u64, u64)) -> Result<Option<u64>, Problem> {
    let Some(value) = body.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let Some(number) = value.as_i64() else {
        return Err(member(name, "expected type: Integer"));
    };
    match u64::try_from(number).ok().filter(|number| (range.0..=range.1).contains(number)) {
        Some(number) => Ok(Some(number)),
        None => Err(member(name, &format!("{number} is not between {} and {}", range.0, range.1))),
    }
}

/// A member that is one of several words.
pub(super) fn word<'a>(body: &'a Map<String, Value>, name: &str, words: &[&str]) -> Result<Option<&'a str>, Problem> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if words.contains(&word.as_str()) => Ok(Some(word)),
        Some(_) => Err(member(name, "the value is not a valid enum value")),
    }
}

/// A member that is a list of texts.
pub(super) fn texts<'a>(body: &'a Map<String, Value>, name: &str) -> Result<Vec<&'a str>, Problem> {
    let Some(value) = body.get(name).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let items = value.as_array().ok_or_else(|| member(name, "expected type: JSONArray"))?;
    let text = |(at, item): (usize, &'a Value)| {
        item.as_str().ok_or_else(|| member(&format!("{name}/{at}"), "expected type: String"))
    };
    items.iter().enumerate().map(text).collect()
}

fn problem(violations: &str) -> Problem {
    Problem::invalid(format!("Malformed input request: {violations}, please reformat your input and try again."))
}
