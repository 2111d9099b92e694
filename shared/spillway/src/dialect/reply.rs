//! What a Converse reply or stream says, told apart for the dialects that render it in their own words.
//!
//! Replies come from outside too: anything unknown or malformed is skipped, never a panic.

use std::borrow::Cow;

use serde_json::Value;

use crate::usage::Usage;

/// One block of a complete answer.
#[derive(Debug, PartialEq)]
pub enum Block<'a> {
    Text(Cow<'a, str>),
    Reasoning { text: &'a str, signature: &'a str },
    Redacted(&'a str),
    ToolUse { id: &'a str, name: &'a str, input: &'a Value },
}

/// The blocks of a complete answer that have a counterpart in other dialects.
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
    // The cited text is part of the answer; where it came from has no place in the other dialects' plain text.
    let cited = block.pointer("/citationsContent/content")?.as_array()?;
    Some(Block::Text(cited.iter().map(|part| text_at(part, "text")).collect()))
}

/// Why a complete answer ended, in Converse's words.
pub fn stop_reason(body: &Value) -> &str {
    text_at(body, "stopReason")
}

/// The stop sequence that ended the answer, if the model named it (`/stop_sequence` of the model's own answer).
pub fn stop_sequence(body: &Value) -> Option<&str> {
    body.pointer("/additionalModelResponseFields/stop_sequence").and_then(Value::as_str)
}

/// One step of a stream. `block` is Converse's number of the block.
#[derive(Debug, PartialEq)]
pub enum Step<'a> {
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

/// What the event `name` of a ConverseStream says.
pub fn step<'e>(name: &str, payload: &'e Value) -> Step<'e> {
    let block = payload.get("contentBlockIndex").and_then(Value::as_u64).unwrap_or(0);
    match name {
        "messageStart" => Step::MessageStart,
        "contentBlockStart" => match payload.pointer("/start/toolUse") {
            Some(tool) => Step::ToolUseStart { block, id: text_at(tool, "toolUseId"), name: text_at(tool, "name") },
            None => Step::Other,
        },
        "contentBlockDelta" => payload.get("delta").map_or(Step::Other, |delta| of_delta(block, delta)),
        "contentBlockStop" => Step::BlockStop { block },
        "messageStop" => Step::MessageStop { reason: stop_reason(payload), sequence: stop_sequence(payload) },
        "metadata" => payload.get("usage").map_or(Step::Other, |usage| Step::Metadata(Usage::from_converse(usage))),
        _ => Step::Other,
    }
}

fn of_delta(block: u64, delta: &Value) -> Step<'_> {
    let text = |pointer: &str| delta.pointer(pointer).and_then(Value::as_str);
    if let Some(text) = text("/text") {
        return Step::Text { block, text };
    }
    if let Some(json) = text("/toolUse/input") {
        return Step::ToolInput { block, json };
    }
    if let Some(text) = text("/reasoningContent/text") {
        return Step::Reasoning { block, text };
    }
    if let Some(signature) = text("/reasoningContent/signature") {
        return Step::Signature { block, signature };
    }
    text("/reasoningContent/redactedContent").map_or(Step::Other, |data| Step::Redacted { block, data })
}

fn text_at<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
