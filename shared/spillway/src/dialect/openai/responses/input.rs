//! Translates `input` of a responses request, which is text or a list of items, to Converse
//! messages and system blocks.

use serde_json::{Value, json};

use super::{encrypted_reasoning, request::RequestReader, tools::model_name};
use crate::dialect::{
    converse,
    json::{self, Fields, Path, Read, sanitized},
    openai::parts,
};

impl RequestReader<'_> {
    /// Reads the whole input.
    pub fn input(&mut self, value: Value, at: &Path) -> Read<()> {
        match value {
            Value::String(text) => {
                let text = json::name(text.into(), at)?;
                self.inner.conversation.push("user", vec![json!({"text": text})]);
            }
            Value::Array(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    self.item(item, &at.index(index))?;
                }
            }
            value => return Err(at.mistyped("a string or an array of items", &value)),
        }
        if self.inner.conversation.is_empty() {
            return Err(at.error("needs at least one user message"));
        }
        Ok(())
    }

    fn item(&mut self, value: Value, at: &Path) -> Read<()> {
        let mut item = Fields::from_value(value, at)?;
        let kind = item.optional("type", json::string)?.unwrap_or_else(|| "message".to_owned());
        // Output items have these members. They have no meaning in a request.
        for member in ["id", "status"] {
            item.take(member);
        }
        match kind.as_str() {
            "message" => self.message(&mut item, at)?,
            "function_call" => {
                let arguments = |value, at: &Path| parts::arguments(value, at, &mut self.arguments);
                let input = item.required("arguments", arguments)?;
                self.call(&mut item, input)?;
            }
            "custom_tool_call" => {
                let input = item.required("input", free_text)?;
                self.call(&mut item, input)?;
            }
            "function_call_output" | "custom_tool_call_output" => self.output(&mut item)?,
            "reasoning" => self.reasoning(&mut item, at)?,
            "additional_tools" => {
                item.take("role");
                item.required("tools", |value, at| self.tools(value, at, None))?;
            }
            "item_reference" => {
                let text = "item references are not supported, because items are not stored; send the item itself";
                return Err(at.key("type").error(text));
            }
            unknown => {
                let expected = "expected message, function_call, function_call_output, custom_tool_call, \
                                custom_tool_call_output or reasoning";
                return Err(at.key("type").error(format_args!("{} is not supported; {expected}", sanitized(unknown))));
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
            // Converse rejects empty messages, so an empty assistant message is left out.
            ("assistant", true) => {}
            ("assistant", false) => self.inner.conversation.push("assistant", content),
            ("system" | "developer" | "user", true) => return Err(at_content.error("is empty")),
            ("user", false) => self.inner.conversation.push("user", content),
            ("system" | "developer", false) => self.inner.system.extend(parts::only_text(content, &at_content)?),
            (unknown, _) => {
                let expected = "expected system, developer, user or assistant";
                return Err(at.key("role").error(format_args!("{} is unknown; {expected}", sanitized(unknown))));
            }
        }
        Ok(())
    }

    fn call(&mut self, call: &mut Fields, input: Value) -> Read<()> {
        let id = call.required("call_id", json::name)?;
        let namespace = call.optional("namespace", json::name)?;
        let tool = model_name(namespace.as_deref(), &call.required("name", json::name)?);
        self.inner.conversation.push("assistant", vec![parts::tool_use(&id, &tool, input)]);
        Ok(())
    }

    fn output(&mut self, output: &mut Fields) -> Read<()> {
        let id = output.required("call_id", json::name)?;
        for member in ["name", "namespace"] {
            output.take(member);
        }
        let content = output.required("output", |value, at| self.content(value, at))?;
        self.inner.conversation.push("user", parts::tool_result(&id, content));
        Ok(())
    }

    /// Reads reasoning. The model takes its reasoning back only unchanged, with its signature.
    fn reasoning(&mut self, reasoning: &mut Fields, at: &Path) -> Read<()> {
        for member in ["summary", "content"] {
            reasoning.take(member);
        }
        let encrypted = reasoning.optional("encrypted_content", json::string)?;
        match encrypted.and_then(|encrypted| encrypted_reasoning::decode(&encrypted)) {
            Some(content) => self.inner.conversation.push("assistant", vec![json!({"reasoningContent": content})]),
            None => self.ignored.note(&at.key("reasoning")),
        }
        Ok(())
    }

    fn content(&mut self, value: Value, at: &Path) -> Read<Vec<Value>> {
        parts::content(value, at, |part, at, blocks| self.part(part, at, blocks))
    }

    fn part(&mut self, value: Value, at: &Path, blocks: &mut Vec<Value>) -> Read<()> {
        let mut part = Fields::from_value(value, at)?;
        match part.required("type", json::string)?.as_str() {
            "input_text" | "output_text" => blocks.extend(converse::text(part.required("text", json::string)?)),
            "refusal" => blocks.extend(converse::text(part.required("refusal", json::string)?)),
            "input_image" => {
                part.reject("file_id", "stored files are not supported; send image_url")?;
                blocks.push(part.required("image_url", parts::image)?);
                self.detail(&mut part, at)?;
            }
            "input_file" => {
                blocks.push(parts::file(&mut part, at, &mut self.documents)?);
                self.detail(&mut part, at)?;
            }
            unknown => {
                let expected = "expected input_text, input_image, input_file, output_text or refusal";
                return Err(at.key("type").error(format_args!("{} is not supported; {expected}", sanitized(unknown))));
            }
        }
        blocks.extend(part.optional("cache_control", converse::cache_point)?);
        part.finish(self.ignored);
        Ok(())
    }

    /// Reads the level of detail. The model chooses it, as with `auto`.
    fn detail(&mut self, part: &mut Fields, at: &Path) -> Read<()> {
        match part.optional("detail", json::string)? {
            Some(detail) if detail != "auto" => self.ignored.note(&at.key("detail")),
            _ => {}
        }
        Ok(())
    }
}

/// Reads the input of a custom tool, as the arguments of the function that the model sees.
fn free_text(value: Value, at: &Path) -> Read<Value> {
    Ok(json!({"input": json::string(value, at)?}))
}
