//! Translates the content blocks of a messages request to Converse blocks.

use serde_json::{Value, json};

use crate::dialect::{
    converse,
    json::{self, Fields, Ignored, Path, Read, object_of, sanitized},
    media::{self, DocumentBuilder},
};

/// Reads the content blocks of one request.
pub struct BlockReader<'r> {
    documents: DocumentBuilder,
    pub ignored: &'r mut Ignored,
}

impl<'r> BlockReader<'r> {
    /// Creates a reader that lists ignored parameters in `ignored`.
    pub fn new(ignored: &'r mut Ignored) -> Self {
        Self { documents: DocumentBuilder::default(), ignored }
    }

    /// Reads the system prompt: a string or text blocks.
    pub fn system(&mut self, value: Value, at: &Path) -> Read<Vec<Value>> {
        self.each(value, at, |_, fields, kind, at| match kind {
            "text" => Ok(converse::text(fields.required("text", json::string)?)),
            unknown => {
                Err(at.key("type").error(format_args!("{} is not supported; expected text", sanitized(unknown))))
            }
        })
    }

    /// Reads the content of a message: a string or blocks.
    pub fn content(&mut self, value: Value, at: &Path) -> Read<Vec<Value>> {
        self.each(value, at, Self::block)
    }

    /// Reads a string or blocks. The `cache_control` of a block becomes a cache point after it.
    fn each(
        &mut self,
        value: Value,
        at: &Path,
        read: impl Fn(&mut Self, &mut Fields, &str, &Path) -> Read<Option<Value>>,
    ) -> Read<Vec<Value>> {
        let elements = match value {
            Value::String(text) => return Ok(converse::text(text).into_iter().collect()),
            Value::Array(elements) => elements,
            value => return Err(at.mistyped("a string or an array of content blocks", &value)),
        };
        let mut blocks = Vec::with_capacity(elements.len());
        for (index, element) in elements.into_iter().enumerate() {
            let at = at.index(index);
            let mut fields = Fields::from_value(element, &at)?;
            let kind = fields.required("type", json::string)?;
            blocks.extend(read(self, &mut fields, &kind, &at)?);
            blocks.extend(fields.optional("cache_control", converse::cache_point)?);
            fields.finish(self.ignored);
        }
        Ok(blocks)
    }

    fn block(&mut self, fields: &mut Fields, kind: &str, at: &Path) -> Read<Option<Value>> {
        let block = match kind {
            "text" => return Ok(converse::text(fields.required("text", json::string)?)),
            "image" => fields.required("source", |value, at| self.image(value, at))?,
            "document" => self.document(fields)?,
            "tool_use" => {
                let id = fields.required("id", json::name)?;
                let name = fields.required("name", json::name)?;
                let input = fields.required("input", json::object)?;
                object_of([(
                    "toolUse",
                    object_of([("toolUseId", id.into()), ("name", name.into()), ("input", Value::Object(input))]),
                )])
            }
            "tool_result" => self.tool_result(fields)?,
            "thinking" => reasoning(fields)?,
            "redacted_thinking" => {
                let data = fields.required("data", |value, at| media::base64_data(json::string(value, at)?, at))?;
                json!({"reasoningContent": {"redactedContent": data}})
            }
            unknown => {
                let expected = "expected text, image, document, tool_use, tool_result, thinking or redacted_thinking";
                return Err(at.key("type").error(format_args!("{} is not supported; {expected}", sanitized(unknown))));
            }
        };
        Ok(Some(block))
    }

    fn image(&mut self, value: Value, at: &Path) -> Read<Value> {
        let mut source = Fields::from_value(value, at)?;
        match source.required("type", json::string)?.as_str() {
            "base64" => {}
            unknown => return Err(not_inline(unknown, at)),
        }
        let media_type = source.required("media_type", json::string)?;
        let data = source.required("data", json::string)?;
        source.finish(self.ignored);
        media::image(&media_type, data, &at.key("data"))
    }

    fn document(&mut self, fields: &mut Fields) -> Read<Value> {
        let (format, source) = fields.required("source", |value, at| self.document_source(value, at))?;
        let title = fields.optional("title", json::string)?;
        let mut document = self.documents.block(format, title.as_deref(), source);
        if let Some(context) = fields.optional("context", json::name)? {
            document["context"] = Value::String(context);
        }
        if let Some(citations) = fields.optional("citations", json::object)? {
            document["citations"] = Value::Object(citations);
        }
        Ok(object_of([("document", document)]))
    }

    /// Reads the source of a document. Returns its format and its Converse source.
    fn document_source(&mut self, value: Value, at: &Path) -> Read<(&'static str, Value)> {
        let mut source = Fields::from_value(value, at)?;
        let kind = source.required("type", json::string)?;
        let document = match kind.as_str() {
            "base64" => {
                let media_type = source.required("media_type", json::string)?;
                let data = source.required("data", |value, at| media::base64_data(json::string(value, at)?, at))?;
                (media::document_format(&media_type, &at.key("media_type"))?, object_of([("bytes", data.into())]))
            }
            "text" => {
                source.optional("media_type", json::string)?;
                ("txt", object_of([("text", source.required("data", json::name)?.into())]))
            }
            "content" => {
                let content = source.required("content", |value, at| self.content(value, at))?;
                if content.iter().any(|block| block.get("text").is_none()) {
                    return Err(at.key("content").error("only text blocks without cache_control are supported here"));
                }
                ("txt", object_of([("content", Value::Array(content))]))
            }
            unknown => return Err(not_inline(unknown, at)),
        };
        source.finish(self.ignored);
        Ok(document)
    }

    fn tool_result(&mut self, fields: &mut Fields) -> Read<Value> {
        let id = fields.required("tool_use_id", json::name)?;
        let content = fields.optional("content", |value, at| {
            let mut blocks = self.content(value, at)?;
            let before = blocks.len();
            // Converse has no cache points inside a result, only after it.
            blocks.retain(|block| block.get("cachePoint").is_none());
            if blocks.len() < before {
                self.ignored.note(&at.index(0).key("cache_control"));
            }
            let is_allowed =
                |block: &Value| ["text", "image", "document"].iter().any(|member| block.get(member).is_some());
            if !blocks.iter().all(is_allowed) {
                return Err(at.error("a tool result takes only text, image and document blocks"));
            }
            Ok(blocks)
        })?;
        let content = Value::Array(content.unwrap_or_default());
        let mut result = object_of([("toolUseId", id.into()), ("content", content)]);
        if fields.optional("is_error", json::boolean)? == Some(true) {
            result["status"] = json!("error");
        }
        Ok(object_of([("toolResult", result)]))
    }
}

fn reasoning(fields: &mut Fields) -> Read<Value> {
    let mut reasoning = object_of([("text", fields.required("thinking", json::string)?.into())]);
    if let Some(signature) = fields.optional("signature", json::string)?.filter(|signature| !signature.is_empty()) {
        reasoning["signature"] = Value::String(signature);
    }
    Ok(object_of([("reasoningContent", object_of([("reasoningText", reasoning)]))]))
}

fn not_inline(kind: &str, at: &Path) -> crate::problem::Problem {
    let text = "sources are not supported; Bedrock fetches no URLs, so send the data as base64";
    at.key("type").error(format_args!("{} {text}", sanitized(kind)))
}
