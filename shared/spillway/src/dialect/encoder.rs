//! Encodes streams in the caller's format.

use bytes::Bytes;

use super::{anthropic, bedrock, openai, sse};
use crate::{chat, problem::Problem};

/// Encoder of one stream. Each method returns the bytes to send now, which may be empty.
///
/// Call `event` for every event, then `finish` or `problem`. After that, no method returns any
/// bytes.
#[derive(Debug)]
pub enum Encoder {
    /// Chunks of a chat completion.
    ChatCompletion(openai::CompletionStream),
    /// Events of a response.
    Response(openai::ResponseStream),
    /// Events of a message.
    Message(anthropic::MessageStream),
    /// Frames of an event stream.
    EventStream(bedrock::FrameStream),
}

impl Encoder {
    /// Encodes one event.
    pub fn event(&mut self, event: &chat::StreamEvent) -> Bytes {
        match self {
            Self::ChatCompletion(stream) => stream.event(event),
            Self::Response(stream) => stream.event(event),
            Self::Message(stream) => stream.event(event),
            Self::EventStream(stream) => stream.event(event),
        }
    }

    /// Ends the stream with an error in the dialect's form.
    pub fn problem(&mut self, problem: &Problem) -> Bytes {
        match self {
            Self::ChatCompletion(stream) => stream.problem(problem),
            Self::Response(stream) => stream.problem(problem),
            Self::Message(stream) => stream.problem(problem),
            Self::EventStream(stream) => stream.problem(problem),
        }
    }

    /// Ends the stream successfully.
    pub fn finish(&mut self) -> Bytes {
        match self {
            Self::ChatCompletion(stream) => stream.finish(),
            Self::Response(stream) => stream.finish(),
            Self::Message(stream) => stream.finish(),
            Self::EventStream(stream) => stream.finish(),
        }
    }

    /// Continues a stream whose first `events` numbered events have been sent on another
    /// connection.
    pub fn skip(&mut self, events: u64) {
        if let Self::Response(stream) = self {
            stream.skip(events);
        }
    }

    /// Returns bytes without content, which keep a silent connection open.
    pub fn keep_alive(&self) -> Bytes {
        match self {
            Self::ChatCompletion(_) | Self::Response(_) => sse::comment("keep-alive"),
            Self::Message(_) => sse::named("ping", r#"{"type": "ping"}"#),
            Self::EventStream(stream) => stream.keep_alive(),
        }
    }
}
