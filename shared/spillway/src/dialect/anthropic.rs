//! Anthropic messages.

mod answer;
mod blocks;
mod problem;
mod request;
mod stream;
mod tools;

pub use answer::answer;
pub use problem::problem;
pub use request::parse;
pub use stream::Stream;
