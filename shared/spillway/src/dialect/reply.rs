//! Reads Converse replies and streams for the dialects that render them in another format.
//!
//! Replies are not trusted: unknown or malformed parts are skipped and never cause a panic.

use std::borrow::Cow;

use serde_json::Value;

use crate::usage::Usage;

/// Block of a complete answer.
#[derive(Debug, PartialEq)]
pub enum Block<'a> {
    Text(Cow<'a, str>),
    Reasoning { text: &'a str, signature: &'a str },
    Redacted(&'a str),
    ToolUse { id: &'a str, name: &'a str, input: &'a Value },
}

/// Returns the blocks of a complete answer that other dialects can express.
pub fn blocks(body: &Value) -> impl Iterator<Item = Block<'_>> {
    let content = body.pointer("/output/message/content").and_then(Value::as_array);
    content.into_iter().flatten().filter_map(block)
}

fn block(block: &Value) -> Option<Block<'_>> {
    if let Some(text) = block.get("text") {
        return Some(Block::Text(text.as_str()?.into()));
    }
    if let Some(tool) = block.get("toolUse") {
        let input = tool.get("input").unwrap_or(&Value::Null);
        return Some(Block::ToolUse { id: text_at(tool, "toolUseId"), name: text_at(tool, "name"), input });
    }
    if let Some(reasoning) = block.get("reasoningContent") {
        if let Some(data) = reasoning.get("redactedContent") {
            return Some(Block::Redacted(data.as_str()?));
        }
        let reasoning = reasoning.get("reasoningText")?;
        return Some(Block::Reasoning { text: text_at(reasoning, "text"), signature: text_at(reasoning, "signature") });
    }
    // The cited text is part of the answer. The other dialects have no place for its source.
    let cited = block.pointer("/citationsContent/content")?.as_array()?;
    Some(Block::Text(cited.iter().map(|part| text_at(part, "text")).collect()))
}

/// Returns Converse's stop reason.
pub fn stop_reason(body: &Value) -> &str {
    text_at(body, "stopReason")
}

/// Returns the stop sequence that ended the answer, if the model reports it (`/stop_sequence` of
/// the model's own answer).
pub fn stop_sequence(body: &Value) -> Option<&str> {
    body.pointer("/additionalModelResponseFields/stop_sequence").and_then(Value::as_str)
}

/// An event of a ConverseStream. `block` is the number of the block in Converse.
#[derive(Debug, PartialEq)]
pub enum ConverseEvent<'a> {
    MessageStart,
    ToolUseStart { block: u64, id: &'a str, name: &'a str },
    Text { block: u64, text: &'a str },
    ToolInput { block: u64, json: &'a str },
    Reasoning { block: u64, text: &'a str },
    Signature { block: u64, signature: &'a str },
    Redacted { block: u64, data: &'a str },
    BlockStop { block: u64 },
    MessageStop { reason: &'a str, sequence: Option<&'a str> },
    Metadata(Usage),
    Other,
}

/// Reads the event `name` of a ConverseStream.
pub fn event<'e>(name: &str, payload: &'e Value) -> ConverseEvent<'e> {
    let block = payload.get("contentBlockIndex").and_then(Value::as_u64).unwrap_or(0);
    match name {
        "messageStart" => ConverseEvent::MessageStart,
        "contentBlockStart" => match payload.pointer("/start/toolUse") {
            Some(tool) => {
                ConverseEvent::ToolUseStart { block, id: text_at(tool, "toolUseId"), name: text_at(tool, "name") }
            }
            None => ConverseEvent::Other,
        },
        "contentBlockDelta" => payload.get("delta").map_or(ConverseEvent::Other, |delta| delta_event(block, delta)),
        "contentBlockStop" => ConverseEvent::BlockStop { block },
        "messageStop" => ConverseEvent::MessageStop { reason: stop_reason(payload), sequence: stop_sequence(payload) },
        "metadata" => payload
            .get("usage")
            .map_or(ConverseEvent::Other, |usage| ConverseEvent::Metadata(Usage::from_converse(usage))),
        _ => ConverseEvent::Other,
    }
}

fn delta_event(block: u64, delta: &Value) -> ConverseEvent<'_> {
    let text = |pointer: &str| delta.pointer(pointer).and_then(Value::as_str);
    if let Some(text) = text("/text") {
        return ConverseEvent::Text { block, text };
    }
    if let Some(json) = text("/toolUse/input") {
        return ConverseEvent::ToolInput { block, json };
    }
    if let Some(text) = text("/reasoningContent/text") {
        return ConverseEvent::Reasoning { block, text };
    }
    if let Some(signature) = text("/reasoningContent/signature") {
        return ConverseEvent::Signature { block, signature };
    }
    text("/reasoningContent/redactedContent")
        .map_or(ConverseEvent::Other, |data| ConverseEvent::Redacted { block, data })
}

fn text_at<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
