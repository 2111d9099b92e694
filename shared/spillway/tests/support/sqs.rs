//! SQS for one test: the referee that `SPILLWAY_REFEREE_SQS` names, else a stand-in of its own.

use aws_sdk_sqs::{
    Client,
    config::{Config, Credentials, Region},
};
use spillway::queue::Queue;
use spillway_stand_ins::sqs::{Options, serve};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub struct Sqs {
    pub client: Client,
    /// A queue that no other test uses.
    pub queue: Queue,
    /// Its name.
    pub name: String,
    _stop: DropGuard,
}

/// A received message stays invisible for `visibility_s` seconds.
pub async fn start(visibility_s: u32) -> Sqs {
    let stop = CancellationToken::new();
    let url = match std::env::var("SPILLWAY_REFEREE_SQS") {
        Ok(url) => url,
        Err(_) => {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            tokio::spawn(serve(listener, Options::default(), stop.clone()));
            url
        }
    };
    let config = Config::builder()
        .behavior_version_latest()
        .endpoint_url(url)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .build();
    let client = Client::from_conf(config);
    let name = format!("test-{}", Uuid::new_v4());
    let (queue, _) = Queue::create(client.clone(), &name, visibility_s).await.expect("a queue");
    Sqs { client, queue, name, _stop: stop.drop_guard() }
}
