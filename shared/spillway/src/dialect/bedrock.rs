//! Bedrock's Converse and ConverseStream: the inner shape itself, checked on the way in and framed on the way out.

mod problem;
mod request;
mod stream;

pub use problem::{exception, problem, status};
pub use request::parse;
pub use stream::Stream;
