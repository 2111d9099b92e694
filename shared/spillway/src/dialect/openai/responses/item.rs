//! Output items of a response, and the events that stream their text.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{encrypted_reasoning, response::ResponseEcho};
use crate::dialect::reply::{self, Block};

/// An output item, complete or under construction.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputItem {
    /// Text of the model, up to its next item of another kind.
    Message(String),
    /// Reasoning, with the model's signature.
    Reasoning { text: String, signature: String },
    /// Reasoning that the model keeps secret.
    Redacted(String),
    /// A tool call; `input` is JSON.
    Call { id: String, name: String, input: String },
}

/// Returns the items of a complete answer.
pub fn items(body: &Value) -> Vec<OutputItem> {
    let mut items = Vec::new();
    for block in reply::blocks(body) {
        match (block, items.last_mut()) {
            (Block::Text(text), _) if text.is_empty() => {}
            (Block::Text(text), Some(OutputItem::Message(message))) => message.push_str(&text),
            (Block::Text(text), _) => items.push(OutputItem::Message(text.into_owned())),
            (Block::Reasoning { text, signature }, _) => {
                items.push(OutputItem::Reasoning { text: text.to_owned(), signature: signature.to_owned() });
            }
            (Block::Redacted(data), _) => items.push(OutputItem::Redacted(data.to_owned())),
            (Block::ToolUse { id, name, input }, _) => {
                let input = if input.is_null() { "{}".to_owned() } else { input.to_string() };
                items.push(OutputItem::Call { id: id.to_owned(), name: name.to_owned(), input });
            }
        }
    }
    items
}

impl OutputItem {
    /// Returns the id of the item at `index` of a response.
    pub fn id(&self, request_id: &str, index: usize, echo: &ResponseEcho) -> String {
        let kind = match self {
            Self::Message(_) => "msg",
            Self::Reasoning { .. } | Self::Redacted(_) => "rs",
            Self::Call { name, .. } if echo.is_custom(name) => "ctc",
            Self::Call { .. } => "fc",
        };
        format!("{kind}_{request_id}_{index}")
    }

    /// Returns the text of the item as the caller reads it.
    pub fn text(&self, echo: &ResponseEcho) -> Cow<'_, str> {
        match self {
            Self::Message(text) | Self::Reasoning { text, .. } => text.into(),
            Self::Redacted(_) => "".into(),
            Self::Call { name, input, .. } if echo.is_custom(name) => free_text(input).into(),
            Self::Call { input, .. } => input.into(),
        }
    }

    /// Returns the part that holds the text, if the item has parts.
    pub fn part(&self, text: &str, echo: &ResponseEcho) -> Option<Value> {
        match self {
            Self::Message(_) => Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})),
            Self::Reasoning { .. } if echo.has_summary => Some(json!({"type": "summary_text", "text": text})),
            Self::Reasoning { .. } => Some(json!({"type": "reasoning_text", "text": text})),
            Self::Redacted(_) | Self::Call { .. } => None,
        }
    }

    /// Renders the item with the content that it has so far.
    pub fn render(&self, id: &str, status: &str, echo: &ResponseEcho) -> Value {
        let text = self.text(echo);
        let parts: Vec<Value> = self.part(&text, echo).into_iter().filter(|_| !text.is_empty()).collect();
        match self {
            Self::Message(_) => {
                json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": parts})
            }
            Self::Reasoning { text, signature } => {
                reasoning(id, parts, || encrypted_reasoning::signed(text, signature), echo)
            }
            Self::Redacted(data) => reasoning(id, parts, || encrypted_reasoning::redacted(data), echo),
            Self::Call { id: call_id, name, .. } => {
                let tool = echo.tool(name);
                let (kind, content) = match echo.is_custom(name) {
                    true => ("custom_tool_call", "input"),
                    false => ("function_call", "arguments"),
                };
                let name = tool.map_or(name, |tool| &tool.name);
                let mut call = json!({"id": id, "type": kind, "status": status, "call_id": call_id, "name": name});
                call[content] = json!(text);
                if let Some(namespace) = tool.and_then(|tool| tool.namespace.as_ref()) {
                    call["namespace"] = json!(namespace);
                }
                call
            }
        }
    }
}

fn reasoning(id: &str, parts: Vec<Value>, content: impl FnOnce() -> Value, echo: &ResponseEcho) -> Value {
    let mut item = json!({"id": id, "type": "reasoning", "summary": []});
    if !parts.is_empty() {
        item[if echo.has_summary { "summary" } else { "content" }] = json!(parts);
    }
    if echo.has_encrypted_reasoning {
        item["encrypted_content"] = json!(encrypted_reasoning::encode(&content()));
    }
    item
}

/// Reads the text for a custom tool from the input of the function that the model calls.
fn free_text(input: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(input).ok();
    let text = parsed.as_ref().and_then(|input| input.get("input")?.as_str());
    text.unwrap_or(input).to_owned()
}

/// Names of the events that stream the text of one kind of item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextEvents {
    /// Prefix of the events that open and close the part with the text; empty if the item has no
    /// parts.
    pub part: &'static str,
    /// The member with the number of the part.
    pub index: Option<&'static str>,
    /// Prefix of the events with the text.
    pub text: &'static str,
    /// The member with the whole text in the last event.
    pub whole: &'static str,
    /// Whether the text is sent in deltas as it arrives.
    pub has_deltas: bool,
}

/// The events of a message.
pub const MESSAGE: TextEvents = TextEvents {
    part: "response.content_part",
    index: Some("content_index"),
    text: "response.output_text",
    whole: "text",
    has_deltas: true,
};

const REASONING: TextEvents = TextEvents { text: "response.reasoning_text", ..MESSAGE };

const SUMMARY: TextEvents = TextEvents {
    part: "response.reasoning_summary_part",
    index: Some("summary_index"),
    text: "response.reasoning_summary_text",
    ..MESSAGE
};

const ARGUMENTS: TextEvents = TextEvents {
    part: "",
    index: None,
    text: "response.function_call_arguments",
    whole: "arguments",
    has_deltas: true,
};

/// The events of a custom tool call. The model writes the text inside JSON, so it can be read only
/// when it is complete.
const FREE_TEXT: TextEvents =
    TextEvents { text: "response.custom_tool_call_input", whole: "input", has_deltas: false, ..ARGUMENTS };

impl TextEvents {
    /// Returns the events for an item.
    pub fn for_item(item: &OutputItem, echo: &ResponseEcho) -> Self {
        match item {
            OutputItem::Message(_) => MESSAGE,
            OutputItem::Reasoning { .. } | OutputItem::Redacted(_) if echo.has_summary => SUMMARY,
            OutputItem::Reasoning { .. } | OutputItem::Redacted(_) => REASONING,
            OutputItem::Call { name, .. } if echo.is_custom(name) => FREE_TEXT,
            OutputItem::Call { .. } => ARGUMENTS,
        }
    }
}
