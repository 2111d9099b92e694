//! DynamoDB for a test: the referee that `SPILLWAY_REFEREE_DYNAMODB` names, or else a new stand-in.

use std::time::Duration;

use aws_sdk_dynamodb::{
    Client,
    config::{Config, Credentials, Region, retry::RetryConfig},
};
use spillway_stand_ins::{
    dynamodb::{Options, serve},
    faults::Faults,
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub struct Dynamodb {
    pub client: Client,
    #[allow(dead_code, reason = "not every test uses it")]
    pub url: String,
    /// Faults of the stand-in. `None` with a referee.
    #[allow(dead_code, reason = "not every test injects faults")]
    pub faults: Option<Faults>,
    /// Name of a table that no other test uses.
    pub table: String,
    _stop: DropGuard,
}

pub async fn start() -> Dynamodb {
    let stop = CancellationToken::new();
    let (url, faults) = match std::env::var("SPILLWAY_REFEREE_DYNAMODB") {
        Ok(url) => (url, None),
        Err(_) => {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            let faults = Faults::default();
            let options = Options { faults: faults.clone(), ..Options::default() };
            tokio::spawn(serve(listener, options, stop.clone()));
            (url, Some(faults))
        }
    };
    let config = Config::builder()
        .behavior_version_latest()
        .endpoint_url(&url)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        // As in production, but without waits between the tries.
        .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
        .build();
    let table = format!("test-{}", Uuid::new_v4());
    Dynamodb { client: Client::from_conf(config), url, faults, table, _stop: stop.drop_guard() }
}
