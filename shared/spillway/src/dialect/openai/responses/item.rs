//! The items of a response: what a model says, in OpenAI's words.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::echo::ResponseEcho;
use super::sealed;
use crate::dialect::reply::{self, Block};

/// One item, complete or as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// What the model says, all of it until it does something else.
    Message(String),
    /// What it thinks, with the model's signature.
    Reasoning { text: String, signature: String },
    /// What it thinks and nobody may read.
    Redacted(String),
    /// A call of a tool; `input` is JSON.
    Call { id: String, name: String, input: String },
}

/// The items of a complete answer.
pub fn items(body: &Value) -> Vec<Item> {
    let mut items = Vec::new();
    for block in reply::blocks(body) {
        match (block, items.last_mut()) {
            (Block::Text(text), _) if text.is_empty() => {}
            (Block::Text(text), Some(Item::Message(said))) => said.push_str(&text),
            (Block::Text(text), _) => items.push(Item::Message(text.into_owned())),
            (Block::Reasoning { text, signature }, _) => {
                items.push(Item::Reasoning { text: text.to_owned(), signature: signature.to_owned() });
            }
            (Block::Redacted(data), _) => items.push(Item::Redacted(data.to_owned())),
            (Block::ToolUse { id, name, input }, _) => {
                let input = if input.is_null() { "{}".to_owned() } else { input.to_string() };
                items.push(Item::Call { id: id.to_owned(), name: name.to_owned(), input });
            }
        }
    }
    items
}

impl Item {
    /// Its id as the item `index` of a response.
    pub fn id(&self, request_id: &str, index: usize, echo: &ResponseEcho) -> String {
        let kind = match self {
            Self::Message(_) => "msg",
            Self::Reasoning { .. } | Self::Redacted(_) => "rs",
            Self::Call { name, .. } if echo.is_custom(name) => "ctc",
            Self::Call { .. } => "fc",
        };
        format!("{kind}_{request_id}_{index}")
    }

    /// What it says, as the caller reads it.
    pub fn text(&self, echo: &ResponseEcho) -> Cow<'_, str> {
        match self {
            Self::Message(text) | Self::Reasoning { text, .. } => text.into(),
            Self::Redacted(_) => "".into(),
            Self::Call { name, input, .. } if echo.is_custom(name) => free_text(input).into(),
            Self::Call { input, .. } => input.into(),
        }
    }

    /// The part of it that its text is, if it has parts.
    pub fn part(&self, text: &str, echo: &ResponseEcho) -> Option<Value> {
        match self {
            Self::Message(_) => Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})),
            Self::Reasoning { .. } if echo.summarizes => Some(json!({"type": "summary_text", "text": text})),
            Self::Reasoning { .. } => Some(json!({"type": "reasoning_text", "text": text})),
            Self::Redacted(_) | Self::Call { .. } => None,
        }
    }

    /// The item with what is known of it.
    pub fn render(&self, id: &str, status: &str, echo: &ResponseEcho) -> Value {
        let text = self.text(echo);
        let parts: Vec<Value> = self.part(&text, echo).into_iter().filter(|_| !text.is_empty()).collect();
        match self {
            Self::Message(_) => {
                json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": parts})
            }
            Self::Reasoning { text, signature } => reasoning(id, parts, || sealed::signed(text, signature), echo),
            Self::Redacted(data) => reasoning(id, parts, || sealed::redacted(data), echo),
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
        item[if echo.summarizes { "summary" } else { "content" }] = json!(parts);
    }
    if echo.seals_reasoning {
        item["encrypted_content"] = json!(sealed::seal(&content()));
    }
    item
}

/// The text for a custom tool, out of the input of the function that it is to the model.
fn free_text(input: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(input).ok();
    let text = parsed.as_ref().and_then(|input| input.get("input")?.as_str());
    text.unwrap_or(input).to_owned()
}
