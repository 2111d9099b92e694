//! Encodes frames (`application/vnd.amazon.eventstream`) of ConverseStream and
//! InvokeModelWithResponseStream.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::{
    event_stream::{Header, HeaderValue, Message},
    str_bytes::StrBytes,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    chat::StreamEvent,
    problem::{Kind, Problem},
};

/// Encoder of one stream of frames.
#[derive(Debug, Default)]
pub struct FrameStream {
    is_over: bool,
}

impl FrameStream {
    pub fn event(&mut self, event: &StreamEvent) -> Bytes {
        if self.is_over {
            return Bytes::new();
        }
        match event {
            StreamEvent::Converse { name, payload } => frame("event", ":event-type", name.clone(), payload),
            StreamEvent::Native(bytes) => {
                let chunk = json!({"bytes": STANDARD.encode(bytes)});
                frame("event", ":event-type", "chunk".to_owned(), &chunk)
            }
        }
    }

    pub fn problem(&mut self, problem: &Problem) -> Bytes {
        if std::mem::replace(&mut self.is_over, true) {
            return Bytes::new();
        }
        let name = exception(problem.kind).to_owned();
        frame("exception", ":exception-type", name, &super::problem(problem))
    }

    /// Encodes a keep-alive: an event of a type that no stream has. boto3, the AWS SDK for
    /// JavaScript, Anthropic's SDKs, LangChain, LiteLLM and the AI SDK skip it; the AWS SDK for
    /// Rust returns it as `Unknown`. Some of these clients fail on an event without a JSON payload,
    /// a chunk or delta without content, a frame without headers, or a message of an unknown type.
    pub fn keep_alive(&self) -> Bytes {
        frame("event", ":event-type", "keepAlive".to_owned(), &json!({}))
    }

    /// Ends the stream, which needs no closing frame.
    pub fn finish(&mut self) -> Bytes {
        self.is_over = true;
        Bytes::new()
    }
}

/// Returns the name of the exception inside a stream, as ConverseStream spells it.
fn exception(kind: Kind) -> &'static str {
    match kind {
        Kind::Throttled => "throttlingException",
        Kind::Model | Kind::Timeout => "modelStreamErrorException",
        Kind::Unavailable => "serviceUnavailableException",
        Kind::Internal | Kind::Conflict => "internalServerException",
        Kind::Invalid | Kind::TooLarge | Kind::BudgetExhausted | Kind::Unauthenticated => "validationException",
        Kind::Forbidden | Kind::NotFound | Kind::MethodNotAllowed | Kind::UnsupportedEncoding => "validationException",
    }
}

fn frame(message_type: &'static str, name_header: &'static str, name: String, payload: &Value) -> Bytes {
    let header = |name: &'static str, value: StrBytes| Header::new(name, HeaderValue::String(value));
    let message = Message::new(payload.to_string())
        .add_header(header(name_header, name.into()))
        .add_header(header(":content-type", "application/json".into()))
        .add_header(header(":message-type", message_type.into()));
    let mut bytes = Vec::new();
    // Only a frame above the limits of the format fails. No part of such a frame is sent.
    match write_message_to(&message, &mut bytes) {
        Ok(()) => Bytes::from(bytes),
        Err(_) => Bytes::new(),
    }
}
