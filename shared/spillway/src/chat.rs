//! One request to a model, in the shapes that Spillway sends: Bedrock's Converse, or the model's own body.
//!
//! Bodies stay JSON. We parse what we act on and carry the rest, so a field that Bedrock adds tomorrow passes through
//! today, and no dialect needs to know every block type.

mod answer;
mod event;
mod format;
mod input;

pub use answer::{Answer, NativeReply, Output};
pub use event::Event;
pub use format::{Format, OutputBound};
pub use input::{Input, Native, Options, Overlaid};

/// A request for one model answer, whatever dialect it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model as the caller named it: a public name, a Bedrock id or an ARN, percent-decoded.
    pub model: String,
    /// What the model is sent.
    pub input: Input,
    /// Whether the answer is wanted as a stream.
    pub stream: bool,
    /// The output limit that the caller asked for, in tokens; also in `input` when present.
    pub max_tokens: Option<u64>,
    /// The service tier that the caller insists on; `None` leaves it to the ladder.
    pub service_tier: Option<String>,
    /// Parameters that were understood and have no effect here; named to the caller in `x-spillway-ignored`.
    pub ignored: Vec<String>,
}
