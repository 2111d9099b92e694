//! SQS: the queue of jobs, the queue of webhooks, and their dead-letter queues.
//!
//! A message about a job or a batch is its id and nothing else, because the store has the rest. A
//! message about the turn of a tenant is its name and a number. A message about a webhook is a
//! small JSON document.

mod dead_letters;
mod receiver;

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use anyhow::Context;
use aws_sdk_sqs::{
    Client,
    config::{self, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::{MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry},
};
use tokio::sync::OnceCell;
use tracing::warn;

pub use dead_letters::{DeadLetter, NewDeadLetter};
pub use receiver::receive_until;

use crate::{error_chain::with_causes, units::Millis};

/// Maximum of messages in one receive (Amazon SQS API Reference, "ReceiveMessage").
pub const MAX_MESSAGES: u8 = 10;

/// Number of times that a message is received before SQS moves it to the dead-letter queue. It is
/// larger than the number of attempts at a job, because receives that Lambda throttles count, too.
pub const MAX_RECEIVES: u32 = 5;

/// Maximum delay of a message (Amazon SQS Developer Guide, "Amazon SQS delay queues").
const MAX_DELAY: Millis = Millis::from_s(900);

/// Maximum visibility timeout (Amazon SQS Developer Guide, "visibility timeout").
const MAX_VISIBILITY_TIMEOUT: Millis = Millis::from_s(43_200);

/// Maximum duration of a long poll (Amazon SQS Developer Guide, "short and long polling").
const MAX_LONG_POLL: Millis = Millis::from_s(20);

/// Time that a receive may take beyond its long poll, and its attempts together beyond one attempt.
const RECEIVE_MARGIN: Duration = Duration::from_secs(5);

/// Maximum retention of messages (Amazon SQS Developer Guide, "message retention period").
const MAX_RETENTION: Millis = Millis::from_s(14 * 24 * 60 * 60);

/// SQS is unavailable, or refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the queue failed: {0}")]
pub struct QueueError(String);

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Id of the message.
    pub id: String,
    /// Body: the id of a job or a batch, the turn of a tenant, or a webhook to deliver.
    pub body: String,
    /// Handle of this receive. The handle of an older receive deletes nothing.
    pub receipt_handle: String,
    /// Number of times that the message was received, this time included.
    pub receive_count: u32,
}

/// Result of handling a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// The message can be deleted.
    Done,
    /// The message stays in the queue. SQS shows it again, and moves it to the dead-letter queue
    /// after [`MAX_RECEIVES`].
    Failed,
}

/// A queue.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    url: String,
    visibility_timeout: Option<Millis>,
    /// The visibility timeout that the queue is configured with, once it was read.
    configured_timeout: Arc<OnceCell<Millis>>,
}

