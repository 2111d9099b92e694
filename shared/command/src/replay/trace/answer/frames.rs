//! Reads a Bedrock event stream frame by frame.

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use aws_smithy_types::event_stream::Message;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use super::{Progress, Usage, short_name};

/// Reader of frames.
#[derive(Debug, Default)]
pub struct Frames {
    decoder: MessageFrameDecoder,
    unread: BytesMut,
    pub(super) progress: Progress,
}

impl Frames {
    pub(super) fn push(&mut self, piece: Bytes) {
        self.unread.extend_from_slice(&piece);
        loop {
            match self.decoder.decode_frame(&mut self.unread) {
                Ok(DecodedFrame::Complete(message)) => self.progress.message(&message),
                Ok(DecodedFrame::Incomplete) => return,
                Err(_) => {
                    self.progress.error = Some("unreadable frame".to_owned());
                    return self.unread.clear();
                }
            }
        }
    }
}

impl Progress {
    fn message(&mut self, message: &Message) {
        let header = |name: &str| {
            let found = message.headers().iter().find(|header| header.name().as_str() == name)?;
            found.value().as_string().ok().map(|value| value.as_str())
        };
        if header(":message-type") != Some("event") {
            let name = header(":exception-type").or_else(|| header(":error-code")).unwrap_or("unnamed");
            self.error = Some(short_name(name));
            return;
        }
        match header(":event-type") {
            Some("contentBlockDelta") => self.content = true,
            Some("messageStop") => self.ended = true,
            Some("metadata") => match serde_json::from_slice::<Metadata>(message.payload()) {
                Ok(metadata) => self.usage(metadata.usage),
                Err(_) => self.error = Some("unreadable metadata".to_owned()),
            },
            _ => {}
        }
    }
}

#[derive(Deserialize)]
struct Metadata {
    usage: Option<Usage>,
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue};

    use super::*;
    use crate::replay::trace::answer::Reader;

    fn frame(kind: &str, type_header: &str, name: &str, payload: &str) -> Vec<u8> {
        let text = |value: &str| HeaderValue::String(value.to_owned().into());
        let message = Message::new(payload.to_owned())
            .add_header(Header::new(":message-type", text(kind)))
            .add_header(Header::new(type_header.to_owned(), text(name)));
        let mut bytes = Vec::new();
        write_message_to(&message, &mut bytes).unwrap();
        bytes
    }

    fn event(name: &str, payload: &str) -> Vec<u8> {
        frame("event", ":event-type", name, payload)
    }

    fn exception(name: &str) -> Vec<u8> {
        frame("exception", ":exception-type", name, "{\"message\":\"no\"}")
    }

    fn check(frames: &[Vec<u8>], expected: Result<Option<Usage>, &str>) {
        let stream = frames.concat();
        for size in [1, 11, 13, 100, 4096] {
            let mut reader = Reader::new("application/vnd.amazon.eventstream");
            stream.chunks(size).for_each(|piece| reader.push(Bytes::copy_from_slice(piece)));
            assert_eq!(reader.finish(), expected.map_err(str::to_owned), "in pieces of {size}");
        }
    }

    #[test]
    fn a_stream_ends_with_its_usage() {
        let usage = r#"{"usage":{"inputTokens":5,"outputTokens":2,"totalTokens":7},"metrics":{"latencyMs":1}}"#;
        check(
            &[
                event("messageStart", "{}"),
                event("contentBlockDelta", "{}"),
                event("messageStop", "{}"),
                event("metadata", usage),
            ],
            Ok(Some(Usage { input_tokens: 5, output_tokens: 2 })),
        );
    }

    #[test]
    fn content_counts_once_its_frame_is_whole() {
        let delta = event("contentBlockDelta", "{}");
        let mut reader = Reader::new("application/vnd.amazon.eventstream");
        reader.push(Bytes::copy_from_slice(&delta[..delta.len() - 1]));
        assert!(!reader.has_streamed_content());
        reader.push(Bytes::copy_from_slice(&delta[delta.len() - 1..]));
        assert!(reader.has_streamed_content());
    }

    #[test]
    fn a_stream_that_stops_early_is_cut_short() {
        check(&[event("messageStart", "{}")], Err("stream cut short"));
        check(&[event("messageStop", "{}")[..20].to_vec()], Err("stream cut short"));
    }

    #[test]
    fn an_exception_is_named() {
        check(
            &[event("messageStart", "{}"), exception("throttlingException")],
            Err("error in the stream: throttlingException"),
        );
    }

    #[test]
    fn a_damaged_frame_is_an_error() {
        let mut damaged = event("messageStop", "{}");
        damaged[30] ^= 1;
        check(&[damaged], Err("error in the stream: unreadable frame"));
    }
}
