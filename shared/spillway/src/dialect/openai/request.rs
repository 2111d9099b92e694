//! The parameters of `POST /v1/chat/completions`.

use serde_json::{Map, Value};

use super::{messages, parameters, tools};
use crate::dialect::Echo;
use crate::dialect::converse::Body;
use crate::dialect::json::{self, Fields, Ignored, Path, Read};
use crate::{
    chat::{Input, Request},
    problem::Problem,
};

/// Understood, and without effect on what the model answers.
const HARMLESS: [&str; 10] = [
    "user",
    "metadata",
    "store",
    "seed",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "verbosity",
];

/// Without them the caller would get another answer than the one asked for.
const REFUSED: [(&str, &str); 11] = [
    ("audio", "audio output is not supported"),
    ("frequency_penalty", "is not supported by Bedrock; leave it out or send 0"),
    ("presence_penalty", "is not supported by Bedrock; leave it out or send 0"),
    ("function_call", "is not supported; use tool_choice"),
    ("functions", "is not supported; use tools"),
    ("logit_bias", "is not supported by Bedrock"),
    ("logprobs", "is not supported by Bedrock; leave it out or send false"),
    ("top_logprobs", "is not supported by Bedrock; leave it out or send 0"),
    ("moderation", "is not supported"),
    ("web_search_options", "web search is not supported"),
    ("background", "is not supported here; send the header Prefer: respond-async"),
];

/// Reads a chat completions request.
pub fn parse(model: String, mut body: Map<String, Value>) -> Result<(Request, Echo), Problem> {
    body.shift_remove("model");
    let mut ignored = Ignored::default();
    let mut fields = Fields::new(body, &Path::Root);
    let stream = fields.optional("stream", json::boolean)?.unwrap_or(false);
    let include_usage = stream_options(&mut fields, &mut ignored)? && stream;

    let mut inner = Body::default();
    fields.required("messages", |value, at| messages::read(value, at, &mut inner, &mut ignored))?;
    let max_tokens = inference(&mut fields, &mut inner)?;
    tools::read(&mut fields, &mut inner, &mut ignored)?;
    output(&mut fields, &mut inner, &mut ignored)?;
    only_one_plain_choice(&mut fields)?;
    let service_tier = fields.optional("service_tier", parameters::service_tier)?.flatten();
    for (name, text) in REFUSED {
        fields.refuse(name, text)?;
    }
    for name in HARMLESS {
        fields.ignore(name, &mut ignored);
    }
    fields.finish(&mut ignored);
    let (input, ignored) = (Input::Converse(inner.into_json()), ignored.into_names());
    let request = Request { model, input, stream, max_tokens, service_tier, ignored };
    Ok((request, Echo { include_usage, ..Echo::default() }))
}

fn stream_options(fields: &mut Fields, ignored: &mut Ignored) -> Read<bool> {
    let read = |value: Value, at: &Path| {
        let mut options = Fields::of(value, at)?;
        let include_usage = options.optional("include_usage", json::boolean)?;
        options.finish(ignored);
        Ok(include_usage.unwrap_or(false))
    };
    Ok(fields.optional("stream_options", read)?.unwrap_or(false))
}

/// Fills `inferenceConfig` and returns the output limit.
fn inference(fields: &mut Fields, inner: &mut Body) -> Read<Option<u64>> {
    let old = fields.optional("max_tokens", json::token_limit)?;
    let new = fields.optional("max_completion_tokens", json::token_limit)?;
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        let text = "differs from max_completion_tokens, which replaces it; send one of them";
        return Err(Path::Root.key("max_tokens").refuse(text));
    }
    let max_tokens = new.or(old);
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            inner.inference.insert(name.to_owned(), value);
        }
    };
    put("maxTokens", max_tokens.map(Value::from));
    put("temperature", fields.optional("temperature", parameters::temperature)?.map(Value::Number));
    put("topP", fields.optional("top_p", json::fraction)?.map(Value::Number));
    let stop = fields.optional("stop", |value, at| match value {
        Value::String(_) => Ok(vec![json::name(value, at)?]),
        Value::Array(_) => json::names(value, at),
        other => Err(at.mistyped("a string or an array of strings", &other)),
    })?;
    put("stopSequences", stop.filter(|stop| !stop.is_empty()).map(Value::from));
    Ok(max_tokens)
}

/// `response_format` and `reasoning_effort`.
fn output(fields: &mut Fields, inner: &mut Body, ignored: &mut Ignored) -> Read<()> {
    let format = fields.optional("response_format", |value, at| {
        parameters::text_format(value, at, ignored, |format, ignored| {
            format.required("json_schema", |value, at| {
                let mut definition = Fields::of(value, at)?;
                let schema = parameters::json_schema(&mut definition)?;
                definition.finish(ignored);
                Ok(schema)
            })
        })
    })?;
    let effort = fields.optional("reasoning_effort", parameters::effort)?;
    for (name, value) in [("textFormat", format.flatten()), ("effort", effort.flatten())] {
        inner.output.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(())
}

/// Parameters of which Bedrock can do exactly one value.
fn only_one_plain_choice(fields: &mut Fields) -> Read<()> {
    fields.optional("n", |value, at| match value.as_u64() {
        Some(1) => Ok(()),
        _ => Err(at.refuse("only 1 is supported; Bedrock gives one answer per request")),
    })?;
    fields.optional("modalities", |value, at| match json::names(value, at)?.as_slice() {
        [only] if only == "text" => Ok(()),
        _ => Err(at.refuse(r#"only ["text"] is supported"#)),
    })?;
    Ok(())
}
