//! Anthropic messages.

mod answer;
mod betas;
mod blocks;
mod pass_on;
mod problem;
mod relay;
mod request;
mod stream;
mod tools;

pub use answer::answer;
pub use pass_on::pass_on;
pub use problem::problem;
pub use request::parse;
pub use stream::Stream;
