//! Spillway: admit, route, invoke, settle – or overflow.
//!
//! The modules stand in the order in which they may import each other: a module imports only modules above it. The test
//! `tests/tidy.rs` enforces this.

// Facts and decisions. No async, no AWS, no clock: time is an argument.
pub mod batch;
pub mod chat;
pub mod dialect;
mod error_chain;
pub mod job;
mod model_id;
pub mod pool;
pub mod price;
pub mod problem;
pub mod quota;
pub mod stored_headers;
pub mod tenant;
pub mod units;
pub mod usage;
mod validate;

// What a process runs with.
pub mod clock;
pub mod config;

// Services: one place for each.
pub mod blobs;
pub mod model;
pub mod outbound;
pub mod queue;
pub mod store;

// State of one process.
pub mod app;
pub mod concurrency;
pub mod idempotency;
pub mod telemetry;

// The product.
pub mod broker;
pub mod overflow;
pub mod webhook;

// How it is reached.
pub mod drain;
pub mod http;
pub mod lambda;
