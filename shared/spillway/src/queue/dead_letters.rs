//! The dead-letter queue: messages of jobs that failed permanently, with the reason.

use std::collections::HashMap;

use aws_sdk_sqs::{
    error::BuildError,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    },
};

use super::{MAX_MESSAGES, MAX_VISIBILITY_TIMEOUT, Queue, QueueError, seconds};
use crate::units::{Millis, UnixMs};

/// Message attributes of a dead letter.
const REASON: &str = "reason";
const TENANT: &str = "tenant";
const FAILED_MS: &str = "failed_ms";

/// A dead letter to send. It contains no text of a prompt or an answer.
#[derive(Debug, Clone, Copy)]
pub struct NewDeadLetter<'a> {
    /// Body of the message that failed: the id of a job, unless the message was unreadable.
    pub body: &'a str,
    /// Name of the tenant, if it is known.
    pub tenant: Option<&'a str>,
    /// The reason in one word.
    pub reason: &'a str,
    /// Time of the failure.
    pub failed_at: UnixMs,
}

/// A dead letter that was received. SQS itself sends dead letters without a reason, for messages
/// whose drain died too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Id of the message.
    pub id: String,
    /// Id of a job, unless the message was unreadable.
    pub body: String,
    /// Handle of this receive.
    pub receipt_handle: String,
    /// Name of the tenant, if it is known.
    pub tenant: Option<String>,
    /// The reason, if it is known.
    pub reason: Option<String>,
    /// Time of the failure, or time when the message was first sent.
    pub since: UnixMs,
}

impl Queue {
    /// Sends a dead letter.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable.
    pub async fn send_dead_letter(&self, letter: &NewDeadLetter<'_>) -> Result<(), QueueError> {
        let request = self.client.send_message().queue_url(&self.url).message_body(letter.body);
        let request = request.message_attributes(REASON, attribute("String", letter.reason)?);
        let request = request.message_attributes(FAILED_MS, attribute("Number", &letter.failed_at.to_string())?);
        let request = match letter.tenant {
            Some(tenant) => request.message_attributes(TENANT, attribute("String", tenant)?).message_group_id(tenant),
            None => request,
        };
        request.send().await?;
        Ok(())
    }

    /// Receives up to ten dead letters and hides them for `visibility_timeout`.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable.
    pub async fn receive_dead_letters(&self, visibility_timeout: Millis) -> Result<Vec<DeadLetter>, QueueError> {
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(MAX_MESSAGES.into());
        let request = request.visibility_timeout(seconds(visibility_timeout, MAX_VISIBILITY_TIMEOUT));
        let request = request.message_attribute_names("All").wait_time_seconds(1);
        let request = request
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId);
        let received = request.send().await?;
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(DeadLetter::from_sdk).collect())
    }

    /// Makes received dead letters visible again.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable. The dead letters then become visible at the
    /// end of their visibility timeout.
    pub async fn make_visible(&self, letters: &[DeadLetter]) -> Result<(), QueueError> {
        for chunk in letters.chunks(MAX_MESSAGES.into()) {
            let mut request = self.client.change_message_visibility_batch().queue_url(&self.url);
            for (index, letter) in chunk.iter().enumerate() {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(&letter.receipt_handle)
                    .visibility_timeout(0);
                request = request.entries(entry.build()?);
            }
            request.send().await?;
        }
        Ok(())
    }

    /// Returns the approximate number of messages in the queue, visible or not.
    ///
    /// # Errors
    /// Returns an error if the queue is unavailable.
    pub async fn approximate_count(&self) -> Result<u64, QueueError> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let counts = request.set_attribute_names(Some(names.to_vec())).send().await?.attributes.unwrap_or_default();
        Ok(counts.values().filter_map(|count| count.parse::<u64>().ok()).sum())
    }
}

impl DeadLetter {
    /// Returns `None` for a message without a receipt handle, which SQS does not send.
    fn from_sdk(message: aws_sdk_sqs::types::Message) -> Option<Self> {
        let system = message.attributes.unwrap_or_default();
        let attributes = message.message_attributes.unwrap_or_default();
        let text = |name: &str| text_in(&attributes, name);
        let sent_ms = system.get(&MessageSystemAttributeName::SentTimestamp);
        let since_ms = text(FAILED_MS).or_else(|| sent_ms.cloned()).and_then(|at_ms| at_ms.parse().ok());
        Some(Self {
            tenant: text(TENANT).or_else(|| system.get(&MessageSystemAttributeName::MessageGroupId).cloned()),
            reason: text(REASON),
            since: since_ms.map(UnixMs::from_ms).unwrap_or_default(),
            id: message.message_id?,
            body: message.body?,
            receipt_handle: message.receipt_handle?,
        })
    }
}

fn text_in(attributes: &HashMap<String, MessageAttributeValue>, name: &str) -> Option<String> {
    attributes.get(name)?.string_value.clone()
}

fn attribute(kind: &str, value: &str) -> Result<MessageAttributeValue, BuildError> {
    MessageAttributeValue::builder().data_type(kind).string_value(value).build()
}

impl From<BuildError> for QueueError {
    fn from(error: BuildError) -> Self {
        Self(error.to_string())
    }
}
