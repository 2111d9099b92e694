//! Compressed answers: DynamoDB charges by size, and the events of a stream repeat themselves.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};

use crate::{job::StoredResult, store::jobs::MAX_ROW_BODY_BYTES, stored_headers::StoredHeaders};

/// Maximum size of an answer and its head before compression. A larger row is not unpacked.
const MAX_UNPACKED_BYTES: usize = 2 * 1024 * 1024;

/// Maximum size of a packed answer whose row takes one write unit, which is 1 KiB. The rest of the
/// row has up to 200 bytes.
const MAX_SMALL_BYTES: usize = 800;

/// Maximum size of a body that may become a small packed answer. It is not worth the time to try it
/// with larger bodies.
const MAX_TRIED_BYTES: usize = 16 * 1024;

/// An answer as it is stored: a line of JSON with status and headers, then the body, compressed
/// with Deflate (RFC 1951). Bytes that cannot be compressed grow by less than a thousandth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedAnswer(Vec<u8>);

#[derive(Serialize, Deserialize)]
struct PackedHead {
    status: u16,
    headers: StoredHeaders,
}

impl PackedAnswer {
    /// Packs an answer. Returns `None` if it does not fit into a row.
    pub fn new(answer: &StoredResult) -> Option<Self> {
        if answer.body.len() > MAX_UNPACKED_BYTES / 2 {
            return None;
        }
        let head = serde_json::to_vec(&PackedHead { status: answer.status, headers: answer.headers.clone() });
        let packed = compress(&[&head.ok()?, b"\n", &answer.body]).ok()?;
        Some(Self(packed)).filter(|packed| packed.0.len() <= MAX_ROW_BODY_BYTES)
    }

    /// Packs an answer, if storing it costs no more than a row without an answer.
    pub fn small(answer: &StoredResult) -> Option<Self> {
        if answer.body.len() > MAX_TRIED_BYTES {
            return None;
        }
        Self::new(answer).filter(|packed| packed.0.len() <= MAX_SMALL_BYTES)
    }

    /// Returns the packed bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Unpacks the bytes of a packed answer. Returns `None` if they are malformed or too large.
pub(super) fn unpack(packed: &[u8]) -> Option<StoredResult> {
    let mut unpacked = Vec::new();
    let max_bytes = MAX_UNPACKED_BYTES as u64 + 1;
    DeflateDecoder::new(packed).take(max_bytes).read_to_end(&mut unpacked).ok()?;
    if unpacked.len() > MAX_UNPACKED_BYTES {
        return None;
    }
    let end = unpacked.iter().position(|byte| *byte == b'\n')?;
    let PackedHead { status, headers } = serde_json::from_slice(&unpacked[..end]).ok()?;
    Some(StoredResult { status, headers, body: Bytes::from(unpacked).slice(end + 1..) })
}

fn compress(parts: &[&[u8]]) -> std::io::Result<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    for part in parts {
        encoder.write_all(part)?;
    }
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: Vec<u8>) -> StoredResult {
        StoredResult { status, headers: headers.iter().copied().collect(), body: body.into() }
    }

    /// A stream of a chat of 300 tokens, as the OpenAI API sends it.
    fn stream() -> Vec<u8> {
        let event = |token: u32| {
            format!(
                "data: {{\"id\":\"chatcmpl-0193\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\
                 \"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"word{} \"}},\
                 \"finish_reason\":null}}]}}\n\n",
                token.wrapping_mul(2_654_435_761) % 1_000
            )
        };
        (0..300).flat_map(|token| event(token).into_bytes()).collect()
    }

    proptest! {
        #[test]
        fn an_answer_is_unpacked_as_it_was_packed(
            status: u16,
            value in "[ -~]{0,40}",
            body in prop::collection::vec(any::<u8>(), 0..4_000),
        ) {
            let answer = answer(status, &[("x-a", &value), ("content-type", "text/plain")], body);
            let packed = PackedAnswer::new(&answer).expect("it fits");
            prop_assert!(packed.0.len() < answer.body.len() + value.len() + 200, "incompressible bytes hardly grow");
            prop_assert_eq!(unpack(packed.as_bytes()), Some(answer));
        }

        #[test]
        fn malformed_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1usize..50) {
            let _ = unpack(&bytes);
            let packed = PackedAnswer::new(&answer(200, &[], bytes)).expect("it fits");
            prop_assert_eq!(unpack(&packed.0[..packed.0.len().saturating_sub(cut)]), None);
        }
    }

    #[test]
    fn unpacking_is_bounded() {
        let bomb = compress(&[&vec![b'x'; 64 * 1024 * 1024]]).expect("compressed");
        assert!(bomb.len() < 100_000);
        assert_eq!(unpack(&bomb), None);
        let whole = answer(200, &[], vec![0; MAX_UNPACKED_BYTES / 2]);
        assert_eq!(PackedAnswer::new(&whole).and_then(|packed| unpack(packed.as_bytes())), Some(whole));
        assert_eq!(PackedAnswer::new(&answer(200, &[], vec![0; MAX_UNPACKED_BYTES / 2 + 1])), None);
    }

    #[test]
    fn a_stream_shrinks_to_two_write_units() {
        let stream = answer(200, &[("content-type", "text/event-stream")], stream());
        let packed = PackedAnswer::new(&stream).expect("it fits");
        assert!(stream.body.len() > 40_000 && packed.0.len() < 1_800, "{} bytes", packed.0.len());
        assert_eq!(PackedAnswer::small(&stream), None);
        assert!(PackedAnswer::small(&answer(200, &[("content-type", "application/json")], vec![b'a'; 700])).is_some());
    }
}
