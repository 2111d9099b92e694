//! Anthropic's messages.

mod answer;
mod betas;
mod blocks;
mod native;
mod problem;
mod request;
mod stream;
mod tools;

pub use answer::answer;
pub use native::request as native_request;
pub use problem::problem;
pub use request::parse;
pub use stream::MessageStream;
