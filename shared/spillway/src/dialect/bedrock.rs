//! Bedrock's own APIs: Converse, whose bodies are checked and passed on, and InvokeModel, whose
//! bodies only the model understands.

mod count;
mod guardrail;
mod invoke;
mod members;
mod problem;
mod request;
mod stream;

pub use count::parse as count;
pub use guardrail::GuardrailContent;
pub use invoke::parse as invoke;
pub use problem::{exception, problem, status};
pub use request::parse;
pub use stream::FrameStream;

use super::json::{Path, Read, sanitized};

/// Reads a service tier; `None` leaves the choice to the operator's ladder.
fn tier(tier: String, at: &Path) -> Read<Option<String>> {
    match tier.as_str() {
        "default" => Ok(None),
        "flex" | "priority" | "reserved" => Ok(Some(tier)),
        unknown => {
            Err(at.error(format_args!("{} is not one of default, flex, priority, reserved", sanitized(unknown))))
        }
    }
}

/// Rejects any latency but the standard. A faster one costs more, and only the operator chooses it.
fn standard_latency(latency: &str, at: &Path) -> Read<()> {
    match latency {
        "standard" => Ok(()),
        unknown => Err(at.error(format_args!("{} is not supported; expected standard", sanitized(unknown)))),
    }
}
