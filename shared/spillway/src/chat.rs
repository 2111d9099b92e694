//! Requests to models and their answers, in the shapes that Spillway sends: Bedrock's Converse, or
//! the model's own body.
//!
//! Bodies stay JSON. Spillway parses the members that it acts on and passes on the rest, so no
//! dialect needs to know every block type. Only the top-level members of Converse must be known,
//! and a member that names a resource is found at any depth.

mod answer;
mod conversation;
mod event;
mod format;
mod input;
mod output_limit;

pub use answer::{Answer, NativeReply, Output};
pub use event::StreamEvent;
pub use format::{Format, OutputBound};
pub use input::{Input, InvokeOptions, NativeInput, Overlaid};
pub use output_limit::CONVERSE_LIMIT_PATHS;

/// A request for one model answer, from any dialect.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model as the caller named it: a public name, a Bedrock id or an ARN, percent-decoded.
    pub model: String,
    /// The body or bodies for the model.
    pub input: Input,
    /// Whether the caller wants a stream.
    pub stream: bool,
    /// The caller's output limit in tokens; also in `input` when present.
    pub max_tokens: Option<u64>,
    /// The service tier that the caller requires; `None` leaves the choice to the ladder.
    pub service_tier: Option<String>,
    /// Known parameters that have no effect here; listed for the caller in `x-spillway-ignored`.
    pub ignored: Vec<String>,
}
