//! A stand-in on a free port, an SDK client for it, and helpers for the tests.

use std::{fmt::Debug, future::Future, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::{Message, MessageSystemAttributeName, QueueAttributeName},
};
use spillway_stand_ins::{
    clock::Clock,
    sqs::{Options, serve},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running stand-in.
pub struct Sqs {
    /// SDK client.
    pub client: Client,
    /// Clock of the stand-in.
    pub clock: Clock,
    /// URL of the stand-in.
    pub endpoint: String,
    /// Stops the stand-in.
    pub shutdown: CancellationToken,
    /// Task of the server.
    pub server: JoinHandle<anyhow::Result<()>>,
}

impl Sqs {
    /// Starts a stand-in in memory.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts a stand-in with these settings.
    pub async fn start_with(options: Options) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (clock, shutdown) = (options.clock.clone(), CancellationToken::new());
        let server = tokio::spawn(serve(listener, options, shutdown.clone()));
        Self { client: client(&endpoint), clock, endpoint, shutdown, server }
    }

    /// Stops the stand-in.
    pub async fn stop(self) {
        self.shutdown.cancel();
        soon(self.server).await.expect("no panic").expect("a clean end");
    }

    /// Creates a queue with the given attributes and returns its URL.
    pub async fn queue(&self, name: &str, attributes: &[(QueueAttributeName, &str)]) -> String {
        let mut request = self.client.create_queue().queue_name(name);
        for (name, value) in attributes {
            request = request.attributes(name.clone(), *value);
        }
        request.send().await.expect("created").queue_url.expect("a URL")
    }

    /// Creates a queue whose messages move to `{name}-dead` after `max_receive_count` receives.
    /// Returns both URLs.
    pub async fn queue_with_dead_letters(&self, name: &str, max_receive_count: u32) -> (String, String) {
        let dead = self.queue(&format!("{name}-dead"), &[]).await;
        let arn = self.attribute(&dead, QueueAttributeName::QueueArn).await;
        let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{max_receive_count}}}"#);
        (self.queue(name, &[(QueueAttributeName::RedrivePolicy, &policy)]).await, dead)
    }

    /// Returns an attribute of a queue.
    pub async fn attribute(&self, queue: &str, name: QueueAttributeName) -> String {
        let request = self.client.get_queue_attributes().queue_url(queue).attribute_names(name.clone());
        let attributes = request.send().await.expect("attributes").attributes.unwrap_or_default();
        attributes.get(&name).cloned().unwrap_or_default()
    }

    /// Returns the number of visible, in-flight and delayed messages.
    pub async fn counts(&self, queue: &str) -> (String, String, String) {
        (
            self.attribute(queue, QueueAttributeName::ApproximateNumberOfMessages).await,
            self.attribute(queue, QueueAttributeName::ApproximateNumberOfMessagesNotVisible).await,
            self.attribute(queue, QueueAttributeName::ApproximateNumberOfMessagesDelayed).await,
        )
    }

    /// Sends a body and returns the message id.
    pub async fn send(&self, queue: &str, body: &str) -> String {
        let request = self.client.send_message().queue_url(queue).message_body(body);
        request.send().await.expect("sent").message_id.expect("an id")
    }

    /// Sends a body in a message group.
    pub async fn send_in_group(&self, queue: &str, body: &str, group: &str) {
        let request = self.client.send_message().queue_url(queue).message_body(body).message_group_id(group);
        request.send().await.expect("sent");
    }

    /// Receives up to ten messages with all attributes in one call, without waiting.
    pub async fn receive(&self, queue: &str) -> Vec<Message> {
        self.receive_up_to(queue, 10).await
    }

    /// Receives up to `count` messages in one call, without waiting.
    pub async fn receive_up_to(&self, queue: &str, count: i32) -> Vec<Message> {
        let request = self.client.receive_message().queue_url(queue).max_number_of_messages(count);
        let request = request.message_system_attribute_names(MessageSystemAttributeName::All);
        request.message_attribute_names("All").send().await.expect("received").messages.unwrap_or_default()
    }

    /// Deletes a message with its receipt handle.
    pub async fn delete(&self, queue: &str, message: &Message) {
        let request = self.client.delete_message().queue_url(queue).receipt_handle(handle(message));
        request.send().await.expect("deleted");
    }

    /// Advances the clock.
    pub fn advance_s(&self, seconds: u64) {
        self.clock.advance(seconds * 1_000);
    }
}

/// Creates a client that does not retry.
pub fn client(endpoint: &str) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// Returns the bodies of messages.
pub fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().filter_map(Message::body).collect()
}

/// Returns the receipt handle of a message.
pub fn handle(message: &Message) -> &str {
    message.receipt_handle().expect("a receipt handle")
}

/// Returns a system attribute of a message.
pub fn system(message: &Message, name: MessageSystemAttributeName) -> Option<&str> {
    message.attributes().and_then(|attributes| attributes.get(&name)).map(String::as_str)
}

/// Awaits a future and panics if it takes longer than ten seconds.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("done within ten seconds")
}

/// An error response.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// `__type` of the JSON body.
    pub type_name: String,
    /// Code of the query protocol.
    pub code: String,
    /// Text of the error.
    pub message: String,
}

/// Returns the error response of a call that must fail.
pub fn refusal<T: Debug, E: ProvideErrorMetadata + Debug>(result: Result<T, SdkError<E>>) -> Refusal {
    let error = result.expect_err("an error");
    let response = error.raw_response().expect("a response");
    let body: serde_json::Value = serde_json::from_slice(response.body().bytes().expect("bytes")).expect("a JSON body");
    let header = response.headers().get("x-amzn-query-error").expect("x-amzn-query-error");
    assert_eq!(header, format!("{};Sender", error.code().expect("a code")));
    Refusal {
        status: response.status().as_u16(),
        type_name: body["__type"].as_str().unwrap_or_default().to_owned(),
        code: error.code().unwrap_or_default().to_owned(),
        message: body["message"].as_str().unwrap_or_default().to_owned(),
    }
}
