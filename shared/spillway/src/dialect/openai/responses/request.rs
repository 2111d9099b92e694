//! Translates the parameters of `POST /v1/responses` to Converse.

use serde_json::{Map, Value};

use super::{response::ResponseEcho, tools::tool_name};
use crate::{
    chat::{Input, Request},
    dialect::{
        Echo,
        converse::{self, ConverseBody},
        json::{self, Fields, Ignored, Path, Read, ValueBudget, sanitized},
        media::DocumentBuilder,
        openai::{parameters, tools},
    },
    problem::Problem,
};

/// Parameters that would change the answer and are not supported, with the reason for the error.
const UNSUPPORTED: [(&str, &str); 8] = [
    ("conversation", "conversations are not stored; send all items in input"),
    ("frequency_penalty", "is not supported by Bedrock; leave it out or send 0"),
    ("moderation", "is not supported"),
    ("presence_penalty", "is not supported by Bedrock; leave it out or send 0"),
    ("previous_response_id", "responses are not stored; send all items in input"),
    ("prompt", "stored prompts are not supported; send instructions and input"),
    ("top_logprobs", "is not supported by Bedrock; leave it out or send 0"),
    ("logprobs", "is not supported by Bedrock; leave it out or send false"),
];

/// Reads the conversation and the tools of one request.
pub struct RequestReader<'r> {
    pub inner: &'r mut ConverseBody,
    pub echo: &'r mut ResponseEcho,
    pub ignored: &'r mut Ignored,
    pub documents: DocumentBuilder,
    pub arguments: ValueBudget,
}

/// Reads a responses request.
pub fn parse(model: String, mut body: Map<String, Value>) -> Result<(Request, Echo), Problem> {
    body.shift_remove("model");
    let mut ignored = Ignored::default();
    let mut echo = ResponseEcho::from_request(&body)?;
    let mut fields = Fields::new(body, &Path::Root);
    let stream = fields.optional("stream", json::boolean)?.unwrap_or(false);
    fields.optional("stream_options", |value, at| {
        Fields::from_value(value, at)?.finish(&mut ignored);
        Ok(())
    })?;
    for (name, text) in UNSUPPORTED {
        fields.reject(name, text)?;
    }
    let mut inner = ConverseBody::default();
    inner.system.extend(fields.optional("instructions", json::string)?.and_then(converse::text));
    conversation(&mut fields, &mut inner, &mut echo, &mut ignored)?;
    let max_tokens = inference(&mut fields, &mut inner)?;
    output(&mut fields, &mut inner, &mut echo, &mut ignored)?;
    let service_tier = fields.optional("service_tier", parameters::service_tier)?.flatten();
    echo.members.extend(service_tier.iter().map(|tier| ("service_tier".to_owned(), tier.as_str().into())));
    fields.optional("metadata", json::object)?;
    storage(&mut fields, &mut echo, &mut ignored)?;
    fields.finish(&mut ignored);
    let (input, ignored) = (Input::Converse(inner.into_json()), ignored.into_names());
    let request = Request { model, input, stream, max_tokens, service_tier, ignored };
    Ok((request, Echo { response: echo, ..Echo::default() }))
}

/// Reads the tools, then the items, which can add tools, and then the choice of a tool.
fn conversation(
    fields: &mut Fields,
    inner: &mut ConverseBody,
    echo: &mut ResponseEcho,
    ignored: &mut Ignored,
) -> Read<()> {
    tools::parallel(fields, ignored)?;
    let (documents, arguments) = (DocumentBuilder::default(), ValueBudget::for_strings());
    let mut reader = RequestReader { inner, echo, ignored, documents, arguments };
    fields.optional("tools", |value, at| reader.tools(value, at, None))?;
    fields.required("input", |value, at| reader.input(value, at))?;
    let choice = fields.optional("tool_choice", |value, at| tools::choice(value, at, tool_name))?;
    reader.inner.choose_tool(choice.flatten(), reader.ignored)
}

/// Fills `inferenceConfig` and returns the output limit.
fn inference(fields: &mut Fields, inner: &mut ConverseBody) -> Read<Option<u64>> {
    let max_tokens = fields.optional("max_output_tokens", json::token_limit)?;
    let temperature = fields.optional("temperature", parameters::temperature)?;
    let top_p = fields.optional("top_p", json::fraction)?;
    inner.set_inference(max_tokens, temperature, top_p, None);
    Ok(max_tokens)
}

/// Reads `text`, `reasoning` and `include`.
fn output(fields: &mut Fields, inner: &mut ConverseBody, echo: &mut ResponseEcho, ignored: &mut Ignored) -> Read<()> {
    let format = fields.optional("text", |value, at| {
        let mut text = Fields::from_value(value, at)?;
        let format = text.optional("format", |value, at| {
            parameters::text_format(value, at, ignored, |format, _| parameters::json_schema(format))
        })?;
        text.finish(ignored);
        Ok(format.flatten())
    })?;
    let effort = fields.optional("reasoning", |value, at| {
        let mut reasoning = Fields::from_value(value, at)?;
        let effort = reasoning.optional("effort", parameters::effort)?;
        echo.has_summary = reasoning.optional("summary", has_summary)?.unwrap_or(false);
        reasoning.finish(ignored);
        Ok(effort.flatten())
    })?;
    inner.set_output(format.flatten(), effort.flatten());
    for name in fields.optional("include", json::names)?.unwrap_or_default() {
        match name.as_str() {
            "reasoning.encrypted_content" => echo.has_encrypted_reasoning = true,
            "message.output_text.logprobs" => {
                return Err(Path::Root.key("include").error("logprobs are not supported by Bedrock"));
            }
            // The remaining values extend items that no answer here contains.
            _ => ignored.note(&Path::Root.key("include")),
        }
    }
    Ok(())
}

/// Reads whether reasoning is a summary. Bedrock has one kind of summary for `auto`, `concise` and
/// `detailed`.
fn has_summary(value: Value, at: &Path) -> Read<bool> {
    match value.as_str() {
        Some("auto" | "concise" | "detailed") => Ok(true),
        _ => Err(at.error("expected auto, concise or detailed")),
    }
}

/// Reads `background`, `store` and `truncation`.
fn storage(fields: &mut Fields, echo: &mut ResponseEcho, ignored: &mut Ignored) -> Read<()> {
    echo.background = fields.optional("background", json::boolean)?.unwrap_or(false);
    match fields.optional("store", json::boolean)? {
        Some(false) if echo.background => {
            let text = "a background response is stored until it is retrieved; leave store out or send true";
            return Err(Path::Root.key("store").error(text));
        }
        // Only background responses are stored.
        Some(true) if !echo.background => ignored.note(&Path::Root.key("store")),
        _ => {}
    }
    if echo.background {
        echo.members.extend(["background", "store"].map(|name| (name.to_owned(), Value::Bool(true))));
    }
    // The model rejects input that is too long.
    fields.optional("truncation", |value, at| match json::string(value, at)?.as_str() {
        "disabled" => Ok(()),
        "auto" => {
            ignored.note(at);
            Ok(())
        }
        unknown => Err(at.error(format_args!("{} is not one of auto, disabled", sanitized(unknown)))),
    })?;
    Ok(())
}
