//! How an answer is told: in one body or as a stream, in Converse's words or in Anthropic's.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::cache::InputUse;
use super::engine::Answer;
use super::events::Event;

mod anthropic;
mod converse;

/// The two shapes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Converse,
    Anthropic,
}

/// What is known about a call once it has ended.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    pub model_id: String,
    pub message_id: String,
    pub input: InputUse,
    pub latency_ms: u64,
    pub first_token_ms: u64,
    pub service_tier: Option<String>,
    pub latency: Option<String>,
}

/// Output tokens per delta of a stream.
const DELTA_TOKENS: usize = 8;

impl Shape {
    /// The whole answer as one body.
    pub fn body(self, answer: &Answer, receipt: &Receipt) -> Value {
        match self {
            Self::Converse => converse::body(answer, receipt),
            Self::Anthropic => anthropic::body(answer, receipt),
        }
    }

    /// All events of a stream but the last, which needs to know how the call ended.
    pub fn events(self, answer: &Answer, receipt: &Receipt) -> Vec<Event> {
        match self {
            Self::Converse => converse::events(answer),
            Self::Anthropic => anthropic::events(answer, receipt),
        }
    }

    /// The last event of a stream.
    pub fn last_event(self, answer: &Answer, receipt: &Receipt) -> Event {
        match self {
            Self::Converse => converse::last_event(answer, receipt),
            Self::Anthropic => anthropic::last_event(answer, receipt),
        }
    }

    /// The headers that InvokeModel reports its usage in; Converse has none.
    pub fn headers(self, answer: &Answer, receipt: &Receipt) -> Vec<(HeaderName, HeaderValue)> {
        if self == Self::Converse {
            return Vec::new();
        }
        [
            ("x-amzn-bedrock-input-token-count", receipt.input.input_tokens),
            ("x-amzn-bedrock-output-token-count", answer.output_tokens),
            ("x-amzn-bedrock-cache-read-input-token-count", receipt.input.cache_read_tokens),
            ("x-amzn-bedrock-cache-write-input-token-count", receipt.input.cache_write_tokens),
            ("x-amzn-bedrock-invocation-latency", receipt.latency_ms),
        ]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from(value)))
        .into()
    }

    /// The headers that echo how InvokeModel was asked to be served; Converse echoes in its body.
    pub fn echo_headers(self, receipt: &Receipt) -> Vec<(HeaderName, HeaderValue)> {
        if self == Self::Converse {
            return Vec::new();
        }
        let echoes = [
            ("x-amzn-bedrock-service-tier", &receipt.service_tier),
            ("x-amzn-bedrock-performanceconfig-latency", &receipt.latency),
        ];
        echoes
            .into_iter()
            .filter_map(|(name, value)| {
                let value = HeaderValue::from_maybe_shared(Bytes::from(value.clone()?)).ok()?;
                Some((HeaderName::from_static(name), value))
            })
            .collect()
    }
}

/// Cuts an ASCII text into deltas; their tokens add up to those of the text.
fn deltas(text: &str) -> impl Iterator<Item = (String, u64)> {
    text.as_bytes().chunks(DELTA_TOKENS * super::tokens::TOKEN_BYTES).map(|bytes| {
        let piece = String::from_utf8_lossy(bytes).into_owned();
        let tokens = super::tokens::text_tokens(&piece);
        (piece, tokens)
    })
}
