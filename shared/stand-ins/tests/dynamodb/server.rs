//! A running stand-in, and SDK calls that the tests share.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::SdkError,
    operation::put_item::PutItemError,
    types::{AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType},
};
use spillway_stand_ins::{
    dynamodb::{Options, serve},
    faults::Faults,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Name of the table.
pub const TABLE: &str = "things";
/// Key attribute.
pub const KEY: &str = "name";
/// Time that the SDK waits for a response.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// A running stand-in.
pub struct Server {
    /// URL of the stand-in.
    pub url: String,
    /// Request counters and injected faults.
    pub faults: Faults,
    /// Task of the server.
    pub serving: JoinHandle<anyhow::Result<()>>,
    shutdown: CancellationToken,
}

impl Server {
    /// Starts a stand-in.
    pub async fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let faults = options.faults.clone();
        let serving = tokio::spawn(serve(listener, options, shutdown.clone()));
        Self { url, faults, serving, shutdown }
    }

    /// Creates the table and returns a client.
    pub async fn client_with_table(&self) -> Client {
        let client = client(&self.url);
        create_table(&client).await;
        client
    }

    /// Stops the stand-in.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

/// Returns a client that does not retry.
pub fn client(url: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(url)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build())
        .build();
    Client::from_conf(config)
}

/// Returns a client without a timeout.
pub fn patient_client(url: &str) -> Client {
    let config = client(url).config().to_builder().timeout_config(TimeoutConfig::disabled()).build();
    Client::from_conf(config)
}

/// Creates the table.
pub async fn create_table(client: &Client) {
    let attribute = AttributeDefinition::builder().attribute_name(KEY).attribute_type(ScalarAttributeType::S);
    let hash = KeySchemaElement::builder().attribute_name(KEY).key_type(KeyType::Hash);
    let request = client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
    let request = request.attribute_definitions(attribute.build().unwrap()).key_schema(hash.build().unwrap());
    request.send().await.unwrap();
}

/// Returns the value of a key.
pub fn key(name: &str) -> AttributeValue {
    AttributeValue::S(name.to_owned())
}

/// Puts an item.
pub async fn put(client: &Client, name: &str) -> Result<(), SdkError<PutItemError>> {
    let request = client.put_item().table_name(TABLE).item(KEY, key(name)).item("written", AttributeValue::Bool(true));
    request.send().await.map(drop)
}

/// Gets an item.
pub async fn get(client: &Client, name: &str) -> Option<HashMap<String, AttributeValue>> {
    let request = client.get_item().table_name(TABLE).key(KEY, key(name)).consistent_read(true);
    request.send().await.unwrap().item
}
