//! The library of the `spillway` command, for its `main`, for `spillway-bench` and for tests.

pub mod admin;
pub mod allocator;
mod demo;
pub mod health;
pub mod local;
pub mod replay;
mod seeds;
pub mod serve;
mod server;
pub mod settings;
pub mod shutdown;
pub mod stand_ins;
pub mod tls;
pub mod world;
