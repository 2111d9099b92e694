//! The body of `POST /model/{id}/converse` and `/converse-stream`: passed on unchanged, after a
//! check of the members that Spillway acts on. Unknown members of the body itself are refused.

use serde_json::{Map, Value};

use super::members as known_members;
use crate::{
    chat::{Input, Request},
    dialect::json::{self, Path, Read, sanitized},
    problem::Problem,
};

/// Maximum number of the caller's metadata pairs. Bedrock accepts 16, and Spillway adds two
/// (`tenant` and `request_id`).
const MAX_METADATA_PAIRS: usize = 14;

/// Checks a Converse body.
pub fn parse(model: String, mut body: Map<String, Value>, stream: bool) -> Result<Request, Problem> {
    body.retain(|_, value| !value.is_null());
    known_members::check(&mut body)?;
    let at = Path::Root;
    match body.get("messages") {
        None => return Err(at.key("messages").error("is missing")),
        Some(messages) => check_messages(messages, &at.key("messages"))?,
    }
    if let Some(system) = body.get("system") {
        each(system, &at.key("system"), |block, at| members(block, at).map(drop))?;
    }
    let max_tokens = match body.get("inferenceConfig") {
        None => None,
        Some(config) => check_inference(members(config, &at.key("inferenceConfig"))?, &at.key("inferenceConfig"))?,
    };
    check_metadata(&body)?;
    let service_tier = take_choice(&mut body, "serviceTier", "type")?;
    let service_tier =
        service_tier.map(|tier| super::tier(tier, &at.key("serviceTier").key("type"))).transpose()?.flatten();
    if let Some(latency) = take_choice(&mut body, "performanceConfig", "latency")? {
        super::standard_latency(&latency, &at.key("performanceConfig").key("latency"))?;
    }
    for name in ["toolConfig", "guardrailConfig", "outputConfig", "promptVariables"] {
        if let Some(value) = body.get(name) {
            members(value, &at.key(name))?;
        }
    }
    Ok(Request { model, input: Input::Converse(body), stream, max_tokens, service_tier, ignored: Vec::new() })
}

fn check_messages(messages: &Value, at: &Path) -> Read<()> {
    if messages.as_array().is_some_and(Vec::is_empty) {
        return Err(at.error("needs at least one message"));
    }
    each(messages, at, |message, at| {
        let message = members(message, at)?;
        match message.get("role") {
            Some(Value::String(role)) if ["user", "assistant", "system"].contains(&role.as_str()) => {}
            Some(Value::String(role)) => {
                let text = format_args!("{} is unknown; expected user, assistant or system", sanitized(role));
                return Err(at.key("role").error(text));
            }
            Some(value) => return Err(at.key("role").mistyped("a string", value)),
            None => return Err(at.key("role").error("is missing")),
        }
        let at = at.key("content");
        let content = message.get("content").ok_or_else(|| at.error("is missing"))?;
        each(content, &at, |block, at| members(block, at).map(drop))
    })
}

/// Checks `inferenceConfig` and returns its output limit.
fn check_inference(config: &Map<String, Value>, at: &Path) -> Read<Option<u64>> {
    let present = |name: &str| config.get(name).filter(|value| !value.is_null()).cloned();
    for name in ["temperature", "topP"] {
        present(name).map(|value| json::fraction(value, &at.key(name))).transpose()?;
    }
    present("stopSequences").map(|value| json::names(value, &at.key("stopSequences"))).transpose()?;
    present("maxTokens").map(|value| json::token_limit(value, &at.key("maxTokens"))).transpose()
}

fn check_metadata(body: &Map<String, Value>) -> Read<()> {
    let at = Path::Root.key("requestMetadata");
    body.get("requestMetadata").map_or(Ok(()), |metadata| check_metadata_pairs(members(metadata, &at)?, &at))
}

/// Checks metadata pairs for Bedrock's invocation log.
pub fn check_metadata_pairs(pairs: &Map<String, Value>, at: &Path) -> Read<()> {
    if pairs.len() > MAX_METADATA_PAIRS {
        return Err(at.error(format_args!("has {} pairs; at most {MAX_METADATA_PAIRS} are allowed", pairs.len())));
    }
    match pairs.values().find(|value| !value.is_string()) {
        Some(value) => Err(at.mistyped("an object of strings", value)),
        None => Ok(()),
    }
}

/// Takes a choice out of the body, so that the pool can set it.
fn take_choice(body: &mut Map<String, Value>, name: &str, member: &str) -> Read<Option<String>> {
    let Some(config) = body.shift_remove(name) else { return Ok(None) };
    let at = Path::Root.key(name);
    let choice = members(&config, &at)?.get(member).filter(|choice| !choice.is_null());
    choice.map(|choice| json::string(choice.clone(), &at.key(member))).transpose()
}

fn members<'v>(value: &'v Value, at: &Path) -> Read<&'v Map<String, Value>> {
    value.as_object().ok_or_else(|| at.mistyped("an object", value))
}

fn each(value: &Value, at: &Path, check: impl Fn(&Value, &Path) -> Read<()>) -> Read<()> {
    let elements = value.as_array().ok_or_else(|| at.mistyped("an array", value))?;
    elements.iter().enumerate().try_for_each(|(index, element)| check(element, &at.index(index)))
}
