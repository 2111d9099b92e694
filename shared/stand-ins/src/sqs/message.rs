//! A message: what its sender gave, and what its deliveries have added since.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A stored message.
#[derive(Debug, Clone)]
pub struct Message {
    pub content: Arc<Content>,
    pub delivery: Delivery,
}

/// What never changes after the send.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Content {
    pub id: String,
    pub body: String,
    pub group: Option<String>,
    pub attributes: BTreeMap<String, AttributeValue>,
    pub trace_header: Option<String>,
    pub sent_ms: u64,
}

/// What deliveries change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Nobody can receive the message before this moment: its delay, or its visibility timeout.
    pub visible_at_ms: u64,
    /// Receives so far. Zero until the first one, so a hidden message with zero is delayed and any other is in flight.
    pub receive_count: u32,
    pub first_received_ms: Option<u64>,
    pub last_received_ms: Option<u64>,
    /// The queue a redrive policy took the message from.
    pub source_arn: Option<String>,
}

impl Message {
    pub fn is_hidden(&self, now_ms: u64) -> bool {
        self.delivery.visible_at_ms > now_ms
    }

    pub fn is_in_flight(&self, now_ms: u64) -> bool {
        self.is_hidden(now_ms) && self.delivery.receive_count > 0
    }
}

/// One message attribute, in the shape it has on the wire.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
pub struct AttributeValue {
    #[serde(default)]
    pub data_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string_value: Option<String>,
    /// Base64, as JSON carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string_list_values: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_list_values: Option<Vec<Value>>,
}

impl AttributeValue {
    pub fn is_binary(&self) -> bool {
        self.data_type.split('.').next() == Some("Binary")
    }

    /// The value as bytes; empty when it is absent or not base64.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match (&self.string_value, &self.binary_value) {
            (_, Some(binary)) if self.is_binary() => Cow::Owned(STANDARD.decode(binary).unwrap_or_default()),
            (Some(text), _) => Cow::Borrowed(text.as_bytes()),
            _ => Cow::Borrowed(&[]),
        }
    }
}

/// The secret by which a consumer acknowledges one particular receive of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub queue: String,
    pub sequence: u64,
    pub message_id: String,
    pub receive_count: u32,
}

impl Receipt {
    pub fn to_handle(&self) -> String {
        STANDARD.encode(serde_json::json!(self).to_string())
    }

    /// `None` when no queue of ours can have issued the handle.
    pub fn from_handle(handle: &str) -> Option<Self> {
        serde_json::from_slice(&STANDARD.decode(handle).ok()?).ok()
    }
}
