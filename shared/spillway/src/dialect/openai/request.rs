//! Translates the parameters of `POST /v1/chat/completions` to Converse.

use serde_json::{Map, Value};

use super::{messages, parameters, tools};
use crate::{
    chat::{Input, Request},
    dialect::{
        Echo,
        converse::ConverseBody,
        json::{self, Fields, Ignored, Path, Read},
    },
    problem::Problem,
};

/// Parameters that do not change the answer.
const WITHOUT_EFFECT: [&str; 10] = [
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

/// Parameters that would change the answer and are not supported, with the reason for the error.
const UNSUPPORTED: [(&str, &str); 11] = [
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

    let mut inner = ConverseBody::default();
    fields.required("messages", |value, at| messages::read(value, at, &mut inner, &mut ignored))?;
    let max_tokens = inference(&mut fields, &mut inner)?;
    tools::read(&mut fields, &mut inner, &mut ignored)?;
    output(&mut fields, &mut inner, &mut ignored)?;
    check_fixed_values(&mut fields)?;
    let service_tier = fields.optional("service_tier", parameters::service_tier)?.flatten();
    for (name, text) in UNSUPPORTED {
        fields.reject(name, text)?;
    }
    for name in WITHOUT_EFFECT {
        fields.ignore(name, &mut ignored);
    }
    fields.finish(&mut ignored);
    let (input, ignored) = (Input::Converse(inner.into_json()), ignored.into_names());
    let request = Request { model, input, stream, max_tokens, service_tier, ignored };
    Ok((request, Echo { include_usage, ..Echo::default() }))
}

fn stream_options(fields: &mut Fields, ignored: &mut Ignored) -> Read<bool> {
    let read = |value: Value, at: &Path| {
        let mut options = Fields::from_value(value, at)?;
        let include_usage = options.optional("include_usage", json::boolean)?;
        options.finish(ignored);
        Ok(include_usage.unwrap_or(false))
    };
    Ok(fields.optional("stream_options", read)?.unwrap_or(false))
}

/// Fills `inferenceConfig` and returns the output limit.
fn inference(fields: &mut Fields, inner: &mut ConverseBody) -> Read<Option<u64>> {
    let former = fields.optional("max_tokens", json::token_limit)?;
    let current = fields.optional("max_completion_tokens", json::token_limit)?;
    let max_tokens = current.or(former);
    let temperature = fields.optional("temperature", parameters::temperature)?;
    let top_p = fields.optional("top_p", json::fraction)?;
    let stop_sequences = fields.optional("stop", |value, at| match value {
        Value::String(_) => Ok(vec![json::name(value, at)?]),
        Value::Array(_) => json::names(value, at),
        value => Err(at.mistyped("a string or an array of strings", &value)),
    })?;
    inner.set_inference(max_tokens, temperature, top_p, stop_sequences);
    Ok(max_tokens)
}

/// Reads `response_format` and `reasoning_effort`.
fn output(fields: &mut Fields, inner: &mut ConverseBody, ignored: &mut Ignored) -> Read<()> {
    let format = fields.optional("response_format", |value, at| {
        parameters::text_format(value, at, ignored, |format, ignored| {
            format.required("json_schema", |value, at| {
                let mut definition = Fields::from_value(value, at)?;
                let schema = parameters::json_schema(&mut definition)?;
                definition.finish(ignored);
                Ok(schema)
            })
        })
    })?;
    let effort = fields.optional("reasoning_effort", parameters::effort)?;
    inner.set_output(format.flatten(), effort.flatten());
    Ok(())
}

/// Rejects parameters whose value is not the only one that Bedrock supports.
fn check_fixed_values(fields: &mut Fields) -> Read<()> {
    // Another number than 1 has been refused.
    fields.take("n");
    fields.optional("modalities", |value, at| match json::names(value, at)?.as_slice() {
        [only] if only == "text" => Ok(()),
        _ => Err(at.error(r#"only ["text"] is supported"#)),
    })?;
    Ok(())
}
