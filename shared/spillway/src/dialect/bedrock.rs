//! Bedrock's own API: Converse, the inner shape itself, checked on the way in and framed on the way out, and InvokeModel,
//! whose bodies only the model understands.

mod count;
mod invoke;
mod problem;
mod request;
mod stream;

pub use count::parse as count;
pub use invoke::parse as invoke;
pub use problem::{exception, problem, status};
pub use request::parse;
pub use stream::Stream;

use super::json::{Path, Read, echo};

/// The tier that the caller insists on; `None` leaves it to the operator's ladder.
fn tier(tier: String, at: &Path) -> Read<Option<String>> {
    match tier.as_str() {
        "default" => Ok(None),
        "flex" | "priority" | "reserved" => Ok(Some(tier)),
        other => Err(at.refuse(format_args!("{} is not one of default, flex, priority, reserved", echo(other)))),
    }
}

/// Refuses a latency that changes the price, which is the operator's to choose.
fn standard_latency(latency: &str, at: &Path) -> Read<()> {
    match latency {
        "standard" => Ok(()),
        other => Err(at.refuse(format_args!("{} is not supported; expected standard", echo(other)))),
    }
}
