//! Server-sent events. Payloads are JSON on one line, so no payload has to be split.

use bytes::Bytes;

/// An event without a name: `data: …`.
pub fn data(payload: &str) -> Bytes {
    Bytes::from(format!("data: {payload}\n\n"))
}

/// A named event: `event: …` and `data: …`.
pub fn named(name: &str, payload: &str) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {payload}\n\n"))
}

/// A comment, which clients ignore.
pub fn comment(text: &str) -> Bytes {
    Bytes::from(format!(": {text}\n\n"))
}
