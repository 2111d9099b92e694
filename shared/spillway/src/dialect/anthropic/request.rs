//! The parameters of `POST /v1/messages`.

use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::blocks::Reader;
use super::tools;
use crate::dialect::converse::{self, Body};
use crate::dialect::json::{self, Fields, Ignored, Path, Read, echo};
use crate::{
    chat::{Input, Request},
    problem::Problem,
};

/// Understood, and without effect on what the model answers.
const HARMLESS: [&str; 7] = [
    "metadata",
    "service_tier",
    "anthropic_version",
    "context_management",
    "diagnostics",
    "user_profile_id",
    "workspace_id",
];

/// Without them the caller would get another answer than the one asked for.
const REFUSED: [(&str, &str); 2] = [
    ("container", "containers are not supported by Bedrock"),
    ("mcp_servers", "MCP servers are not supported by Bedrock; connect them on the client's side"),
];

/// Reads a messages request for a model that does not take it as it is.
pub fn parse(model: String, mut body: Map<String, Value>, headers: &HeaderMap) -> Result<Request, Problem> {
    body.shift_remove("model");
    let mut ignored = Ignored::default();
    // Betas are of Claude, and this is for the others.
    if headers.contains_key("anthropic-beta") {
        ignored.note(&Path::Root.key("anthropic-beta"));
    }
    let mut fields = Fields::new(body, &Path::Root);
    let stream = fields.optional("stream", json::boolean)?.unwrap_or(false);

    let mut inner = Body::default();
    let mut reader = Reader::new(&mut ignored);
    if let Some(system) = fields.optional("system", |value, at| reader.system(value, at))? {
        inner.system = system;
    }
    fields.required("messages", |value, at| messages(value, at, &mut inner, &mut reader))?;
    if let Some(point) = fields.optional("cache_control", converse::cache_point)? {
        inner.turns.push_behind(point);
    }
    let max_tokens = inference(&mut fields, &mut inner)?;
    tools::read(&mut fields, &mut inner, &mut ignored)?;
    output(&mut fields, &mut inner, &mut ignored)?;
    additional(&mut fields, &mut inner)?;
    only_the_usual(&mut fields)?;
    for (name, text) in REFUSED {
        fields.refuse(name, text)?;
    }
    for name in HARMLESS {
        fields.ignore(name, &mut ignored);
    }
    fields.finish(&mut ignored);
    let (input, ignored) = (Input::Converse(inner.into_json()), ignored.into_names());
    Ok(Request { model, input, stream, max_tokens, service_tier: None, ignored })
}

fn messages(value: Value, at: &Path, inner: &mut Body, reader: &mut Reader) -> Read<()> {
    for (index, value) in json::array(value, at)?.into_iter().enumerate() {
        let at = at.index(index);
        let mut message = Fields::of(value, &at)?;
        let role = match message.required("role", json::string)?.as_str() {
            "user" => "user",
            "assistant" => "assistant",
            "system" => "system",
            other => {
                let text = format_args!("{} is unknown; expected user or assistant", echo(other));
                return Err(at.key("role").refuse(text));
            }
        };
        let content = message.required("content", |value, at| reader.content(value, at))?;
        message.finish(reader.ignored);
        match content.is_empty() {
            false => inner.turns.push(role, content),
            // An empty message of the assistant says nothing, and Converse refuses it.
            true if role == "assistant" => {}
            true => return Err(at.key("content").refuse("is empty")),
        }
    }
    if inner.turns.is_empty() {
        return Err(at.refuse("needs at least one message of the user"));
    }
    Ok(())
}

/// Fills `inferenceConfig` and returns the output limit. Anthropic requires `max_tokens`; here the tenant's default
/// stands in, as in the other dialects.
fn inference(fields: &mut Fields, inner: &mut Body) -> Read<Option<u64>> {
    let max_tokens = fields.optional("max_tokens", json::token_limit)?;
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            inner.inference.insert(name.to_owned(), value);
        }
    };
    put("maxTokens", max_tokens.map(Value::from));
    put("temperature", fields.optional("temperature", json::fraction)?.map(Value::Number));
    put("topP", fields.optional("top_p", json::fraction)?.map(Value::Number));
    if let Some(stop) = fields.optional("stop_sequences", json::names)?.filter(|stop| !stop.is_empty()) {
        put("stopSequences", Some(Value::from(stop)));
        // Converse itself does not say which sequence it was.
        inner.answer_paths.push("/stop_sequence");
    }
    Ok(max_tokens)
}

/// `output_config`, and `output_format` as it was first called.
fn output(fields: &mut Fields, inner: &mut Body, ignored: &mut Ignored) -> Read<()> {
    let mut format = fields.optional("output_format", |value, at| output_format(value, at, ignored))?;
    let effort = fields.optional("output_config", |value, at| {
        let mut config = Fields::of(value, at)?;
        let effort = config.optional("effort", |value, at| converse::effort(&json::string(value, at)?, at))?;
        if let Some(newer) = config.optional("format", |value, at| output_format(value, at, ignored))? {
            format = Some(newer);
        }
        config.finish(ignored);
        Ok(effort)
    })?;
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            inner.output.insert(name.to_owned(), value);
        }
    };
    put("textFormat", format);
    put("effort", effort.flatten());
    Ok(())
}

fn output_format(value: Value, at: &Path, ignored: &mut Ignored) -> Read<Value> {
    let mut format = Fields::of(value, at)?;
    match format.required("type", json::string)?.as_str() {
        "json_schema" => {}
        other => return Err(at.key("type").refuse(format_args!("{} is not json_schema", echo(other)))),
    }
    let schema = format.required("schema", json::object)?;
    format.finish(ignored);
    Ok(converse::text_format(&Value::Object(schema), None, None))
}

/// What Converse hands to the model as it is.
fn additional(fields: &mut Fields, inner: &mut Body) -> Read<()> {
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            inner.additional.insert(name.to_owned(), value);
        }
    };
    put("thinking", fields.optional("thinking", |value, at| json::object(value, at).map(Value::Object))?);
    put("top_k", fields.optional("top_k", top_k)?);
    put("anthropic_beta", fields.optional("anthropic_beta", json::names)?.map(Value::from));
    Ok(())
}

fn top_k(value: Value, at: &Path) -> Read<Value> {
    match value.as_u64() {
        Some(count) => Ok(json!(count)),
        None => Err(at.mistyped("a whole number", &value)),
    }
}

/// Parameters of which only the usual value can be had.
pub fn only_the_usual(fields: &mut Fields) -> Read<()> {
    fields.optional("speed", |value, at| match json::string(value, at)?.as_str() {
        "standard" => Ok(()),
        _ => Err(at.refuse("only standard is supported")),
    })?;
    fields.optional("inference_geo", |value, at| match json::string(value, at)?.as_str() {
        "global" => Ok(()),
        _ => Err(at.refuse("is not supported; the operator's ladder chooses the region")),
    })?;
    Ok(())
}
