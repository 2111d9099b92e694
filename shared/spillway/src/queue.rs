//! SQS: the queues of jobs and of webhooks. A message of the first is a job's id and nothing else, since everything about
//! the job is in the store; one of the second is a small JSON document.

mod dead_letters;

use std::{collections::HashMap, error::Error, sync::Arc};

use anyhow::Context;
use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{MessageSystemAttributeName, QueueAttributeName},
};
use tokio::sync::OnceCell;
use tracing::warn;

pub use dead_letters::{DeadLetter, Letter};

use crate::error_chain::with_causes;

/// The longest that SQS delays a message, in seconds (Amazon SQS Developer Guide, "Amazon SQS delay queues").
const LONGEST_DELAY_S: u64 = 900;

/// The longest that SQS hides a received message, in seconds (Amazon SQS Developer Guide, "visibility timeout").
const LONGEST_HIDDEN_S: i32 = 43_200;

/// How often a message may be received without being deleted before it goes to the dead-letter queue.
pub const MAX_RECEIVES: u32 = 3;

/// SQS did not do what it was asked; it may work later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the queue failed: {0}")]
pub struct QueueError(String);

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message's own id.
    pub id: String,
    /// What it says: the id of a job, or a webhook to deliver.
    pub body: String,
    /// Names this receipt; an older one deletes nothing.
    pub receipt_handle: String,
    /// How often it was received, this time included.
    pub receive_count: u32,
}

/// What a consumer does with a message that it has handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// It can be deleted.
    Done,
    /// It stays: SQS shows it again, and in the end moves it to the dead-letter queue.
    Failed,
}

/// A queue.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    url: String,
    hidden_s: Option<i32>,
    /// The queue's own visibility timeout, in seconds, once it was asked for.
    own_hidden_s: Arc<OnceCell<i32>>,
}

impl Queue {
    /// The queue at `url`.
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into(), hidden_s: None, own_hidden_s: Arc::default() }
    }

    /// The queue called `name`, and beside it `<name>-dead` for messages that were received three times in vain, both
    /// created unless they exist: for places where no template makes them. Gives both. A received message is invisible for
    /// `visibility_s` seconds.
    pub async fn create(client: Client, name: &str, visibility_s: u32) -> anyhow::Result<(Self, Self)> {
        let dead = format!("{name}-dead");
        let two_weeks_s = 14 * 24 * 60 * 60;
        let retention = (QueueAttributeName::MessageRetentionPeriod, two_weeks_s.to_string());
        let dead_url = create(&client, &dead, HashMap::from([retention.clone()])).await?;
        let asked = client.get_queue_attributes().queue_url(&dead_url).attribute_names(QueueAttributeName::QueueArn);
        let answer = asked.send().await.with_context(|| format!("reading the ARN of queue {dead}"))?;
        let dead_arn = answer.attributes().and_then(|attributes| attributes.get(&QueueAttributeName::QueueArn));
        let dead_arn = dead_arn.with_context(|| format!("queue {dead} has no ARN"))?;
        let redrive = serde_json::json!({"deadLetterTargetArn": dead_arn, "maxReceiveCount": MAX_RECEIVES});
        let attributes = HashMap::from([
            retention,
            (QueueAttributeName::VisibilityTimeout, visibility_s.to_string()),
            (QueueAttributeName::RedrivePolicy, redrive.to_string()),
        ]);
        let url = create(&client, name, attributes).await?;
        Ok((Self::new(client.clone(), url), Self::new(client, dead_url)))
    }

    /// The same queue, but what is received from it is invisible for `hidden_s` seconds, whatever the queue is set to.
    pub fn hiding_for(self, hidden_s: u32) -> Self {
        Self { hidden_s: Some(small(hidden_s, LONGEST_HIDDEN_S)), ..self }
    }

    /// Where the queue is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a message, to arrive no earlier than `delay_ms` from now, or than 15 minutes if that is
    /// sooner: SQS delays no longer. Tenants share the queue fairly.
    pub async fn send(&self, body: &str, tenant: &str, delay_ms: u64) -> Result<(), QueueError> {
        let delay_s = i32::try_from(delay_ms.div_ceil(1000).min(LONGEST_DELAY_S)).unwrap_or_default();
        let request = self.client.send_message().queue_url(&self.url).message_body(body);
        request.message_group_id(tenant).delay_seconds(delay_s).send().await?;
        Ok(())
    }

    /// Receives up to `most` messages, of at most 10, and waits up to `wait_s` seconds, of at most 20, for the first.
    pub async fn receive(&self, most: u32, wait_s: u32) -> Result<Vec<Message>, QueueError> {
        let request = self.client.receive_message().queue_url(&self.url);
        let request = request.max_number_of_messages(small(most, 10)).wait_time_seconds(small(wait_s, 20));
        let request = request.message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount);
        let received = request.set_visibility_timeout(self.hidden_s).send().await?;
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(Message::read).collect())
    }

    /// Deletes a message: it is done with.
    pub async fn delete(&self, receipt_handle: &str) -> Result<(), QueueError> {
        self.client.delete_message().queue_url(&self.url).receipt_handle(receipt_handle).send().await?;
        Ok(())
    }

    /// Hides a received message for `visibility_s` seconds from now; 0 shows it again at once.
    pub async fn change_visibility(&self, receipt_handle: &str, visibility_s: u32) -> Result<(), QueueError> {
        let request = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(receipt_handle);
        request.visibility_timeout(small(visibility_s, LONGEST_HIDDEN_S)).send().await?;
        Ok(())
    }
}

impl Queue {
    /// Hides a received message for `for_s` seconds. If this fails, the message is seen again at its visibility timeout,
    /// which is only later.
    pub async fn hide(&self, message: &Message, for_s: u64) {
        if let Err(error) = self.change_visibility(&message.receipt_handle, u32::try_from(for_s).unwrap_or(0)).await {
            warn!(%error, "failed to change a message's visibility");
        }
    }

    /// Hides a message that was just received for `for_ms` milliseconds from now, unless it is hidden for so long anyway.
    ///
    /// # Errors
    /// The queue cannot be reached.
    pub async fn hide_at_least(&self, receipt_handle: &str, for_ms: u64) -> Result<(), QueueError> {
        let for_s = u32::try_from(for_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
        if small(for_s, LONGEST_HIDDEN_S) <= self.hidden_s().await? {
            return Ok(());
        }
        self.change_visibility(receipt_handle, for_s).await
    }

    async fn hidden_s(&self) -> Result<i32, QueueError> {
        if let Some(hidden_s) = self.hidden_s {
            return Ok(hidden_s);
        }
        let name = QueueAttributeName::VisibilityTimeout;
        let asked = async || {
            let request = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(name.clone());
            let attributes = request.send().await?.attributes.unwrap_or_default();
            Ok::<_, QueueError>(attributes.get(&name).and_then(|told| told.parse().ok()).unwrap_or_default())
        };
        self.own_hidden_s.get_or_try_init(asked).await.copied()
    }
}

impl Message {
    /// `None` for a message without a receipt, which SQS does not send.
    fn read(message: aws_sdk_sqs::types::Message) -> Option<Self> {
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

fn small(number: u32, most: i32) -> i32 {
    i32::try_from(number).unwrap_or(most).min(most)
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
