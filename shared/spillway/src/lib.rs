//! Spillway: admit, route, invoke, settle – or overflow.
//!
//! The modules are listed in import order: a module imports only modules above it. The test in
//! `tests/tidy/layers.rs` enforces this.

// Facts and decisions. No async, no AWS, no clock: time is an argument.
pub mod units;
pub mod outage;
pub mod retention;
mod error_chain;
mod stable_hash;
mod model_id;
pub mod profile_scope;
pub mod stored_headers;
pub mod usage;
pub mod price;
pub mod quota;
pub mod problem;
mod validate;
pub mod tenant;
pub mod chat;
pub mod pool;
pub mod dialect;
pub mod job;
pub mod batch;

// What a process runs with.
pub mod config;
pub mod clock;

// Services: one place for each.
pub mod connections;
pub mod queue;
pub mod blobs;
pub mod store;
pub mod model;
pub mod outbound;

// State of one process.
pub mod telemetry;
pub mod concurrency;
pub mod health;
pub mod prompt_caches;
pub mod body_memory;
pub mod heavy_work;
pub mod idempotency;
pub mod app;

// The product.
pub mod broker;
pub mod allowance;
pub mod webhook;
pub mod overflow;

// Entry points.
pub mod http;
pub mod drain;
pub mod lambda;
