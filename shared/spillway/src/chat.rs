//! One chat, in the only shape Spillway can send: Bedrock's Converse.
//!
//! Bodies stay JSON. We parse what we act on and carry the rest, so a field that Bedrock adds tomorrow passes through
//! today, and no dialect needs to know every block type.

mod problem;

use serde_json::{Map, Value};

pub use problem::{Kind, Payer, Problem};

/// A request for one model answer, whatever dialect it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model as the caller named it: a public name, a Bedrock id or an ARN, percent-decoded.
    pub model: String,
    /// The body of a Converse call (`messages`, `system`, `inferenceConfig`, `toolConfig`, …), without `modelId`.
    pub body: Map<String, Value>,
    /// Whether the answer is wanted as a stream.
    pub stream: bool,
    /// The output limit that the caller asked for, in tokens; also in `body` when present.
    pub max_tokens: Option<u64>,
    /// Whether an OpenAI stream ends with a usage chunk (`stream_options.include_usage`).
    pub include_usage: bool,
    /// Parameters that were understood and have no effect here; named to the caller in `x-spillway-ignored`.
    pub ignored: Vec<String>,
}

/// A complete answer: the body of a Converse reply (`output`, `stopReason`, `usage`, `metrics`, …).
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The reply's JSON body as Bedrock sent it.
    pub body: Value,
    /// Its `usage`, parsed.
    pub usage: Usage,
}

/// One event of a ConverseStream reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The `:event-type` header: `messageStart`, `contentBlockStart`, `contentBlockDelta`, `contentBlockStop`,
    /// `messageStop`, `metadata`, or one that we do not know and carry.
    pub name: String,
    /// The event's JSON payload.
    pub payload: Value,
}

/// Tokens that the model reports, as in Converse's `usage`. `input_tokens` excludes cached ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens read and charged in full.
    pub input_tokens: u64,
    /// Output tokens produced.
    pub output_tokens: u64,
    /// Input tokens read from the prompt cache.
    pub cache_read_input_tokens: u64,
    /// Input tokens written to the prompt cache.
    pub cache_write_input_tokens: u64,
}

impl Usage {
    /// All input tokens, cached or not.
    pub fn all_input_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.cache_read_input_tokens).saturating_add(self.cache_write_input_tokens)
    }

    /// Reads the `usage` object of a Converse reply or metadata event; absent counts are 0.
    pub fn from_converse(usage: &Value) -> Self {
        let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        Self {
            input_tokens: count("inputTokens"),
            output_tokens: count("outputTokens"),
            cache_read_input_tokens: count("cacheReadInputTokens"),
            cache_write_input_tokens: count("cacheWriteInputTokens"),
        }
    }
}
