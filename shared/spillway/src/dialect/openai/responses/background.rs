//! Background responses: what is told of one before and instead of its answer, and its stream from any event on.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::{self, End, QUEUED, UNDER_WAY};
use crate::dialect::Context;
use crate::problem::Kind;

/// Where a response stands that has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It waits.
    Queued,
    /// The model works on it.
    InProgress,
    /// Its owner took it back.
    Cancelled,
    /// It came to nothing, for this reason.
    Failed { kind: Kind, message: String },
}

impl Standing {
    /// The response object.
    pub fn response(&self, context: &Context) -> Value {
        let end = match self {
            Self::Queued => QUEUED,
            Self::InProgress => UNDER_WAY,
            Self::Cancelled => End { status: "cancelled", reason: None },
            Self::Failed { .. } => End { status: "failed", reason: None },
        };
        let mut response = answer::response(context, end, Vec::new(), None);
        if let Self::Failed { kind, message } = self {
            response["error"] = json!({"code": error_code(*kind), "message": message});
        }
        response
    }
}

/// The code of a response's `error`, of which OpenAI has few.
pub fn error_code(kind: Kind) -> &'static str {
    match kind {
        Kind::Throttled => "rate_limit_exceeded",
        Kind::Invalid | Kind::TooLarge => "invalid_prompt",
        _ => "server_error",
    }
}

/// The response in the last event of a whole stream.
pub fn last_response(stream: &[u8]) -> Option<Value> {
    let stream = std::str::from_utf8(stream).ok()?;
    let data = stream.lines().rev().find_map(|line| line.strip_prefix("data: "))?;
    let mut event: Value = serde_json::from_str(data).ok()?;
    event.get_mut("response").map(Value::take)
}

/// The events of a stream that follow one of them: the first has number 0, and each has its own.
#[derive(Debug, Clone, Default)]
pub struct Resumed {
    after: Option<u64>,
    /// How many events there were.
    events: u64,
    /// What is there of the next one.
    partial: BytesMut,
    skipped: Sha256,
}

const SEPARATOR: &[u8] = b"\n\n";

impl Resumed {
    /// Those after the event with this number; all of them if there is none.
    pub fn after(after: Option<u64>) -> Self {
        Self { after, ..Self::default() }
    }

    /// The next bytes of the stream; what of them is wanted, in whole events.
    pub fn push(&mut self, bytes: &[u8]) -> Bytes {
        // A separator may have begun before these bytes.
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

    /// How many whole events there were, skipped ones among them.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The number of the event after which to go on from here.
    pub fn last(&self) -> Option<u64> {
        self.events.checked_sub(1).max(self.after)
    }

    /// Whether `other`, the start of another stream, can have given its reader other events than those that were skipped
    /// here: it was as long, and not the same.
    pub fn is_contradicted_by(&self, other: &[u8]) -> bool {
        let mut others = Self::after(self.after);
        others.push(other);
        let has_all = self.after.is_some_and(|after| others.events > after);
        has_all && others.skipped.finalize() != self.skipped.clone().finalize()
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
        /// Whatever the pieces: those who ask for what follows an event get exactly that.
        #[test]
        fn a_stream_goes_on_after_any_event(count in 0..20_u64, after: Option<u8>, cuts: Vec<prop::sample::Index>) {
            let (after, whole) = (after.map(|after| u64::from(after) % 25), events(0..count, "w"));
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).chain([0, whole.len()]).collect();
            at.sort_unstable();
            let mut resumed = Resumed::after(after);
            let told: Vec<u8> =
                at.windows(2).flat_map(|pair| resumed.push(&whole.as_bytes()[pair[0]..pair[1]])).collect();
            let first = after.map_or(0, |after| after + 1).min(count);
            prop_assert_eq!(String::from_utf8(told).expect("UTF-8"), events(first..count, "w"));
            prop_assert_eq!(resumed.events(), count);
        }
    }

    #[test]
    fn only_a_stream_that_reached_as_far_and_differs_contradicts() {
        let mut resumed = Resumed::after(Some(4));
        resumed.push(events(0..9, "a").as_bytes());
        assert!(!resumed.is_contradicted_by(events(0..9, "a").as_bytes()), "it is the same");
        assert!(!resumed.is_contradicted_by(events(0..4, "b").as_bytes()), "nobody got event 4 of it");
        assert!(resumed.is_contradicted_by(events(0..5, "b").as_bytes()));
        let late = format!("{}{}", events(0..5, "a"), events(5..9, "b"));
        assert!(!resumed.is_contradicted_by(late.as_bytes()), "it is the same up to there");
        assert!(!Resumed::after(None).is_contradicted_by(events(0..5, "b").as_bytes()));
    }

    #[test]
    fn the_response_is_in_the_last_event() {
        let stream = "event: a\ndata: {\"response\":{\"id\":1}}\n\nevent: b\ndata: {\"response\":{\"id\":2}}\n\n";
        assert_eq!(last_response(stream.as_bytes()), Some(json!({"id": 2})));
        assert_eq!(last_response(b"{}"), None);
    }
}
