//! `messages` of a chat completions request, as Converse turns and system blocks.

use serde_json::{Value, json};

use super::{parts, tools};
use crate::dialect::converse::{self, Body};
use crate::dialect::json::{self, Fields, Ignored, Path, Read, echo};
use crate::dialect::media::Documents;

/// What the messages of one request share while they are read.
struct Reader<'r> {
    documents: Documents,
    ignored: &'r mut Ignored,
}

/// Reads all messages. System and developer messages become `system`, wherever they stand; results of tools become
/// one user message with what surrounds them.
pub fn read(value: Value, at: &Path, inner: &mut Body, ignored: &mut Ignored) -> Read<()> {
    let mut reader = Reader { documents: Documents::default(), ignored };
    for (index, value) in json::array(value, at)?.into_iter().enumerate() {
        reader.message(value, &at.index(index), inner)?;
    }
    if inner.turns.is_empty() {
        return Err(at.refuse("needs at least one message of the user"));
    }
    Ok(())
}

impl Reader<'_> {
    fn message(&mut self, value: Value, at: &Path, inner: &mut Body) -> Read<()> {
        let mut message = Fields::of(value, at)?;
        match message.required("role", json::string)?.as_str() {
            "system" | "developer" => inner.system.extend(self.instruction(&mut message, at)?),
            "user" => inner.turns.push("user", self.spoken(&mut message, at)?),
            "assistant" => {
                let content = self.assistant(&mut message)?;
                // An empty message says nothing, and Converse refuses it.
                if !content.is_empty() {
                    inner.turns.push("assistant", content);
                }
            }
            "tool" => inner.turns.push("user", self.tool_result(&mut message)?),
            "function" => return Err(at.key("role").refuse("function is not supported; use tool")),
            other => {
                let expected = "expected system, developer, user, assistant or tool";
                return Err(at.key("role").refuse(format_args!("{} is unknown; {expected}", echo(other))));
            }
        }
        message.finish(self.ignored);
        Ok(())
    }

    /// The content of a system or user message, which must say something.
    fn spoken(&mut self, message: &mut Fields, at: &Path) -> Read<Vec<Value>> {
        let blocks = message.required("content", |value, at| self.content(value, at))?;
        if blocks.is_empty() {
            return Err(at.key("content").refuse("is empty"));
        }
        Ok(blocks)
    }

    fn instruction(&mut self, message: &mut Fields, at: &Path) -> Read<Vec<Value>> {
        let blocks = self.spoken(message, at)?;
        parts::only_text(blocks, &at.key("content"))
    }

    fn assistant(&mut self, message: &mut Fields) -> Read<Vec<Value>> {
        message.refuse("function_call", "is not supported; use tool_calls")?;
        message.refuse("audio", "audio is not supported")?;
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
        let mut call = Fields::of(value, at)?;
        tools::function_type(&mut call, at)?;
        let id = call.required("id", json::name)?;
        let (name, input) = call.required("function", |value, at| {
            let mut function = Fields::of(value, at)?;
            let name = function.required("name", json::name)?;
            let input = function.optional("arguments", parts::arguments)?.unwrap_or_else(|| json!({}));
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
        let mut part = Fields::of(value, at)?;
        let kind = part.required("type", json::string)?;
        match kind.as_str() {
            "text" => blocks.extend(converse::text(part.required("text", json::string)?)),
            "refusal" => blocks.extend(converse::text(part.required("refusal", json::string)?)),
            "image_url" => blocks.push(part.required("image_url", |value, at| self.image(value, at))?),
            "file" => blocks.push(part.required("file", |value, at| self.file(value, at))?),
            other => {
                let expected = "expected text, image_url or file";
                return Err(at.key("type").refuse(format_args!("{} is not supported; {expected}", echo(other))));
            }
        }
        blocks.extend(part.optional("cache_control", converse::cache_point)?);
        part.finish(self.ignored);
        Ok(())
    }

    fn image(&mut self, value: Value, at: &Path) -> Read<Value> {
        let mut image = Fields::of(value, at)?;
        let block = image.required("url", parts::image)?;
        image.finish(self.ignored);
        Ok(block)
    }

    fn file(&mut self, value: Value, at: &Path) -> Read<Value> {
        let mut file = Fields::of(value, at)?;
        let block = parts::file(&mut file, at, &mut self.documents)?;
        file.finish(self.ignored);
        Ok(block)
    }
}
