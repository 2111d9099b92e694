//! Events of a streamed answer.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::usage::{Reported, Usage};

/// One event of a stream, in the shape of the request.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamEvent {
    /// An event of ConverseStream.
    Converse {
        /// The `:event-type` header: `messageStart`, `contentBlockStart`, `contentBlockDelta`,
        /// `contentBlockStop`, `messageStop`, `metadata`, or an unknown type, which is passed on.
        name: String,
        /// The event's JSON payload.
        payload: Value,
    },
    /// A chunk of InvokeModelWithResponseStream: the model's own bytes.
    Native(Bytes),
}

/// The members that we read of a chunk. Anthropic's events have a type; other models report their
/// usage in the last event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NativeChunk {
    r#type: Value,
    usage: Value,
    message: Value,
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    metrics: Value,
}

impl NativeChunk {
    fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// The reports of token usage, the most reliable last.
    fn reports(self) -> impl Iterator<Item = Reported> {
        let in_message = self.message.get("usage").cloned().unwrap_or_default();
        [in_message, self.usage, self.metrics].into_iter().filter_map(Reported::read)
    }
}

impl StreamEvent {
    /// Adds the token counts of this event to `usage`, if it has any. Returns whether they are
    /// final.
    pub fn report(&self, usage: &mut Option<Usage>) -> bool {
        match self {
            Self::Converse { payload, .. } => {
                let reported = payload.get("usage").map(Usage::from_converse);
                *usage = reported.or(*usage);
                reported.is_some()
            }
            Self::Native(bytes) => {
                let chunk = NativeChunk::read(bytes);
                let is_final = !chunk.metrics.is_null();
                for reported in chunk.reports() {
                    usage.get_or_insert_default().update(&reported);
                }
                is_final
            }
        }
    }

    /// Whether the event carries output. In a format that we do not know, every chunk does.
    pub fn is_output(&self) -> bool {
        match self {
            Self::Converse { name, .. } => name == "contentBlockDelta",
            Self::Native(bytes) => match NativeChunk::read(bytes).r#type.as_str() {
                Some(kind) => kind == "content_block_delta",
                None => true,
            },
        }
    }
}
