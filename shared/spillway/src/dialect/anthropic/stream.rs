//! Encodes ConverseStream events as message stream events.
//!
//! Converse does not announce text blocks and may number blocks with gaps. Anthropic's clients
//! expect every block to be opened and closed, numbered from 0. Converse's usage comes last, so
//! `message_start` reports 0, and `message_delta` waits for the usage.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{answer, native};
use crate::{
    chat::StreamEvent,
    dialect::{
        AnswerContext,
        reply::{self, ConverseEvent},
        sse,
    },
    problem::Problem,
    usage::Usage,
};

/// Encoder of one stream of message events.
#[derive(Debug)]
pub struct MessageStream {
    context: AnswerContext,
    has_started: bool,
    is_over: bool,
    /// Block that receives deltas.
    open: Option<OpenBlock>,
    /// Number of blocks that were opened.
    opened: usize,
    /// Stop reason and stop sequence, until the usage is known.
    stop: Option<(&'static str, Option<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OpenBlock {
    /// Number of the block in Converse.
    block: u64,
    kind: BlockKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    Text,
    Thinking,
    ToolUse,
    Redacted,
}

impl MessageStream {
    pub fn new(context: AnswerContext) -> Self {
        Self { context, has_started: false, is_over: false, open: None, opened: 0, stop: None }
    }

    pub fn event(&mut self, event: &StreamEvent) -> Bytes {
        let mut out = BytesMut::new();
        match event {
            _ if self.is_over => {}
            StreamEvent::Converse { name, payload } => self.converse_event(reply::event(name, payload), &mut out),
            StreamEvent::Native(bytes) => out.extend_from_slice(&native::event(bytes)),
        }
        out.freeze()
    }

    pub fn problem(&mut self, problem: &Problem) -> Bytes {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.is_over, true) {
            send(&mut out, "error", super::problem(&self.context.request_id, problem));
        }
        out.freeze()
    }

    pub fn finish(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        if self.has_started {
            self.end(&Usage::default(), &mut out);
        }
        self.is_over = true;
        out.freeze()
    }

    fn converse_event(&mut self, event: ConverseEvent, out: &mut BytesMut) {
        if event == ConverseEvent::Other {
            return;
        }
        self.start(out);
        let text = OpenBlock { block: 0, kind: BlockKind::Text };
        match event {
            ConverseEvent::MessageStart | ConverseEvent::Other => {}
            ConverseEvent::ToolUseStart { block, id, name } => {
                let shape = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.open(OpenBlock { block, kind: BlockKind::ToolUse }, shape, out);
            }
            ConverseEvent::Text { block, text: delta } => {
                self.ensure(OpenBlock { block, ..text }, json!({"type": "text", "text": ""}), out);
                self.delta(json!({"type": "text_delta", "text": delta}), out);
            }
            ConverseEvent::ToolInput { block, json } => {
                if self.open == Some(OpenBlock { block, kind: BlockKind::ToolUse }) {
                    self.delta(json!({"type": "input_json_delta", "partial_json": json}), out);
                }
            }
            ConverseEvent::Reasoning { block, text } => {
                self.ensure_thinking(block, out);
                self.delta(json!({"type": "thinking_delta", "thinking": text}), out);
            }
            ConverseEvent::Signature { block, signature } => {
                self.ensure_thinking(block, out);
                self.delta(json!({"type": "signature_delta", "signature": signature}), out);
            }
            ConverseEvent::Redacted { block, data } => {
                self.open(
                    OpenBlock { block, kind: BlockKind::Redacted },
                    json!({"type": "redacted_thinking", "data": data}),
                    out,
                );
            }
            ConverseEvent::BlockStop { .. } => self.close(out),
            ConverseEvent::MessageStop { reason, sequence } => {
                self.close(out);
                self.stop = Some((answer::stop_reason(reason), sequence.map(str::to_owned)));
            }
            ConverseEvent::Metadata(usage) => self.end(&usage, out),
        }
    }

    fn start(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.has_started, true) {
            let message = answer::frame(&self.context, Vec::new(), answer::usage(&Usage::default()));
            send(out, "message_start", json!({"type": "message_start", "message": message}));
        }
    }

    fn ensure_thinking(&mut self, block: u64, out: &mut BytesMut) {
        let shape = json!({"type": "thinking", "thinking": "", "signature": ""});
        self.ensure(OpenBlock { block, kind: BlockKind::Thinking }, shape, out);
    }

    fn ensure(&mut self, wanted: OpenBlock, shape: Value, out: &mut BytesMut) {
        if self.open != Some(wanted) {
            self.open(wanted, shape, out);
        }
    }

    fn open(&mut self, wanted: OpenBlock, shape: Value, out: &mut BytesMut) {
        self.close(out);
        let event = json!({"type": "content_block_start", "index": self.opened, "content_block": shape});
        send(out, "content_block_start", event);
        self.open = Some(wanted);
        self.opened += 1;
    }

    fn delta(&self, delta: Value, out: &mut BytesMut) {
        let index = self.opened.saturating_sub(1);
        send(out, "content_block_delta", json!({"type": "content_block_delta", "index": index, "delta": delta}));
    }

    fn close(&mut self, out: &mut BytesMut) {
        if self.open.take().is_some() {
            let index = self.opened.saturating_sub(1);
            send(out, "content_block_stop", json!({"type": "content_block_stop", "index": index}));
        }
    }

    /// Sends the end of the message, once.
    fn end(&mut self, usage: &Usage, out: &mut BytesMut) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.close(out);
        let (reason, sequence) = self.stop.take().unzip();
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence.flatten()});
        let event = json!({"type": "message_delta", "delta": delta, "usage": answer::usage(usage)});
        send(out, "message_delta", event);
        send(out, "message_stop", json!({"type": "message_stop"}));
    }
}

fn send(out: &mut BytesMut, name: &str, payload: Value) {
    out.extend_from_slice(&sse::named(name, &payload.to_string()));
}
