//! Server-sent events. A payload is JSON on one line, so it is never split.

use bytes::Bytes;

/// Encodes an event without a name: `data: …`.
pub fn data(payload: &str) -> Bytes {
    Bytes::from(format!("data: {payload}\n\n"))
}

/// Encodes a named event: `event: …` and `data: …`.
pub fn named(name: &str, payload: &str) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {payload}\n\n"))
}

/// Encodes a comment, which clients ignore.
pub fn comment(text: &str) -> Bytes {
    Bytes::from(format!(": {text}\n\n"))
}
