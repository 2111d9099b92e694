//! Event-stream frames as Bedrock sends them.

use anyhow::Context;
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

/// One event of a stream and how many output tokens it carries.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub name: &'static str,
    pub payload: Value,
    pub tokens: u64,
}

impl Event {
    pub fn new(name: &'static str, payload: Value) -> Self {
        Self { name, payload, tokens: 0 }
    }

    /// An event of an InvokeModel stream: the model's own event, wrapped as bytes.
    pub fn chunk(model_event: &Value) -> Self {
        Self::new("chunk", json!({ "bytes": STANDARD.encode(model_event.to_string()) }))
    }

    pub fn carrying(self, tokens: u64) -> Self {
        Self { tokens, ..self }
    }

    pub fn frame(&self) -> anyhow::Result<Bytes> {
        frame("event", (":event-type", self.name), &self.payload)
    }
}

/// The frame of an error in the middle of a stream, which has no status any more.
pub(super) fn exception_frame(name: &'static str, message: &str) -> anyhow::Result<Bytes> {
    frame("exception", (":exception-type", name), &json!({ "message": message }))
}

fn frame(message_type: &'static str, kind: (&'static str, &'static str), payload: &Value) -> anyhow::Result<Bytes> {
    let header = |name: &'static str, value: &'static str| Header::new(name, HeaderValue::String(value.into()));
    let message = Message::new(payload.to_string())
        .add_header(header(kind.0, kind.1))
        .add_header(header(":content-type", "application/json"))
        .add_header(header(":message-type", message_type));
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).context("an event does not fit into a frame")?;
    Ok(bytes.into())
}
