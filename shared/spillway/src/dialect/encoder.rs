//! Streams in the caller's format.

use bytes::Bytes;

use super::{anthropic, bedrock, openai, sse};
use crate::{chat, problem::Problem};

/// Turns the events of one stream into bytes to send now; the bytes may be none.
///
/// A stream is `event`s, then `finish` or `problem`; after either, nothing more comes out.
#[derive(Debug)]
pub enum Encoder {
    /// Chunks of a chat completion.
    ChatCompletion(openai::Stream),
    /// Events of a response.
    Response(openai::ResponseStream),
    /// Events of a message.
    Message(anthropic::Stream),
    /// Frames of an event stream.
    EventStream(bedrock::Stream),
}

impl Encoder {
    /// The bytes of one event.
    pub fn event(&mut self, event: &chat::Event) -> Bytes {
        match self {
            Self::ChatCompletion(stream) => stream.event(event),
            Self::Response(stream) => stream.event(event),
            Self::Message(stream) => stream.event(event),
            Self::EventStream(stream) => stream.event(event),
        }
    }

    /// Ends the stream with an error, in the dialect's own form.
    pub fn problem(&mut self, problem: &Problem) -> Bytes {
        match self {
            Self::ChatCompletion(stream) => stream.problem(problem),
            Self::Response(stream) => stream.problem(problem),
            Self::Message(stream) => stream.problem(problem),
            Self::EventStream(stream) => stream.problem(problem),
        }
    }

    /// Ends the stream well.
    pub fn finish(&mut self) -> Bytes {
        match self {
            Self::ChatCompletion(stream) => stream.finish(),
            Self::Response(stream) => stream.finish(),
            Self::Message(stream) => stream.finish(),
            Self::EventStream(stream) => stream.finish(),
        }
    }

    /// Goes on after what was told elsewhere, of which `events` server-sent events are numbered.
    pub fn skip(&mut self, events: u64) {
        if let Self::Response(stream) = self {
            stream.skip(events);
        }
    }

    /// Bytes that say nothing and keep a silent connection open.
    pub fn keep_alive(&self) -> Bytes {
        match self {
            Self::ChatCompletion(_) | Self::Response(_) => sse::comment("keep-alive"),
            Self::Message(_) => sse::named("ping", r#"{"type": "ping"}"#),
            Self::EventStream(stream) => stream.keep_alive(),
        }
    }
}
