//! Tests of the Bedrock Runtime stand-in through the unmodified AWS SDK and on the wire.

mod bodies;
mod calls;
mod capacity;
mod embeddings;
mod faults;
mod guardrails;
mod streams;
mod support;
mod thinking;
mod wire;
