//! Event-stream frames of Bedrock.

use anyhow::Context;
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

/// An event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// Event type.
    pub name: &'static str,
    /// Payload in JSON.
    pub payload: Value,
    /// Output tokens that the event carries.
    pub tokens: u64,
}

impl Event {
    /// Creates an event without output tokens.
    pub fn new(name: &'static str, payload: Value) -> Self {
        Self { name, payload, tokens: 0 }
    }

    /// Creates an event of an InvokeModel stream, which wraps the event of the model as bytes.
    pub fn chunk(model_event: &Value) -> Self {
        Self::new("chunk", json!({ "bytes": STANDARD.encode(model_event.to_string()) }))
    }

    /// Sets the number of output tokens.
    pub fn with_tokens(self, tokens: u64) -> Self {
        Self { tokens, ..self }
    }

    /// Encodes the event.
    ///
    /// # Errors
    /// Returns an error if the payload is too large for a frame.
    pub fn frame(&self) -> anyhow::Result<Bytes> {
        frame("event", (":event-type", self.name), &self.payload)
    }
}

/// Encodes an error in the middle of a stream, where no status can be sent.
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
