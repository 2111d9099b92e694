//! Server-sent events. A payload is JSON on one line, so it is never split.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// Encodes an event without a name: `data: …`.
pub fn data(payload: &str) -> Bytes {
    Bytes::from(format!("data: {payload}\n\n"))
}

/// Encodes a named event: `event: …` and `data: …`.
pub fn named(name: &str, payload: &str) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {payload}\n\n"))
}

/// Encodes a named event at the end of `out`, without a copy of its text.
pub fn append(out: &mut BytesMut, name: &str, payload: &Value) {
    out.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    // A value always serializes, and there is always room.
    let _ = serde_json::to_writer(out.writer(), payload);
    out.extend_from_slice(b"\n\n");
}

/// Encodes a comment, which clients ignore.
pub fn comment(text: &str) -> Bytes {
    Bytes::from(format!(": {text}\n\n"))
}
