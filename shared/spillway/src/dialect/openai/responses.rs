//! OpenAI's responses API, in which a conversation is a list of items.

mod background;
mod encrypted_reasoning;
mod input;
mod item;
mod request;
mod response;
mod stream;
mod tools;

pub use background::{ResponseState, ResumedStream, last_response};
pub use request::parse;
pub use response::{ResponseEcho, ToolAlias, answer};
pub use stream::ResponseStream;
