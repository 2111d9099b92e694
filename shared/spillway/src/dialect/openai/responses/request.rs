//! The parameters of `POST /v1/responses`.

use serde_json::{Map, Value};

use super::echo::{self, ResponseEcho};
use super::tools::Reader;
use super::{input, tools as known};
use crate::dialect::Echo;
use crate::dialect::converse::{self, Body};
use crate::dialect::json::{self, Fields, Ignored, Path, Read, echo as word};
use crate::dialect::openai::{parameters, tools};
use crate::{
    chat::{Input, Request},
    problem::Problem,
};

/// Without them the caller would get another answer than the one asked for.
const REFUSED: [(&str, &str); 8] = [
    ("conversation", "conversations are not stored; send all items in input"),
    ("frequency_penalty", "is not supported by Bedrock; leave it out or send 0"),
    ("moderation", "is not supported"),
    ("presence_penalty", "is not supported by Bedrock; leave it out or send 0"),
    ("previous_response_id", "responses are not stored; send all items in input"),
    ("prompt", "stored prompts are not supported; send instructions and input"),
    ("top_logprobs", "is not supported by Bedrock; leave it out or send 0"),
    ("logprobs", "is not supported by Bedrock; leave it out or send false"),
];

/// Reads a responses request.
pub fn parse(model: String, mut body: Map<String, Value>) -> Result<(Request, Echo), Problem> {
    body.shift_remove("model");
    let mut ignored = Ignored::default();
    let mut echo = ResponseEcho::of(&body);
    let mut fields = Fields::new(body, &Path::Root);
    let stream = fields.optional("stream", json::boolean)?.unwrap_or(false);
    fields.optional("stream_options", |value, at| {
        Fields::of(value, at)?.finish(&mut ignored);
        Ok(())
    })?;
    for (name, text) in REFUSED {
        fields.refuse(name, text)?;
    }
    let mut inner = Body::default();
    inner.system.extend(fields.optional("instructions", json::string)?.and_then(converse::text));
    conversation(&mut fields, &mut inner, &mut echo, &mut ignored)?;
    let max_tokens = inference(&mut fields, &mut inner)?;
    output(&mut fields, &mut inner, &mut echo, &mut ignored)?;
    let service_tier = fields.optional("service_tier", parameters::service_tier)?.flatten();
    echo.members.extend(service_tier.iter().map(|tier| ("service_tier".to_owned(), tier.as_str().into())));
    fields.optional("metadata", json::object)?;
    kept_and_cut(&mut fields, &mut echo, &mut ignored)?;
    fields.finish(&mut ignored);
    let (input, ignored) = (Input::Converse(inner.into_json()), ignored.into_names());
    let request = Request { model, input, stream, max_tokens, service_tier, ignored };
    Ok((request, Echo { response: echo, ..Echo::default() }))
}

/// The tools and the items, which can bring more tools, and then the choice between them.
fn conversation(fields: &mut Fields, inner: &mut Body, echo: &mut ResponseEcho, ignored: &mut Ignored) -> Read<()> {
    tools::parallel(fields, ignored)?;
    let mut reader = Reader { inner: &mut *inner, echo: &mut *echo, ignored: &mut *ignored };
    fields.optional("tools", |value, at| reader.tools(value, at, None))?;
    fields.required("input", |value, at| input::read(value, at, inner, echo, ignored))?;
    let chosen = fields.optional("tool_choice", |value, at| tools::choice(value, at, known::named))?;
    tools::choose(chosen, inner, ignored)
}

/// Fills `inferenceConfig` and returns the output limit.
fn inference(fields: &mut Fields, inner: &mut Body) -> Read<Option<u64>> {
    let max_tokens = fields.optional("max_output_tokens", json::token_limit)?;
    for (name, value) in [
        ("maxTokens", max_tokens.map(Value::from)),
        ("temperature", fields.optional("temperature", parameters::temperature)?.map(Value::Number)),
        ("topP", fields.optional("top_p", json::fraction)?.map(Value::Number)),
    ] {
        inner.inference.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(max_tokens)
}

/// `text`, `reasoning` and `include`.
fn output(fields: &mut Fields, inner: &mut Body, echo: &mut ResponseEcho, ignored: &mut Ignored) -> Read<()> {
    let format = fields.optional("text", |value, at| {
        let mut text = Fields::of(value, at)?;
        let format = text.optional("format", |value, at| {
            parameters::text_format(value, at, ignored, |format, _| parameters::json_schema(format))
        })?;
        text.finish(ignored);
        Ok(format.flatten())
    })?;
    let effort = fields.optional("reasoning", |value, at| {
        let mut reasoning = Fields::of(value, at)?;
        let effort = reasoning.optional("effort", parameters::effort)?;
        echo.summarizes = reasoning.optional("summary", echo::summary)?.unwrap_or(false);
        reasoning.finish(ignored);
        Ok(effort.flatten())
    })?;
    for (name, value) in [("textFormat", format.flatten()), ("effort", effort.flatten())] {
        inner.output.extend(value.map(|value| (name.to_owned(), value)));
    }
    for name in fields.optional("include", json::names)?.unwrap_or_default() {
        match name.as_str() {
            "reasoning.encrypted_content" => echo.seals_reasoning = true,
            "message.output_text.logprobs" => {
                return Err(Path::Root.key("include").refuse("logprobs are not supported by Bedrock"));
            }
            // The others add to items that no answer has.
            _ => ignored.note(&Path::Root.key("include")),
        }
    }
    Ok(())
}

/// `background`, `store` and `truncation`.
fn kept_and_cut(fields: &mut Fields, echo: &mut ResponseEcho, ignored: &mut Ignored) -> Read<()> {
    echo.background = fields.optional("background", json::boolean)?.unwrap_or(false);
    match fields.optional("store", json::boolean)? {
        Some(false) if echo.background => {
            let told = "a background response is stored until it is retrieved; leave it out or send true";
            return Err(Path::Root.key("store").refuse(told));
        }
        // Only background responses are stored.
        Some(true) if !echo.background => ignored.note(&Path::Root.key("store")),
        _ => {}
    }
    if echo.background {
        echo.members.extend(["background", "store"].map(|name| (name.to_owned(), Value::Bool(true))));
    }
    // What is too long is refused by the model.
    fields.optional("truncation", |value, at| match json::string(value, at)?.as_str() {
        "disabled" => Ok(()),
        "auto" => {
            ignored.note(at);
            Ok(())
        }
        other => Err(at.refuse(format_args!("{} is not one of auto, disabled", word(other)))),
    })?;
    Ok(())
}
