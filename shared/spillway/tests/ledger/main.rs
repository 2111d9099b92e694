//! The ledger against DynamoDB on the wire.

#[path = "../support/dynamodb.rs"]
mod dynamodb;
#[path = "../quota/item.rs"]
#[allow(dead_code, reason = "the tests of quota use the rest of it")]
mod item;
#[path = "../support/world/mod.rs"]
mod world;

mod executors;
mod names;
mod outcomes;
mod storm;

use aws_sdk_dynamodb::{Client, config::retry::RetryConfig};
use dynamodb::Dynamodb;
use spillway::{
    clock::Clock,
    store::{clock_skew::ClockSkew, ledger::Ledger, tables},
};

async fn start() -> Dynamodb {
    let dynamodb = dynamodb::start().await;
    tables::create_ledger(&dynamodb.client, &dynamodb.table).await.expect("a table");
    dynamodb
}

/// Creates a separate client without retries, which the ledger requires.
fn client(dynamodb: &Dynamodb) -> Client {
    Client::from_conf(dynamodb.client.config().to_builder().retry_config(RetryConfig::disabled()).build())
}

/// Creates the ledger of another process.
fn ledger(dynamodb: &Dynamodb, clock: &Clock) -> Ledger {
    Ledger::new(client(dynamodb), &dynamodb.table, clock.clone(), ClockSkew::new(clock.clone()))
}
