//! What the `spillway` command does, for its main and for tests.

pub mod admin;
pub mod bench;
mod demo;
pub mod local;
pub mod replay;
pub mod serve;
mod server;
pub mod settings;
mod shutdown;
pub mod stand_ins;
pub mod tls;
pub mod world;
