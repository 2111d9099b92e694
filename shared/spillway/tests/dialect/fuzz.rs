//! Damaged bytes: no input from a caller or a model can crash the broker.
//!
//! The bytes of the golden exchanges are cut, flipped and spliced. `PROPTEST_CASES` sets the number
//! of cases (256).

use std::fs;

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use proptest::prelude::*;
use proptest::sample::Index;
use spillway::dialect::Api;
use spillway::stored_headers::StoredHeaders;
use spillway::{
    chat::{Answer, Format, NativeReply, Output, StreamEvent},
    usage::Usage,
};

use super::{context, golden};

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Cut(Index, Index),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Cut(from, to)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), "[\\[\\]{}\",:0-9eE.\\-ntf]{1,6}").prop_map(|(at, text)| Damage::Insert(at, text.into())),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        let range = |from: &Index, to: &Index| {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            from.min(to)..from.max(to)
        };
        match damage {
            Damage::Flip(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
            Damage::Cut(from, to) => drop(bytes.drain(range(from, to))),
            Damage::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Repeat(from, to) => {
                let range = range(from, to);
                let part = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, part);
            }
        }
    }
    bytes
}

fn exchange() -> impl Strategy<Value = (&'static str, Api, Option<Format>)> {
    prop::sample::select(&golden::EXCHANGES[..])
}

fn golden_bytes(name: &str, file: &str) -> Vec<u8> {
    fs::read(golden::folder(name).join(file)).unwrap_or_default()
}

proptest! {
    #[test]
    fn a_damaged_request_is_read_or_rejected(
        (name, api, format) in exchange(), damages in prop::collection::vec(damage(), 0..6),
    ) {
        let bytes = damaged(&golden_bytes(name, "request.json"), &damages);
        let read = api.read(&bytes, Some("model"), true).and_then(|draft| draft.request(format, &HeaderMap::new()));
        if let Err(problem) = read {
            let rendered = api.dialect().problem("r1", &problem);
            prop_assert!(rendered.status.is_client_error());
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&rendered.body).is_ok());
        }
    }

    #[test]
    fn a_damaged_reply_is_rendered_or_becomes_a_server_error(
        (name, api, format) in exchange(), damages in prop::collection::vec(damage(), 0..6),
    ) {
        let bytes = damaged(&golden_bytes(name, "reply.json"), &damages);
        let output = match format {
            Some(_) => Output::Native(vec![NativeReply { headers: StoredHeaders::default(), body: Bytes::from(bytes) }]),
            None => Output::Converse(serde_json::from_slice(&bytes).unwrap_or_default()),
        };
        let rendered = api.answer(&context(), &Answer { output, usage: None });
        prop_assert!(rendered.status.is_success() || rendered.status.is_server_error());
    }

    #[test]
    fn a_damaged_stream_is_encoded_to_whole_events(
        (name, api, format) in exchange(), damages in prop::collection::vec(damage(), 0..6),
    ) {
        let bytes = damaged(&golden_bytes(name, "events.jsonl"), &damages);
        let (mut encoder, mut usage, mut sent) = (api.stream(context()), None::<Usage>, BytesMut::new());
        for line in bytes.split(|byte| *byte == b'\n') {
            let event = match format {
                Some(_) => StreamEvent::Native(Bytes::copy_from_slice(line)),
                None => golden::event_from_line(&serde_json::from_slice(line).unwrap_or_default()),
            };
            event.report(&mut usage);
            event.is_output();
            sent.extend_from_slice(&encoder.event(&event));
        }
        sent.extend_from_slice(&encoder.finish());
        match api.dialect().stream_content_type() {
            "text/event-stream" => prop_assert!(sent.is_empty() || sent.ends_with(b"\n\n")),
            _ => prop_assert!(are_whole_frames(sent)),
        }
    }
}

/// Whether AWS's own decoder finds whole frames and nothing else.
fn are_whole_frames(mut bytes: BytesMut) -> bool {
    let mut decoder = MessageFrameDecoder::new();
    while !bytes.is_empty() {
        match decoder.decode_frame(&mut bytes) {
            Ok(DecodedFrame::Complete(_)) => {}
            Ok(DecodedFrame::Incomplete) | Err(_) => return false,
        }
    }
    true
}
