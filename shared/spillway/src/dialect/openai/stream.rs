//! Encodes ConverseStream events as chat completion chunks.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer;
use crate::{
    chat::StreamEvent,
    dialect::{
        AnswerContext,
        reply::{self, ConverseEvent},
        sse,
    },
    problem::Problem,
};

/// Encoder of one stream of chunks.
#[derive(Debug)]
pub struct CompletionStream {
    context: AnswerContext,
    id: String,
    /// Tool calls so far. OpenAI's index of a call is its position in this list.
    calls: Vec<ToolCall>,
    has_role: bool,
    is_over: bool,
}

#[derive(Debug)]
struct ToolCall {
    /// Number of the block in Converse.
    block: u64,
    has_arguments: bool,
}

#[derive(Serialize)]
struct CompletionChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [ChunkChoice],
    /// `null` in all but the last chunk if the caller requested the usage, otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
}

#[derive(Serialize)]
struct ChunkChoice {
    index: u8,
    delta: Value,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

impl CompletionStream {
    pub fn new(context: AnswerContext) -> Self {
        let id = answer::id(&context);
        Self { context, id, calls: Vec::new(), has_role: false, is_over: false }
    }

    pub fn event(&mut self, event: &StreamEvent) -> Bytes {
        let StreamEvent::Converse { name, payload } = event else { return Bytes::new() };
        if self.is_over {
            return Bytes::new();
        }
        match reply::event(name, payload) {
            ConverseEvent::MessageStart => self.delta(json!({}), None),
            ConverseEvent::Text { text, .. } => self.delta(json!({"content": text}), None),
            ConverseEvent::Reasoning { text, .. } => self.delta(json!({"reasoning_content": text}), None),
            ConverseEvent::ToolUseStart { block, id, name } => {
                self.calls.push(ToolCall { block, has_arguments: false });
                let function = json!({"name": name, "arguments": ""});
                let call = json!({"index": self.calls.len() - 1, "id": id, "type": "function", "function": function});
                self.delta(json!({"tool_calls": [call]}), None)
            }
            ConverseEvent::ToolInput { block, json } if !json.is_empty() => self.arguments(block, json),
            // A call of a tool without parameters has no input at all, but callers parse the
            // arguments as JSON.
            ConverseEvent::BlockStop { block } if self.lacks_arguments(block) => self.arguments(block, "{}"),
            ConverseEvent::MessageStop { reason, .. } => self.delta(json!({}), Some(answer::finish_reason(reason))),
            ConverseEvent::Metadata(usage) if self.context.echo.include_usage => {
                self.chunk(&[], Some(answer::usage(&usage)))
            }
            ConverseEvent::Metadata(_) | ConverseEvent::Signature { .. } | ConverseEvent::Redacted { .. } => {
                Bytes::new()
            }
            ConverseEvent::ToolInput { .. } | ConverseEvent::BlockStop { .. } | ConverseEvent::Other => Bytes::new(),
        }
    }

    pub fn problem(&mut self, problem: &Problem) -> Bytes {
        if std::mem::replace(&mut self.is_over, true) {
            return Bytes::new();
        }
        sse::data(&super::problem(problem).to_string())
    }

    pub fn finish(&mut self) -> Bytes {
        if std::mem::replace(&mut self.is_over, true) {
            return Bytes::new();
        }
        sse::data("[DONE]")
    }

    fn arguments(&mut self, block: u64, json: &str) -> Bytes {
        let Some(index) = self.calls.iter().rposition(|call| call.block == block) else { return Bytes::new() };
        self.calls[index].has_arguments = true;
        let call = json!({"index": index, "function": {"arguments": json}});
        self.delta(json!({"tool_calls": [call]}), None)
    }

    fn lacks_arguments(&self, block: u64) -> bool {
        self.calls.iter().any(|call| call.block == block && !call.has_arguments)
    }

    /// Encodes a chunk with one choice. The first chunk also has the role.
    fn delta(&mut self, mut delta: Value, finish_reason: Option<&'static str>) -> Bytes {
        if !std::mem::replace(&mut self.has_role, true) {
            delta["role"] = json!("assistant");
            if delta.get("content").is_none() {
                delta["content"] = json!("");
            }
        }
        self.chunk(&[ChunkChoice { index: 0, delta, logprobs: None, finish_reason }], None)
    }

    fn chunk(&self, choices: &[ChunkChoice], usage: Option<Value>) -> Bytes {
        let chunk = CompletionChunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.context.created_at.as_s(),
            model: &self.context.model,
            choices,
            usage: usage.or_else(|| self.context.echo.include_usage.then_some(Value::Null)),
        };
        // Strings, numbers and JSON values always serialize.
        serde_json::to_string(&chunk).map_or_else(|_| Bytes::new(), |json| sse::data(&json))
    }
}
