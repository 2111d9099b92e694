//! Translates `messages` of a chat completions request to Converse messages and system blocks.

use serde_json::{Value, json};

use super::{parts, tools};
use crate::dialect::{
    converse::{self, ConverseBody},
    json::{self, Fields, Ignored, Path, Read, ValueBudget, sanitized},
    media::DocumentBuilder,
};

/// Reads the messages of one request.
struct MessageReader<'r> {
    documents: DocumentBuilder,
    arguments: ValueBudget,
    ignored: &'r mut Ignored,
}

/// Reads all messages. System and developer messages become `system`, whatever their position. Tool
/// results and adjacent user messages are merged into one user message.
pub fn read(value: Value, at: &Path, inner: &mut ConverseBody, ignored: &mut Ignored) -> Read<()> {
    let mut reader =
        MessageReader { documents: DocumentBuilder::default(), arguments: ValueBudget::for_strings(), ignored };
    for (index, value) in json::array(value, at)?.into_iter().enumerate() {
        reader.message(value, &at.index(index), inner)?;
    }
    if inner.conversation.is_empty() {
        return Err(at.error("needs at least one user message"));
    }
    Ok(())
}

impl MessageReader<'_> {
    fn message(&mut self, value: Value, at: &Path, inner: &mut ConverseBody) -> Read<()> {
        let mut message = Fields::from_value(value, at)?;
        match message.required("role", json::string)?.as_str() {
            "system" | "developer" => inner.system.extend(self.instruction(&mut message, at)?),
            "user" => inner.conversation.push("user", self.non_empty_content(&mut message, at)?),
            "assistant" => {
                let content = self.assistant(&mut message)?;
                // Converse rejects empty messages, so an empty assistant message is left out.
                if !content.is_empty() {
                    inner.conversation.push("assistant", content);
                }
            }
            "tool" => inner.conversation.push("user", self.tool_result(&mut message)?),
            "function" => return Err(at.key("role").error("function is not supported; use tool")),
            unknown => {
                let expected = "expected system, developer, user, assistant or tool";
                return Err(at.key("role").error(format_args!("{} is unknown; {expected}", sanitized(unknown))));
            }
        }
        message.finish(self.ignored);
        Ok(())
    }

    /// Reads the content of a system or user message, which must not be empty.
    fn non_empty_content(&mut self, message: &mut Fields, at: &Path) -> Read<Vec<Value>> {
        let blocks = message.required("content", |value, at| self.content(value, at))?;
        if blocks.is_empty() {
            return Err(at.key("content").error("is empty"));
        }
        Ok(blocks)
    }

    fn instruction(&mut self, message: &mut Fields, at: &Path) -> Read<Vec<Value>> {
        let blocks = self.non_empty_content(message, at)?;
        parts::only_text(blocks, &at.key("content"))
    }

    fn assistant(&mut self, message: &mut Fields) -> Read<Vec<Value>> {
        message.reject("function_call", "is not supported; use tool_calls")?;
        message.reject("audio", "audio is not supported")?;
        let mut blocks = message.optional("content", |value, at| self.content(value, at))?.unwrap_or_default();
        blocks.extend(message.optional("refusal", json::string)?.and_then(converse::text));
        let calls = message.optional("tool_calls", |value, at| {
            let calls = json::array(value, at)?.into_iter().enumerate();
            calls.map(|(index, value)| self.tool_call(value, &at.index(index))).collect::<Read<Vec<_>>>()
        })?;
        blocks.extend(calls.unwrap_or_default());
        Ok(blocks)
    }

    fn tool_call(&mut self, value: Value, at: &Path) -> Read<Value> {
        let mut call = Fields::from_value(value, at)?;
        tools::function_type(&mut call, at)?;
        let id = call.required("id", json::name)?;
        let (name, input) = call.required("function", |value, at| {
            let mut function = Fields::from_value(value, at)?;
            let name = function.required("name", json::name)?;
            let arguments = |value, at: &Path| parts::arguments(value, at, &mut self.arguments);
            let input = function.optional("arguments", arguments)?.unwrap_or_else(|| json!({}));
            function.finish(self.ignored);
            Ok((name, input))
        })?;
        call.finish(self.ignored);
        Ok(parts::tool_use(&id, &name, input))
    }

    fn tool_result(&mut self, message: &mut Fields) -> Read<Vec<Value>> {
        let id = message.required("tool_call_id", json::name)?;
        let content = message.optional("content", |value, at| self.content(value, at))?.unwrap_or_default();
        Ok(parts::tool_result(&id, content))
    }

    fn content(&mut self, value: Value, at: &Path) -> Read<Vec<Value>> {
        parts::content(value, at, |part, at, blocks| self.part(part, at, blocks))
    }

    fn part(&mut self, value: Value, at: &Path, blocks: &mut Vec<Value>) -> Read<()> {
        let mut part = Fields::from_value(value, at)?;
        let kind = part.required("type", json::string)?;
        match kind.as_str() {
            "text" => blocks.extend(converse::text(part.required("text", json::string)?)),
            "refusal" => blocks.extend(converse::text(part.required("refusal", json::string)?)),
            "image_url" => blocks.push(part.required("image_url", |value, at| self.image(value, at))?),
            "file" => blocks.push(part.required("file", |value, at| self.file(value, at))?),
            unknown => {
                let expected = "expected text, image_url or file";
                return Err(at.key("type").error(format_args!("{} is not supported; {expected}", sanitized(unknown))));
            }
        }
        blocks.extend(part.optional("cache_control", converse::cache_point)?);
        part.finish(self.ignored);
        Ok(())
    }

    fn image(&mut self, value: Value, at: &Path) -> Read<Value> {
        let mut image = Fields::from_value(value, at)?;
        let block = image.required("url", parts::image)?;
        image.finish(self.ignored);
        Ok(block)
    }

    fn file(&mut self, value: Value, at: &Path) -> Read<Value> {
        let mut file = Fields::from_value(value, at)?;
        let block = parts::file(&mut file, at, &mut self.documents)?;
        file.finish(self.ignored);
        Ok(block)
    }
}
