//! The Bedrock Runtime stand-in, seen through the unmodified AWS SDK and on the wire.

mod bodies;
mod calls;
mod capacity;
mod disturbances;
mod embeddings;
mod guardrails;
mod streams;
mod support;
mod thoughts;
mod wire;
