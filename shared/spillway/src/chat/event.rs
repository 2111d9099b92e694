//! Pieces of an answer as it is produced.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::usage::{Reported, Usage};

/// One event of a stream, in the shape that the model was asked in.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An event of ConverseStream.
    Converse {
        /// The `:event-type` header: `messageStart`, `contentBlockStart`, `contentBlockDelta`, `contentBlockStop`,
        /// `messageStop`, `metadata`, or one that we do not know and carry.
        name: String,
        /// The event's JSON payload.
        payload: Value,
    },
    /// A chunk of InvokeModelWithResponseStream: the model's own bytes.
    Native(Bytes),
}

/// What we read of a chunk. Anthropic's events are typed; others report what they used in the last one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    r#type: Value,
    usage: Value,
    message: Value,
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    metrics: Value,
}

impl Chunk {
    fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// What it reports of the tokens used, the most reliable last.
    fn reports(self) -> impl Iterator<Item = Reported> {
        let of_message = self.message.get("usage").cloned().unwrap_or_default();
        [of_message, self.usage, self.metrics].into_iter().filter_map(Reported::read)
    }
}

impl Event {
    /// Takes over the token counts that it reports, if it reports any; whether they are the final ones.
    pub fn report(&self, usage: &mut Option<Usage>) -> bool {
        match self {
            Self::Converse { payload, .. } => {
                let reported = payload.get("usage").map(Usage::from_converse);
                *usage = reported.or(*usage);
                reported.is_some()
            }
            Self::Native(bytes) => {
                let chunk = Chunk::read(bytes);
                let is_final = !chunk.metrics.is_null();
                for reported in chunk.reports() {
                    usage.get_or_insert_default().update(&reported);
                }
                is_final
            }
        }
    }

    /// Whether it carries output. Of a format that we do not know, every chunk does.
    pub fn is_output(&self) -> bool {
        match self {
            Self::Converse { name, .. } => name == "contentBlockDelta",
            Self::Native(bytes) => match Chunk::read(bytes).r#type.as_str() {
                Some(kind) => kind == "content_block_delta",
                None => true,
            },
        }
    }
}
