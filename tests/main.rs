//! The whole product over the stand-ins, called as its clients call it.

mod bad_input;
mod batches;
mod chat;
mod clock;
mod drain;
mod durability;
mod events;
mod fairness;
mod jobs_api;
mod ladder;
mod large_bodies;
mod ledger_writes;
mod limits;
mod models_and_quota;
mod native;
mod operator;
mod organisations;
mod overflow;
mod responses;
mod retries;
mod right_sizing;
mod streams;
mod support;
mod tidy;
mod transport;
mod webhooks;
