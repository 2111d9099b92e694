//! Spillway: admit, route, invoke, settle – or overflow.

// Know: pure decisions. No async, no AWS, no clock.
pub mod chat;
mod check;
pub mod job;
pub mod pool;
pub mod price;
pub mod quota;
pub mod tenant;

// Touch: one place per external service.
pub mod queue;
pub mod store;

// Do.

// Reached.
pub mod dialect;

// Held together.
mod causes;
pub mod clock;
pub mod config;
