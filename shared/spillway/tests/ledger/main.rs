//! The ledger against DynamoDB on the wire.

#[path = "../support/breaking_proxy.rs"]
mod breaking_proxy;
#[path = "../support/dynamodb.rs"]
mod dynamodb;
#[path = "../quota/item.rs"]
#[allow(dead_code, reason = "the tests of quota use the rest of it")]
mod item;
#[path = "../support/world/mod.rs"]
mod world;

mod broken_connections;
mod executors;
mod names;
mod outcomes;
mod storm;

use aws_sdk_dynamodb::{Client, config::retry::RetryConfig};
use dynamodb::Dynamodb;
use spillway::{
    clock::Clock,
    connections::{HttpClients, ResendingClient},
    store::{clock_skew::ClockSkew, ledger::Ledger, tables},
};

async fn start() -> Dynamodb {
    let dynamodb = dynamodb::start().await;
    tables::create_ledger(&dynamodb.client, &dynamodb.table).await.expect("a table");
    dynamodb
}

/// Creates a separate client without retries.
fn client(dynamodb: &Dynamodb) -> Client {
    Client::from_conf(dynamodb.client.config().to_builder().retry_config(RetryConfig::disabled()).build())
}

/// Creates the ledger of another process.
fn ledger(dynamodb: &Dynamodb, clock: &Clock) -> Ledger {
    ledger_at(dynamodb, clock, &dynamodb.url)
}

/// Creates the ledger of another process, which reaches DynamoDB at `url`.
fn ledger_at(dynamodb: &Dynamodb, clock: &Clock, url: &str) -> Ledger {
    let http = HttpClients::new(clock).expect("HTTP clients");
    let client = ResendingClient::new(&http, |http| {
        let config = client(dynamodb).config().to_builder().endpoint_url(url).http_client(http);
        Client::from_conf(config.build())
    });
    Ledger::new(client, &dynamodb.table, clock.clone(), ClockSkew::new(clock.clone()))
}
