//! Translates the parameters of `POST /v1/messages` to Converse.

use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::{blocks::BlockReader, tools};
use crate::{
    chat::{Input, Request},
    dialect::{
        converse::{self, ConverseBody, put},
        json::{self, Fields, Ignored, Path, Read, sanitized},
    },
    problem::Problem,
};

/// Parameters that do not change the answer.
const WITHOUT_EFFECT: [&str; 7] = [
    "metadata",
    "service_tier",
    "anthropic_version",
    "context_management",
    "diagnostics",
    "user_profile_id",
    "workspace_id",
];

/// Parameters that would change the answer and are not supported, with the reason for the error.
pub const UNSUPPORTED: [(&str, &str); 2] = [
    ("container", "containers are not supported by Bedrock"),
    ("mcp_servers", "MCP servers are not supported by Bedrock; connect them on the client's side"),
];

/// Reads a messages request for a model that is not Claude.
pub fn parse(model: String, mut body: Map<String, Value>, headers: &HeaderMap) -> Result<Request, Problem> {
    body.shift_remove("model");
    let mut ignored = Ignored::default();
    // Only Claude has betas.
    if headers.contains_key("anthropic-beta") {
        ignored.note(&Path::Root.key("anthropic-beta"));
    }
    let mut fields = Fields::new(body, &Path::Root);
    let stream = fields.optional("stream", json::boolean)?.unwrap_or(false);

    let mut inner = ConverseBody::default();
    let mut reader = BlockReader::new(&mut ignored);
    if let Some(system) = fields.optional("system", |value, at| reader.system(value, at))? {
        inner.system = system;
    }
    fields.required("messages", |value, at| messages(value, at, &mut inner, &mut reader))?;
    if let Some(point) = fields.optional("cache_control", converse::cache_point)? {
        inner.conversation.push_to_last(point);
    }
    let max_tokens = inference(&mut fields, &mut inner)?;
    tools::read(&mut fields, &mut inner, &mut ignored)?;
    output(&mut fields, &mut inner, &mut ignored)?;
    additional(&mut fields, &mut inner)?;
    check_fixed_values(&mut fields)?;
    for (name, text) in UNSUPPORTED {
        fields.reject(name, text)?;
    }
    for name in WITHOUT_EFFECT {
        fields.ignore(name, &mut ignored);
    }
    fields.finish(&mut ignored);
    let (input, ignored) = (Input::Converse(inner.into_json()), ignored.into_names());
    Ok(Request { model, input, stream, max_tokens, service_tier: None, ignored })
}

fn messages(value: Value, at: &Path, inner: &mut ConverseBody, reader: &mut BlockReader) -> Read<()> {
    for (index, value) in json::array(value, at)?.into_iter().enumerate() {
        let at = at.index(index);
        let mut message = Fields::from_value(value, &at)?;
        let role = match message.required("role", json::string)?.as_str() {
            "user" => "user",
            "assistant" => "assistant",
            "system" => "system",
            unknown => {
                let text = format_args!("{} is unknown; expected user or assistant", sanitized(unknown));
                return Err(at.key("role").error(text));
            }
        };
        let content = message.required("content", |value, at| reader.content(value, at))?;
        message.finish(reader.ignored);
        match content.is_empty() {
            false => inner.conversation.push(role, content),
            // Converse rejects empty messages, so an empty assistant message is left out.
            true if role == "assistant" => {}
            true => return Err(at.key("content").error("is empty")),
        }
    }
    if inner.conversation.is_empty() {
        return Err(at.error("needs at least one user message"));
    }
    Ok(())
}

/// Fills `inferenceConfig` and returns the output limit. Anthropic requires `max_tokens`; here the
/// tenant's default applies if it is absent, as in the other dialects.
fn inference(fields: &mut Fields, inner: &mut ConverseBody) -> Read<Option<u64>> {
    let max_tokens = fields.optional("max_tokens", json::token_limit)?;
    let temperature = fields.optional("temperature", json::fraction)?;
    let top_p = fields.optional("top_p", json::fraction)?;
    let stop_sequences = fields.optional("stop_sequences", json::names)?;
    if stop_sequences.as_ref().is_some_and(|sequences| !sequences.is_empty()) {
        // Converse itself does not report which sequence ended the answer.
        inner.answer_paths.push("/stop_sequence");
    }
    inner.set_inference(max_tokens, temperature, top_p, stop_sequences);
    Ok(max_tokens)
}

/// Reads `output_config`, and `output_format`, which is the former name of `output_config.format`.
fn output(fields: &mut Fields, inner: &mut ConverseBody, ignored: &mut Ignored) -> Read<()> {
    let mut format = fields.optional("output_format", |value, at| output_format(value, at, ignored))?;
    let effort = fields.optional("output_config", |value, at| {
        let mut config = Fields::from_value(value, at)?;
        let effort = config.optional("effort", |value, at| converse::effort(&json::string(value, at)?, at))?;
        if let Some(newer) = config.optional("format", |value, at| output_format(value, at, ignored))? {
            format = Some(newer);
        }
        config.finish(ignored);
        Ok(effort)
    })?;
    inner.set_output(format, effort.flatten());
    Ok(())
}

fn output_format(value: Value, at: &Path, ignored: &mut Ignored) -> Read<Value> {
    let mut format = Fields::from_value(value, at)?;
    match format.required("type", json::string)?.as_str() {
        "json_schema" => {}
        unknown => return Err(at.key("type").error(format_args!("{} is not json_schema", sanitized(unknown)))),
    }
    let schema = format.required("schema", json::object)?;
    format.finish(ignored);
    Ok(converse::text_format(&Value::Object(schema), None, None))
}

/// Reads the parameters that Converse passes to the model unchanged.
fn additional(fields: &mut Fields, inner: &mut ConverseBody) -> Read<()> {
    put(&mut inner.additional, "thinking", fields.optional("thinking", json::object)?);
    put(&mut inner.additional, "top_k", fields.optional("top_k", top_k)?);
    put(&mut inner.additional, "anthropic_beta", fields.optional("anthropic_beta", json::names)?);
    Ok(())
}

fn top_k(value: Value, at: &Path) -> Read<Value> {
    match value.as_u64() {
        Some(count) => Ok(json!(count)),
        None => Err(at.mistyped("a whole number", &value)),
    }
}

/// Rejects parameters whose value is not the only one that Bedrock supports.
pub fn check_fixed_values(fields: &mut Fields) -> Read<()> {
    fields.optional("speed", |value, at| match json::string(value, at)?.as_str() {
        "standard" => Ok(()),
        _ => Err(at.error("only standard is supported")),
    })?;
    fields.optional("inference_geo", |value, at| match json::string(value, at)?.as_str() {
        "global" => Ok(()),
        _ => Err(at.error("is not supported; the operator's ladder chooses the region")),
    })?;
    Ok(())
}
