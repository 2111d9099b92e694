//! Spillway: admit, route, invoke, settle – or overflow.

// Know: pure decisions. No async, no AWS, no clock.
pub mod batch;
pub mod chat;
mod check;
pub mod job;
mod model_id;
pub mod pace;
pub mod pool;
pub mod price;
pub mod quota;
pub mod stored_headers;
pub mod tenant;
pub mod units;

// Touch: one place per external service.
pub mod model;
pub mod queue;
pub mod store;

// Do.
pub mod blobs;
pub mod broker;
pub mod retry;
pub mod webhook;

// Reached.
pub mod dialect;
pub mod drain;
pub mod http;
pub mod lambda;
pub mod telemetry;

// Held together.
pub mod app;
mod causes;
pub mod clock;
pub mod config;
