//! Background responses: their state before the answer, and streams that resume after any event.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::response::{self, IN_PROGRESS, QUEUED, ResponseStatus};
use crate::{dialect::AnswerContext, problem::Kind};

/// State of a response without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseState {
    /// The response waits in the queue.
    Queued,
    /// The model is working on the answer.
    InProgress,
    /// The caller cancelled the response.
    Cancelled,
    /// The response failed with this error.
    Failed { kind: Kind, message: String },
}

impl ResponseState {
    /// Renders the response object.
    pub fn response(&self, context: &AnswerContext) -> Value {
        let status = match self {
            Self::Queued => QUEUED,
            Self::InProgress => IN_PROGRESS,
            Self::Cancelled => ResponseStatus::new("cancelled"),
            Self::Failed { .. } => ResponseStatus::new("failed"),
        };
        let mut response = response::response(context, status, Vec::new(), None);
        if let Self::Failed { kind, message } = self {
            response["error"] = json!({"code": error_code(*kind), "message": message});
        }
        response
    }
}

/// Returns the code of a response's `error`. OpenAI has few codes.
pub fn error_code(kind: Kind) -> &'static str {
    match kind {
        Kind::Throttled => "rate_limit_exceeded",
        Kind::Invalid | Kind::TooLarge | Kind::UnsupportedEncoding => "invalid_prompt",
        _ => "server_error",
    }
}

/// Returns the response in the last event of a complete stream.
pub fn last_response(stream: &[u8]) -> Option<Value> {
    let stream = std::str::from_utf8(stream).ok()?;
    let data = stream.lines().rev().find_map(|line| line.strip_prefix("data: "))?;
    let mut event: Value = serde_json::from_str(data).ok()?;
    event.get_mut("response").map(Value::take)
}

/// Events of a stream after a given event. Events are numbered from 0.
#[derive(Debug, Clone, Default)]
pub struct ResumedStream {
    after: Option<u64>,
    /// Number of complete events so far.
    events: u64,
    /// First bytes of the next event.
    partial: BytesMut,
    /// Hash of the events that were skipped.
    skipped: Sha256,
}

const SEPARATOR: &[u8] = b"\n\n";

impl ResumedStream {
    /// Resumes after the event with the number `after`, or from the start if it is `None`.
    pub fn after(after: Option<u64>) -> Self {
        Self { after, ..Self::default() }
    }

    /// Takes the next bytes of the stream. Returns the events that they complete, from the event
    /// after the given event on.
    pub fn push(&mut self, bytes: &[u8]) -> Bytes {
        // A separator may begin in the bytes before.
        let mut from = self.partial.len().saturating_sub(SEPARATOR.len() - 1);
        self.partial.extend_from_slice(bytes);
        let mut wanted = BytesMut::new();
        while let Some(at) = find(&self.partial[from..]) {
            let event = self.partial.split_to(from + at + SEPARATOR.len());
            if self.after.is_some_and(|after| self.events <= after) {
                self.skipped.update(&event);
            } else {
                wanted.extend_from_slice(&event);
            }
            self.events += 1;
            from = 0;
        }
        wanted.freeze()
    }

    /// Returns the number of whole events so far, including skipped events.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Returns the number of the last event, after which another stream can resume.
    pub fn last(&self) -> Option<u64> {
        self.events.checked_sub(1).max(self.after)
    }

    /// Returns whether a reader of `attempt`, the beginning of another attempt's stream, may have
    /// received events that differ from the events skipped here: `attempt` has as many events, and
    /// they differ.
    pub fn is_contradicted_by(&self, attempt: &[u8]) -> bool {
        let mut attempted = Self::after(self.after);
        attempted.push(attempt);
        let has_all = self.after.is_some_and(|after| attempted.events > after);
        has_all && attempted.skipped.finalize() != self.skipped.clone().finalize()
    }
}

fn find(bytes: &[u8]) -> Option<usize> {
    bytes.windows(SEPARATOR.len()).position(|window| window == SEPARATOR)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(range: std::ops::Range<u64>, word: &str) -> String {
        range.map(|number| format!("event: e\ndata: {{\"n\":{number},\"word\":\"{word}\"}}\n\n")).collect()
    }

    proptest! {
        /// Chunk boundaries do not matter: the reader gets exactly the events after the given
        /// event.
        #[test]
        fn a_stream_resumes_after_any_event(count in 0..20_u64, after: Option<u8>, cuts: Vec<prop::sample::Index>) {
            let (after, whole) = (after.map(|after| u64::from(after) % 25), events(0..count, "w"));
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).chain([0, whole.len()]).collect();
            at.sort_unstable();
            let mut resumed = ResumedStream::after(after);
            let received: Vec<u8> =
                at.windows(2).flat_map(|pair| resumed.push(&whole.as_bytes()[pair[0]..pair[1]])).collect();
            let first = after.map_or(0, |after| after + 1).min(count);
            prop_assert_eq!(String::from_utf8(received).expect("UTF-8"), events(first..count, "w"));
            prop_assert_eq!(resumed.events(), count);
        }
    }

    #[test]
    fn a_stream_contradicts_only_if_it_has_as_many_events_and_they_differ() {
        let mut resumed = ResumedStream::after(Some(4));
        resumed.push(events(0..9, "a").as_bytes());
        assert!(!resumed.is_contradicted_by(events(0..9, "a").as_bytes()), "it is the same stream");
        assert!(!resumed.is_contradicted_by(events(0..4, "b").as_bytes()), "no reader received event 4 of it");
        assert!(resumed.is_contradicted_by(events(0..5, "b").as_bytes()));
        let late = format!("{}{}", events(0..5, "a"), events(5..9, "b"));
        assert!(!resumed.is_contradicted_by(late.as_bytes()), "its first five events are the same");
        assert!(!ResumedStream::after(None).is_contradicted_by(events(0..5, "b").as_bytes()));
    }

    #[test]
    fn the_last_event_has_the_response() {
        let stream = "event: a\ndata: {\"response\":{\"id\":1}}\n\nevent: b\ndata: {\"response\":{\"id\":2}}\n\n";
        assert_eq!(last_response(stream.as_bytes()), Some(json!({"id": 2})));
        assert_eq!(last_response(b"{}"), None);
    }
}
