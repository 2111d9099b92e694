//! The dead-letter queue: messages of jobs that failed for good, and why they did.

use std::collections::HashMap;

use aws_sdk_sqs::{
    error::BuildError,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    },
};

use super::{Queue, QueueError};

/// The attributes of a letter, which are its envelope: `reason`, `tenant` and `failed_ms`.
const REASON: &str = "reason";
const TENANT: &str = "tenant";
const FAILED_MS: &str = "failed_ms";

/// A letter to be sent. It holds no text of a prompt or an answer.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// The body of the message that failed: a job's id, unless it was unreadable.
    pub body: &'a str,
    /// Whose job it is, if that is known.
    pub tenant: Option<&'a str>,
    /// Why, in one word.
    pub reason: &'a str,
    /// When it failed, in milliseconds since 1970.
    pub failed_ms: u64,
}

/// A letter as it was received. SQS itself writes no reason: those are of messages whose drain died too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message's own id.
    pub id: String,
    /// A job's id, unless the message was unreadable.
    pub body: String,
    /// Names this receipt.
    pub receipt_handle: String,
    /// Whose job it is, if that is known.
    pub tenant: Option<String>,
    /// Why it is here, if that is known.
    pub reason: Option<String>,
    /// When it failed, or was first sent, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Queue {
    /// Sends a letter.
    ///
    /// # Errors
    /// The queue cannot be reached.
    pub async fn send_letter(&self, letter: &Letter<'_>) -> Result<(), QueueError> {
        let request = self.client.send_message().queue_url(&self.url).message_body(letter.body);
        let request = request.message_attributes(REASON, attribute("String", letter.reason)?);
        let request = request.message_attributes(FAILED_MS, attribute("Number", &letter.failed_ms.to_string())?);
        let request = match letter.tenant {
            Some(tenant) => request.message_attributes(TENANT, attribute("String", tenant)?).message_group_id(tenant),
            None => request,
        };
        request.send().await?;
        Ok(())
    }

    /// Receives up to ten letters and hides them for `hidden_s` seconds.
    ///
    /// # Errors
    /// The queue cannot be reached.
    pub async fn receive_letters(&self, hidden_s: u32) -> Result<Vec<DeadLetter>, QueueError> {
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
        let request = request.visibility_timeout(super::small(hidden_s, super::LONGEST_HIDDEN_S));
        let request = request.message_attribute_names("All").wait_time_seconds(1);
        let request = request
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId);
        let received = request.send().await?;
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(DeadLetter::read).collect())
    }

    /// Shows letters again that were received.
    ///
    /// # Errors
    /// The queue cannot be reached. They are seen again when their time is over.
    pub async fn show_again(&self, letters: &[DeadLetter]) -> Result<(), QueueError> {
        for ten in letters.chunks(10) {
            let mut request = self.client.change_message_visibility_batch().queue_url(&self.url);
            for (place, letter) in ten.iter().enumerate() {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(place.to_string())
                    .receipt_handle(&letter.receipt_handle)
                    .visibility_timeout(0);
                request = request.entries(entry.build()?);
            }
            request.send().await?;
        }
        Ok(())
    }

    /// About how many messages the queue holds, whether or not they can be received now.
    ///
    /// # Errors
    /// The queue cannot be reached.
    pub async fn about_held(&self) -> Result<u64, QueueError> {
        let counts = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let asked = self.client.get_queue_attributes().queue_url(&self.url);
        let told = asked.set_attribute_names(Some(counts.to_vec())).send().await?.attributes.unwrap_or_default();
        Ok(told.values().filter_map(|count| count.parse::<u64>().ok()).sum())
    }
}

impl DeadLetter {
    /// `None` for a message without a receipt, which SQS does not send.
    fn read(message: aws_sdk_sqs::types::Message) -> Option<Self> {
        let system = message.attributes.unwrap_or_default();
        let attributes = message.message_attributes.unwrap_or_default();
        let told = |name: &str| text_of(&attributes, name);
        let sent_ms = system.get(&MessageSystemAttributeName::SentTimestamp);
        let failed_ms = told(FAILED_MS).or_else(|| sent_ms.cloned());
        Some(Self {
            tenant: told(TENANT).or_else(|| system.get(&MessageSystemAttributeName::MessageGroupId).cloned()),
            reason: told(REASON),
            since_ms: failed_ms.and_then(|at_ms| at_ms.parse().ok()).unwrap_or_default(),
            id: message.message_id?,
            body: message.body?,
            receipt_handle: message.receipt_handle?,
        })
    }
}

fn text_of(attributes: &HashMap<String, MessageAttributeValue>, name: &str) -> Option<String> {
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
