//! Tests of the SQS stand-in through the unmodified AWS SDK.

mod batches;
mod dead_letters;
mod delivery;
mod durability;
mod faults;
mod messages;
mod queues;
mod support;
mod wire;
