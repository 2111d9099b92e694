//! The ledger against DynamoDB on the wire.

#[path = "../support/dynamodb.rs"]
mod dynamodb;
#[path = "../quota/item.rs"]
#[allow(dead_code, reason = "the staircase's own tests use the rest of it")]
mod item;
#[path = "../support/world/mod.rs"]
mod world;

mod executors;
mod outcomes;
mod storm;

use aws_sdk_dynamodb::{Client, config::retry::RetryConfig};
use dynamodb::Dynamodb;
use spillway::{
    clock::Clock,
    store::{ledger::Ledger, skew::Skew, tables},
};

async fn start() -> Dynamodb {
    let dynamodb = dynamodb::start().await;
    tables::create_ledger(&dynamodb.client, &dynamodb.table).await.expect("a table");
    dynamodb
}

/// A client of its own, that repeats nothing, as the ledger must have it.
fn client(dynamodb: &Dynamodb) -> Client {
    Client::from_conf(dynamodb.client.config().to_builder().retry_config(RetryConfig::disabled()).build())
}

/// The ledger as another process has it.
fn ledger(dynamodb: &Dynamodb, clock: &Clock) -> Ledger {
    Ledger::new(client(dynamodb), &dynamodb.table, clock.clone(), Skew::new(clock.clone()))
}
