//! The SQS stand-in as an unmodified AWS SDK sees it.

mod batches;
mod dead_letters;
mod delivery;
mod durability;
mod faults;
mod messages;
mod queues;
mod support;
mod wire;
