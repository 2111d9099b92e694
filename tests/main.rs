//! The whole product over the stand-ins, called as its clients call it.

mod bad_input;
mod chat;
mod drain;
mod durability;
mod events;
mod ladder;
mod ledger_writes;
mod limits;
mod models_and_quota;
mod overflow;
mod streams;
mod support;
mod tidy;
