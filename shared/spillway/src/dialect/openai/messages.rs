//! `messages` of a chat completions request, as Converse turns and system blocks.

use serde_json::{Value, json};

use super::tools;
use crate::dialect::converse::{self, Body};
use crate::dialect::json::{self, Fields, Ignored, Path, Read, echo};
use crate::dialect::media::{self, Documents};

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
        match blocks.iter().all(|block| block.get("text").is_some() || is_cache_point(block)) {
            true => Ok(blocks),
            false => Err(at.key("content").refuse("a system message takes only text")),
        }
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
            let input = function.optional("arguments", arguments)?.unwrap_or_else(|| json!({}));
            function.finish(self.ignored);
            Ok((name, input))
        })?;
        call.finish(self.ignored);
        Ok(json!({"toolUse": {"toolUseId": id, "name": name, "input": input}}))
    }

    fn tool_result(&mut self, message: &mut Fields) -> Read<Vec<Value>> {
        let id = message.required("tool_call_id", json::name)?;
        let content = message.optional("content", |value, at| self.content(value, at))?.unwrap_or_default();
        // Converse has no cache points inside a result, only behind it.
        let (points, content): (Vec<_>, Vec<_>) = content.into_iter().partition(is_cache_point);
        let result = json!({"toolResult": {"toolUseId": id, "content": content}});
        Ok(std::iter::once(result).chain(points.into_iter().next_back()).collect())
    }

    fn content(&mut self, value: Value, at: &Path) -> Read<Vec<Value>> {
        match value {
            Value::String(text) => Ok(converse::text(text).into_iter().collect()),
            Value::Array(parts) => {
                let mut blocks = Vec::with_capacity(parts.len());
                for (index, part) in parts.into_iter().enumerate() {
                    self.part(part, &at.index(index), &mut blocks)?;
                }
                Ok(blocks)
            }
            other => Err(at.mistyped("a string or an array of parts", &other)),
        }
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
        let (media_type, data) = image.required("url", |value, at| media::data_url(&json::string(value, at)?, at))?;
        image.finish(self.ignored);
        media::image(&media_type, data, &at.key("url"))
    }

    fn file(&mut self, value: Value, at: &Path) -> Read<Value> {
        let mut file = Fields::of(value, at)?;
        file.refuse("file_id", "stored files are not supported; send file_data")?;
        let source = |value, at: &Path| media::data_url(&json::string(value, at)?, at);
        let (media_type, data) = file.required("file_data", source)?;
        let title = file.optional("filename", json::string)?;
        file.finish(self.ignored);
        let at = at.key("file_data");
        let (format, data) = (media::document_format(&media_type, &at)?, media::base64_data(data, &at)?);
        Ok(json!({"document": self.documents.block(format, title.as_deref(), json!({"bytes": data}))}))
    }
}

fn is_cache_point(block: &Value) -> bool {
    block.get("cachePoint").is_some()
}

/// The arguments of a call, which OpenAI sends as JSON inside a string.
fn arguments(value: Value, at: &Path) -> Read<Value> {
    let text = json::string(value, at)?;
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_str(&text) {
        Ok(input @ Value::Object(_)) => Ok(input),
        Ok(other) => Err(at.mistyped("a JSON object inside the string", &other)),
        Err(_) => Err(at.refuse("is not valid JSON inside the string")),
    }
}
