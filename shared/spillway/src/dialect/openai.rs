//! OpenAI: chat completions and embeddings.

mod answer;
mod embeddings;
mod messages;
mod parameters;
mod parts;
mod problem;
mod request;
mod stream;
mod tools;

pub use answer::answer;
pub use embeddings::{answer as embeddings, parse as parse_embeddings};
pub use problem::problem;
pub use request::parse;
pub use stream::Stream;