impl Queue {
    /// The queue at `url`.
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into(), visibility_timeout: None, configured_timeout: Arc::default() }
    }

    /// Creates the queue called `name` and its dead-letter queue `<name>-dead`, unless they exist.
    /// Returns both. For deployments without a template.
    ///
    /// # Errors
    /// Returns an error if SQS is unavailable, or a queue of this name has other attributes.
    pub async fn create(client: Client, name: &str, visibility_timeout: Millis) -> anyhow::Result<(Self, Self)> {
        let dead = format!("{name}-dead");
        let retention_s = seconds(MAX_RETENTION, MAX_RETENTION).to_string();
        let retention = (QueueAttributeName::MessageRetentionPeriod, retention_s);
        let dead_url = create(&client, &dead, HashMap::from([retention.clone()])).await?;
        let request = client.get_queue_attributes().queue_url(&dead_url).attribute_names(QueueAttributeName::QueueArn);
        let response = request.send().await.with_context(|| format!("reading the ARN of queue {dead}"))?;
        let dead_arn = response.attributes().and_then(|attributes| attributes.get(&QueueAttributeName::QueueArn));
        let dead_arn = dead_arn.with_context(|| format!("queue {dead} has no ARN"))?;
        let redrive = serde_json::json!({"deadLetterTargetArn": dead_arn, "maxReceiveCount": MAX_RECEIVES});
        let timeout_s = seconds(visibility_timeout, MAX_VISIBILITY_TIMEOUT);
        let attributes = HashMap::from([
            retention,
            (QueueAttributeName::VisibilityTimeout, timeout_s.to_string()),
            (QueueAttributeName::RedrivePolicy, redrive.to_string()),
        ]);
        let url = create(&client, name, attributes).await?;
        Ok((Self::new(client.clone(), url), Self::new(client, dead_url)))
    }

    /// The same queue, whose messages are received with this visibility timeout instead of the
    /// configured one.
    pub fn with_visibility_timeout(self, timeout: Millis) -> Self {
        Self { visibility_timeout: Some(timeout), ..self }
    }

    /// URL of the queue.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a message that arrives after `delay`, or after 15 minutes if `delay` is longer,
    /// because SQS has no longer delays. The tenant is the message group, so that SQS treats
    /// tenants fairly.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable.
    pub async fn send(&self, body: &str, tenant: &str, delay: Millis) -> Result<(), QueueError> {
        let request = self.client.send_message().queue_url(&self.url).message_body(body);
        request.message_group_id(tenant).delay_seconds(seconds(delay, MAX_DELAY)).send().await?;
        Ok(())
    }

    /// Sends messages of one tenant, each with its delay, up to [`MAX_MESSAGES`] in a request.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable, or refused a message. Other messages may have
    /// been sent.
    pub async fn send_all(&self, messages: &[(String, Millis)], tenant: &str) -> Result<(), QueueError> {
        for messages in messages.chunks(MAX_MESSAGES.into()) {
            let entry = |(number, (body, delay)): (usize, &(String, Millis))| {
                let entry = SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(body);
                entry.message_group_id(tenant).delay_seconds(seconds(*delay, MAX_DELAY)).build()
            };
            let entries = messages.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>();
            let entries = entries.map_err(|error| QueueError(error.to_string()))?;
            let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
            if let Some(failed) = request.send().await?.failed.first() {
                return Err(QueueError(format!("a message was refused: {}", failed.code)));
            }
        }
        Ok(())
    }

    /// Receives up to `max_messages` messages, but at most [`MAX_MESSAGES`]. Waits up to
    /// `long_poll`, but at most 20 seconds, for the first.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable.
    pub async fn receive(&self, max_messages: usize, long_poll: Millis) -> Result<Vec<Message>, QueueError> {
        let max_messages = u8::try_from(max_messages).unwrap_or(u8::MAX).min(MAX_MESSAGES);
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(max_messages.into());
        let request = request.wait_time_seconds(seconds(long_poll, MAX_LONG_POLL));
        let request = request.message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount);
        let timeout_s = self.visibility_timeout.map(|timeout| seconds(timeout, MAX_VISIBILITY_TIMEOUT));
        let attempt = Duration::from(long_poll.min(MAX_LONG_POLL)) + RECEIVE_MARGIN;
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(attempt);
        let timeouts = timeouts.operation_timeout(attempt + RECEIVE_MARGIN).build();
        let request = request.set_visibility_timeout(timeout_s).customize();
        let received = request.config_override(config::Builder::new().timeout_config(timeouts)).send().await?;
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(Message::from_sdk).collect())
    }

    /// Deletes a message that was handled.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable.
    pub async fn delete(&self, receipt_handle: &str) -> Result<(), QueueError> {
        self.client.delete_message().queue_url(&self.url).receipt_handle(receipt_handle).send().await?;
        Ok(())
    }

    /// Hides a received message for `timeout` from now. Zero makes it visible immediately.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable.
    pub async fn change_visibility(&self, receipt_handle: &str, timeout: Millis) -> Result<(), QueueError> {
        let request = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(receipt_handle);
        request.visibility_timeout(seconds(timeout, MAX_VISIBILITY_TIMEOUT)).send().await?;
        Ok(())
    }

    /// Hides a received message for `timeout` from now. If this fails, the message becomes visible
    /// at the end of its visibility timeout, which is only later.
    pub async fn hide(&self, message: &Message, timeout: Millis) {
        if let Err(error) = self.change_visibility(&message.receipt_handle, timeout).await {
            warn!(%error, "failed to change the visibility timeout of a message");
        }
    }

    /// Hides a message that was just received for at least `timeout`. Sends no request if its
    /// visibility timeout is long enough.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable.
    pub async fn hide_at_least(&self, receipt_handle: &str, timeout: Millis) -> Result<(), QueueError> {
        if timeout.min(MAX_VISIBILITY_TIMEOUT) <= self.visibility_timeout().await? {
            return Ok(());
        }
        self.change_visibility(receipt_handle, timeout).await
    }

    async fn visibility_timeout(&self) -> Result<Millis, QueueError> {
        if let Some(timeout) = self.visibility_timeout {
            return Ok(timeout);
        }
        let name = QueueAttributeName::VisibilityTimeout;
        let read = async || {
            let request = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(name.clone());
            let attributes = request.send().await?.attributes.unwrap_or_default();
            let timeout_s = attributes.get(&name).and_then(|value| value.parse().ok());
            Ok::<_, QueueError>(timeout_s.map(Millis::from_s).unwrap_or_default())
        };
        self.configured_timeout.get_or_try_init(read).await.copied()
    }
}

impl Message {
    /// Returns `None` for a message without a receipt handle, which SQS does not send.
    fn from_sdk(message: aws_sdk_sqs::types::Message) -> Option<Self> {
        let count = message.attributes.as_ref()?.get(&MessageSystemAttributeName::ApproximateReceiveCount)?;
        Some(Self {
            receive_count: count.parse().ok()?,
            id: message.message_id?,
            body: message.body?,
            receipt_handle: message.receipt_handle?,
        })
    }
}

async fn create(
    client: &Client,
    name: &str,
    attributes: HashMap<QueueAttributeName, String>,
) -> anyhow::Result<String> {
    let created = client.create_queue().queue_name(name).set_attributes(Some(attributes)).send().await;
    let url = created.with_context(|| format!("creating queue {name}"))?.queue_url;
    url.with_context(|| format!("queue {name} has no URL"))
}

/// Returns `length` in seconds, rounded up, but at most `max`.
fn seconds(length: Millis, max: Millis) -> i32 {
    i32::try_from(length.min(max).as_s_rounded_up()).unwrap_or(i32::MAX)
}

impl<E, R> From<SdkError<E, R>> for QueueError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    fn from(error: SdkError<E, R>) -> Self {
        Self(with_causes(&error))
    }
}
