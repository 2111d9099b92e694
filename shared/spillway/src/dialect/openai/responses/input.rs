//! `input` of a responses request: text, or the items of a conversation, as Converse turns and system blocks.

use serde_json::{Value, json};

use super::echo::{ResponseEcho, model_name};
use super::{sealed, tools};
use crate::dialect::converse::{self, Body};
use crate::dialect::json::{self, Fields, Ignored, Path, Read, echo};
use crate::dialect::media::Documents;
use crate::dialect::openai::parts;

/// What the items of one request share while they are read.
struct Reader<'r> {
    inner: &'r mut Body,
    echo: &'r mut ResponseEcho,
    ignored: &'r mut Ignored,
    documents: Documents,
}

/// Reads the whole input.
pub fn read(value: Value, at: &Path, inner: &mut Body, echo: &mut ResponseEcho, ignored: &mut Ignored) -> Read<()> {
    match value {
        Value::String(text) => inner.turns.push("user", vec![json!({"text": json::name(text.into(), at)?})]),
        Value::Array(items) => {
            let mut reader = Reader { inner, echo, ignored, documents: Documents::default() };
            for (index, item) in items.into_iter().enumerate() {
                reader.item(item, &at.index(index))?;
            }
        }
        other => return Err(at.mistyped("a string or an array of items", &other)),
    }
    if inner.turns.is_empty() {
        return Err(at.refuse("needs at least one message of the user"));
    }
    Ok(())
}

impl Reader<'_> {
    fn item(&mut self, value: Value, at: &Path) -> Read<()> {
        let mut item = Fields::of(value, at)?;
        let kind = item.optional("type", json::string)?.unwrap_or_else(|| "message".to_owned());
        // What we gave an item of ours, and its sender has no need to change.
        for ours in ["id", "status"] {
            item.take(ours);
        }
        match kind.as_str() {
            "message" => self.message(&mut item, at)?,
            "function_call" => self.call(&mut item, "arguments", parts::arguments)?,
            "custom_tool_call" => self.call(&mut item, "input", free_text)?,
            "function_call_output" | "custom_tool_call_output" => self.output(&mut item)?,
            "reasoning" => self.reasoning(&mut item, at)?,
            "additional_tools" => {
                item.take("role");
                let Self { inner, echo, ignored, .. } = self;
                let mut reader = tools::Reader { inner, echo, ignored };
                item.required("tools", |value, at| reader.tools(value, at, None))?;
            }
            "item_reference" => {
                let told = "item references are not supported, since no response is stored; send the item itself";
                return Err(at.key("type").refuse(told));
            }
            other => {
                let expected = "expected message, function_call, function_call_output, custom_tool_call, \
                                custom_tool_call_output or reasoning";
                return Err(at.key("type").refuse(format_args!("{} is not supported; {expected}", echo(other))));
            }
        }
        item.finish(self.ignored);
        Ok(())
    }

    fn message(&mut self, message: &mut Fields, at: &Path) -> Read<()> {
        let role = message.required("role", json::string)?;
        let content = message.required("content", |value, at| self.content(value, at))?;
        let at_content = at.key("content");
        match (role.as_str(), content.is_empty()) {
            // An empty message says nothing, and Converse refuses it.
            ("assistant", true) => {}
            ("assistant", false) => self.inner.turns.push("assistant", content),
            ("system" | "developer" | "user", true) => return Err(at_content.refuse("is empty")),
            ("user", false) => self.inner.turns.push("user", content),
            ("system" | "developer", false) => self.inner.system.extend(parts::only_text(content, &at_content)?),
            (other, _) => {
                let expected = "expected system, developer, user or assistant";
                return Err(at.key("role").refuse(format_args!("{} is unknown; {expected}", echo(other))));
            }
        }
        Ok(())
    }

    fn call(&mut self, call: &mut Fields, name: &str, input: fn(Value, &Path) -> Read<Value>) -> Read<()> {
        let id = call.required("call_id", json::name)?;
        let namespace = call.optional("namespace", json::name)?;
        let tool = model_name(namespace.as_deref(), &call.required("name", json::name)?);
        let input = call.required(name, input)?;
        self.inner.turns.push("assistant", vec![parts::tool_use(&id, &tool, input)]);
        Ok(())
    }

    fn output(&mut self, output: &mut Fields) -> Read<()> {
        let id = output.required("call_id", json::name)?;
        for known in ["name", "namespace"] {
            output.take(known);
        }
        let content = output.required("output", |value, at| self.content(value, at))?;
        self.inner.turns.push("user", parts::tool_result(&id, content));
        Ok(())
    }

    /// Reasoning goes back to the model only as it came from it: without its signature the model refuses it.
    fn reasoning(&mut self, reasoning: &mut Fields, at: &Path) -> Read<()> {
        for told in ["summary", "content"] {
            reasoning.take(told);
        }
        let word = reasoning.optional("encrypted_content", json::string)?;
        match word.and_then(|word| sealed::unseal(&word)) {
            Some(content) => self.inner.turns.push("assistant", vec![json!({"reasoningContent": content})]),
            None => self.ignored.note(&at.key("reasoning")),
        }
        Ok(())
    }

    fn content(&mut self, value: Value, at: &Path) -> Read<Vec<Value>> {
        parts::content(value, at, |part, at, blocks| self.part(part, at, blocks))
    }

    fn part(&mut self, value: Value, at: &Path, blocks: &mut Vec<Value>) -> Read<()> {
        let mut part = Fields::of(value, at)?;
        match part.required("type", json::string)?.as_str() {
            "input_text" | "output_text" => blocks.extend(converse::text(part.required("text", json::string)?)),
            "refusal" => blocks.extend(converse::text(part.required("refusal", json::string)?)),
            "input_image" => {
                part.refuse("file_id", "stored files are not supported; send image_url")?;
                blocks.push(part.required("image_url", parts::image)?);
                self.detail(&mut part, at)?;
            }
            "input_file" => {
                blocks.push(parts::file(&mut part, at, &mut self.documents)?);
                self.detail(&mut part, at)?;
            }
            other => {
                let expected = "expected input_text, input_image, input_file, output_text or refusal";
                return Err(at.key("type").refuse(format_args!("{} is not supported; {expected}", echo(other))));
            }
        }
        blocks.extend(part.optional("cache_control", converse::cache_point)?);
        part.finish(self.ignored);
        Ok(())
    }

    /// How closely to look is the model's own choice, which `auto` leaves to it.
    fn detail(&mut self, part: &mut Fields, at: &Path) -> Read<()> {
        match part.optional("detail", json::string)? {
            Some(detail) if detail != "auto" => self.ignored.note(&at.key("detail")),
            _ => {}
        }
        Ok(())
    }
}

/// The input of a custom tool, as the function that it is to the model takes it.
fn free_text(value: Value, at: &Path) -> Read<Value> {
    Ok(json!({"input": json::string(value, at)?}))
}
