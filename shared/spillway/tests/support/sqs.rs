//! SQS for a test: the referee that `SPILLWAY_REFEREE_SQS` names, or else a new stand-in.

use aws_sdk_sqs::{
    Client,
    config::{Config, Credentials, Region},
};
use spillway::{queue::Queue, units::Millis};
use spillway_stand_ins::sqs::{Options, serve};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub struct Sqs {
    pub client: Client,
    /// A queue that no other test uses.
    pub queue: Queue,
    /// Name of the queue.
    pub name: String,
    _stop: DropGuard,
}

/// Starts SQS with a queue.
pub async fn start(visibility_timeout: Millis) -> Sqs {
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
    let (queue, _) = Queue::create(client.clone(), &name, visibility_timeout).await.expect("a queue");
    Sqs { client, queue, name, _stop: stop.drop_guard() }
}
