//! OpenAI's responses: the newer API, in which a conversation is a list of items.

mod answer;
mod background;
mod echo;
mod input;
mod item;
mod request;
mod sealed;
mod stream;
mod tools;
mod voice;

pub use answer::answer;
pub use background::{Resumed, Standing, last_response};
pub use echo::{KnownTool, ResponseEcho};
pub use request::parse;
pub use stream::Stream;
