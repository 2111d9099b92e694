//! The Bedrock Runtime stand-in, seen through the unmodified AWS SDK and on the wire.

mod calls;
mod capacity;
mod disturbances;
mod streams;
mod support;
mod wire;
