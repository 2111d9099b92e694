//! A message: the content from its sender and the state of its deliveries.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A stored message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Content, shared between copies.
    pub content: Arc<Content>,
    /// State of its deliveries.
    pub delivery: Delivery,
}

/// Content of a message, which never changes after the send.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Content {
    /// Message id.
    pub id: String,
    /// Body.
    pub body: String,
    /// `MessageGroupId`.
    pub group: Option<String>,
    /// Message attributes by name.
    pub attributes: BTreeMap<String, AttributeValue>,
    /// `AWSTraceHeader`.
    pub trace_header: Option<String>,
    /// Time of the send, in milliseconds since 1970.
    pub sent_ms: u64,
}

/// State of a message that deliveries change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// End of the delay or of the visibility timeout. No consumer receives the message before this
    /// time.
    pub visible_at_ms: u64,
    /// Number of receives. A hidden message is delayed if this is zero, and otherwise in flight.
    pub receive_count: u32,
    /// Time of the first receive.
    pub first_received_ms: Option<u64>,
    /// Time of the last receive.
    pub last_received_ms: Option<u64>,
    /// Queue from which a redrive policy took the message.
    pub source_arn: Option<String>,
}

impl Message {
    /// Returns whether consumers cannot receive the message at `now_ms`.
    pub fn is_hidden(&self, now_ms: u64) -> bool {
        self.delivery.visible_at_ms > now_ms
    }

    /// Returns whether a consumer holds the message at `now_ms`.
    pub fn is_in_flight(&self, now_ms: u64) -> bool {
        self.is_hidden(now_ms) && self.delivery.receive_count > 0
    }
}

/// A message attribute in its wire format.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
pub struct AttributeValue {
    /// `String`, `Number` or `Binary`, with an optional suffix after a dot.
    #[serde(default)]
    pub data_type: String,
    /// Text or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string_value: Option<String>,
    /// Binary value in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_value: Option<String>,
    /// Not supported by SQS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string_list_values: Option<Vec<Value>>,
    /// Not supported by SQS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_list_values: Option<Vec<Value>>,
}

impl AttributeValue {
    /// Returns whether the data type is binary.
    pub fn is_binary(&self) -> bool {
        self.data_type.split('.').next() == Some("Binary")
    }

    /// Returns the value as bytes; empty if it is absent or not base64.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match (&self.string_value, &self.binary_value) {
            (_, Some(binary)) if self.is_binary() => Cow::Owned(STANDARD.decode(binary).unwrap_or_default()),
            (Some(text), _) => Cow::Borrowed(text.as_bytes()),
            _ => Cow::Borrowed(&[]),
        }
    }
}

/// Content of a receipt handle, with which a consumer acknowledges a specific receive of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Name of the queue.
    pub queue: String,
    /// Sequence number of the message.
    pub sequence: u64,
    /// Message id.
    pub message_id: String,
    /// Number of this receive.
    pub receive_count: u32,
}

impl Receipt {
    /// Encodes the receipt as a receipt handle.
    pub fn to_handle(&self) -> String {
        STANDARD.encode(serde_json::json!(self).to_string())
    }

    /// Decodes a receipt handle; `None` if this stand-in cannot have issued it.
    pub fn from_handle(handle: &str) -> Option<Self> {
        serde_json::from_slice(&STANDARD.decode(handle).ok()?).ok()
    }
}
