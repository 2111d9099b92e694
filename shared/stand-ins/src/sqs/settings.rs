//! Attributes of a queue that its owner sets: defaults, ranges and wire format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    error::{Error, ErrorCode},
    validate,
};

/// Account id of all queues.
pub const ACCOUNT_ID: &str = "000000000000";
const REGION: &str = "us-east-1";

/// Attributes that are stored and returned but have no effect here.
const STORED_WITHOUT_EFFECT: [&str; 5] =
    ["KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId", "Policy", "RedriveAllowPolicy", "SqsManagedSseEnabled"];

/// Settings of a queue.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Settings {
    /// `VisibilityTimeout`.
    pub visibility_s: u32,
    /// `DelaySeconds`.
    pub delay_s: u32,
    /// `MessageRetentionPeriod`.
    pub retention_s: u32,
    /// `MaximumMessageSize`.
    pub max_bytes: u32,
    /// `ReceiveMessageWaitTimeSeconds`.
    pub wait_s: u32,
    /// `RedrivePolicy`.
    pub redrive: Option<Redrive>,
    /// Values of the attributes without effect.
    pub tolerated: BTreeMap<String, String>,
}

/// A redrive policy: when a message moves to a dead-letter queue.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Redrive {
    /// ARN of the dead-letter queue.
    pub dead_letter_target_arn: String,
    /// Receives after which the message moves.
    pub max_receive_count: u32,
}

impl Redrive {
    /// Returns the name of the dead-letter queue.
    pub fn target(&self) -> Option<&str> {
        queue_name_from_arn(&self.dead_letter_target_arn)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            visibility_s: 30,
            delay_s: 0,
            retention_s: 4 * 24 * 3600,
            max_bytes: 1_048_576,
            wait_s: 0,
            redrive: None,
            tolerated: BTreeMap::from([("SqsManagedSseEnabled".to_owned(), "true".to_owned())]),
        }
    }
}

impl Settings {
    /// Returns these settings with the given attributes applied.
    ///
    /// # Errors
    /// Returns an error if an attribute is unknown or has an invalid value.
    pub fn with_attributes(&self, attributes: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut settings = self.clone();
        for (name, value) in attributes {
            settings.set(name, value)?;
        }
        Ok(settings)
    }

    /// Returns all attributes by name, in the format of `GetQueueAttributes`.
    pub fn render(&self) -> BTreeMap<String, String> {
        let mut attributes = self.tolerated.clone();
        let numbers = [
            ("VisibilityTimeout", self.visibility_s),
            ("DelaySeconds", self.delay_s),
            ("MessageRetentionPeriod", self.retention_s),
            ("MaximumMessageSize", self.max_bytes),
            ("ReceiveMessageWaitTimeSeconds", self.wait_s),
        ];
        attributes.extend(numbers.map(|(name, value)| (name.to_owned(), value.to_string())));
        if let Some(redrive) = &self.redrive {
            attributes.insert("RedrivePolicy".to_owned(), json!(redrive).to_string());
        }
        attributes
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        match name {
            "VisibilityTimeout" => self.visibility_s = number(name, value, (0, 43_200))?,
            "DelaySeconds" => self.delay_s = number(name, value, (0, 900))?,
            "MessageRetentionPeriod" => self.retention_s = number(name, value, (60, 1_209_600))?,
            "MaximumMessageSize" => self.max_bytes = number(name, value, (1_024, 1_048_576))?,
            "ReceiveMessageWaitTimeSeconds" => self.wait_s = number(name, value, (0, 20))?,
            "RedrivePolicy" if value.is_empty() => self.redrive = None,
            "RedrivePolicy" => self.redrive = Some(redrive(value)?),
            "FifoQueue" | "ContentBasedDeduplication" | "DeduplicationScope" | "FifoThroughputLimit" => {
                let message = format!("Unknown Attribute {name}. This stand-in supports only standard queues.");
                return Err(Error::new(ErrorCode::InvalidAttributeName, message));
            }
            name if STORED_WITHOUT_EFFECT.contains(&name) && value.is_empty() => drop(self.tolerated.remove(name)),
            name if STORED_WITHOUT_EFFECT.contains(&name) => {
                drop(self.tolerated.insert(name.to_owned(), value.to_owned()))
            }
            _ => return Err(Error::new(ErrorCode::InvalidAttributeName, format!("Unknown Attribute {name}."))),
        }
        Ok(())
    }
}

/// Returns the ARN of a queue.
pub fn queue_arn(name: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT_ID}:{name}")
}

/// Returns the name of the queue in an ARN. Any region is accepted, because clients are configured
/// with different regions.
pub fn queue_name_from_arn(arn: &str) -> Option<&str> {
    let mut parts = arn.strip_prefix("arn:aws:sqs:")?.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(ACCOUNT_ID), Some(name), None) => Some(name),
        _ => None,
    }
}

fn number(name: &str, value: &str, allowed: (u32, u32)) -> Result<u32, Error> {
    let invalid = || Error::new(ErrorCode::InvalidAttributeValue, format!("Invalid value for the parameter {name}."));
    let number = value.trim().parse::<i64>().map_err(|_| invalid())?;
    validate::range(name, Some(number), 0, allowed).map_err(|_| invalid())
}

fn redrive(value: &str) -> Result<Redrive, Error> {
    let invalid = |reason: &str| Error::invalid_value("RedrivePolicy", value, reason);
    let policy: Value = serde_json::from_str(value).map_err(|_| invalid("Redrive policy is not a valid JSON map."))?;
    let arn = policy.get("deadLetterTargetArn").and_then(Value::as_str);
    let arn =
        arn.ok_or_else(|| invalid("Redrive policy does not contain mandatory attribute: deadLetterTargetArn."))?;
    if queue_name_from_arn(arn).is_none() {
        return Err(invalid("Invalid value for deadLetterTargetArn."));
    }
    let count = match policy.get("maxReceiveCount") {
        Some(Value::Number(count)) => count.as_i64(),
        Some(Value::String(count)) => count.parse().ok(),
        _ => return Err(invalid("Redrive policy does not contain mandatory attribute: maxReceiveCount.")),
    };
    match count.and_then(|count| u32::try_from(count).ok()).filter(|count| (1..=1_000).contains(count)) {
        Some(max_receive_count) => Ok(Redrive { dead_letter_target_arn: arn.to_owned(), max_receive_count }),
        None => Err(invalid("Invalid value for maxReceiveCount: must be between 1 and 1000, both inclusive.")),
    }
}
