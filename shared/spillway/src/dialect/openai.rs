//! OpenAI's chat completions, responses and embeddings.

mod answer;
mod embeddings;
mod messages;
mod parameters;
mod parts;
mod problem;
mod request;
mod responses;
mod stream;
mod tools;

pub use answer::answer;
pub use embeddings::{answer as embeddings, parse as parse_embeddings};
pub use problem::problem;
pub use request::parse;
pub use responses::{
    ResponseEcho, ResponseState, ResponseStream, ResumedStream, ToolAlias, answer as response, last_response,
    parse as parse_response,
};
pub use stream::CompletionStream;
