//! Reads a response of any dialect while it arrives, whole or streamed: its first content, its
//! usage and its end.

mod frames;
mod sse;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use frames::Frames;
use sse::ServerSentEvents;

/// Usage that a response reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    #[serde(alias = "prompt_tokens", alias = "inputTokens", default)]
    pub input_tokens: u64,
    #[serde(alias = "completion_tokens", alias = "outputTokens", default)]
    pub output_tokens: u64,
}

impl Usage {
    /// Merges a later report: the counts of a stream only grow.
    fn merge(&mut self, later: Self) {
        self.input_tokens = self.input_tokens.max(later.input_tokens);
        self.output_tokens = self.output_tokens.max(later.output_tokens);
    }
}

/// Facts read from a response so far.
#[derive(Debug, Default)]
struct Progress {
    content: bool,
    usage: Option<Usage>,
    ended: bool,
    error: Option<String>,
}

impl Progress {
    fn usage(&mut self, usage: Option<Usage>) {
        if let Some(usage) = usage {
            self.usage.get_or_insert_default().merge(usage);
        }
    }
}

/// Reader of a response body.
#[derive(Debug)]
pub enum Reader {
    /// A JSON document.
    Whole(BytesMut),
    /// A stream of server-sent events (OpenAI, Anthropic).
    Events(ServerSentEvents),
    /// A stream of `application/vnd.amazon.eventstream` frames (Bedrock).
    Frames(Frames),
}

impl Reader {
    /// Creates a reader for a body of this content type.
    pub fn new(content_type: &str) -> Self {
        if content_type.starts_with("text/event-stream") {
            Self::Events(ServerSentEvents::default())
        } else if content_type.starts_with("application/vnd.amazon.eventstream") {
            Self::Frames(Frames::default())
        } else {
            Self::Whole(BytesMut::new())
        }
    }

    /// Adds the next piece of the body.
    pub fn push(&mut self, piece: Bytes) {
        match self {
            Self::Whole(body) => body.extend_from_slice(&piece),
            Self::Events(events) => events.push(&piece),
            Self::Frames(frames) => frames.push(piece),
        }
    }

    /// Whether a stream has delivered its first content. A whole response has no first token to
    /// time.
    pub fn has_streamed_content(&self) -> bool {
        match self {
            Self::Whole(_) => false,
            Self::Events(events) => events.progress.content,
            Self::Frames(frames) => frames.progress.content,
        }
    }

    /// Returns the usage after the end of the body.
    ///
    /// # Errors
    /// Returns the kind of error, in a few words: an error inside the stream, a stream cut short,
    /// unreadable JSON.
    pub fn finish(self) -> Result<Option<Usage>, String> {
        let progress = match self {
            Self::Whole(body) => return whole(&body),
            Self::Events(events) => events.progress,
            Self::Frames(frames) => frames.progress,
        };
        match progress.error {
            Some(kind) => Err(format!("error in the stream: {kind}")),
            None if !progress.ended => Err("stream cut short".to_owned()),
            None => Ok(progress.usage),
        }
    }
}

fn whole(body: &[u8]) -> Result<Option<Usage>, String> {
    #[derive(Deserialize)]
    struct Answer {
        usage: Option<Usage>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "unreadable answer".to_owned())?;
    Ok(answer.usage)
}

/// Error object of an error body or event: `{"error": {"type": …, "code": …}}`.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorObject {
    #[serde(default)]
    code: Option<serde_json::Value>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

impl ErrorObject {
    /// Returns a short name to count the error by. It is never the message, which may quote a
    /// prompt.
    pub fn name(&self) -> Option<String> {
        let code = self.code.as_ref().and_then(serde_json::Value::as_str);
        let name = self.kind.as_deref().or(code)?;
        Some(short_name(name))
    }
}

/// Shortens a name from the wire to at most 48 letters, digits, `_`, `-` and `.`, so that reports
/// stay readable.
pub fn short_name(name: &str) -> String {
    name.chars().filter(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(*letter)).take(48).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `body` in pieces of several sizes and expects the same result each time.
    fn check(content_type: &str, body: &[u8], expected: Result<Option<(u64, u64)>, &str>) {
        for size in [1, 2, 3, 7, 64, body.len().max(1)] {
            let mut reader = Reader::new(content_type);
            body.chunks(size).for_each(|piece| reader.push(Bytes::copy_from_slice(piece)));
            let usage = reader.finish().map(|usage| usage.map(|usage| (usage.input_tokens, usage.output_tokens)));
            assert_eq!(usage.as_ref().map_err(String::as_str), expected.as_ref().map_err(|kind| *kind), "{size}");
        }
    }

    #[test]
    fn whole_responses_of_all_dialects_report_their_usage() {
        let json = "application/json; charset=utf-8";
        check(json, br#"{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#, Ok(Some((3, 4))));
        check(json, br#"{"content":[],"usage":{"input_tokens":3,"output_tokens":4}}"#, Ok(Some((3, 4))));
        check(json, br#"  {"usage":{"inputTokens":3,"outputTokens":4,"totalTokens":7}}"#, Ok(Some((3, 4))));
        check(json, br#"{"choices":[]}"#, Ok(None));
        check(json, br#"{"usage":"#, Err("unreadable answer"));
        check("", b"", Err("unreadable answer"));
    }

    #[test]
    fn an_error_is_named_by_its_type_or_code_and_never_by_its_message() {
        let name = |json: &str| serde_json::from_str::<ErrorObject>(json).unwrap().name();
        assert_eq!(name(r#"{"type":"rate_limit","code":"x","message":"the prompt"}"#).as_deref(), Some("rate_limit"));
        assert_eq!(name(r#"{"type":null,"code":"too_long"}"#).as_deref(), Some("too_long"));
        assert_eq!(name(r#"{"message":"the prompt","code":7}"#), None);
        assert_eq!(short_name(&"a b\n".repeat(99)).len(), 48);
    }
}
