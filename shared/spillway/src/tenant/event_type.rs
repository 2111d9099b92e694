//! The kinds of events that a webhook endpoint can subscribe to.

use serde::{Deserialize, Serialize};

/// Type of an event. The names for responses and batches are OpenAI's (`openai.types.webhooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    #[serde(rename = "response.completed")]
    ResponseCompleted,
    #[serde(rename = "response.failed")]
    ResponseFailed,
    #[serde(rename = "response.cancelled")]
    ResponseCancelled,
    #[serde(rename = "response.incomplete")]
    ResponseIncomplete,
    #[serde(rename = "batch.completed")]
    BatchCompleted,
    #[serde(rename = "batch.failed")]
    BatchFailed,
    #[serde(rename = "batch.expired")]
    BatchExpired,
    #[serde(rename = "batch.cancelled")]
    BatchCancelled,
    #[serde(rename = "job.succeeded")]
    JobSucceeded,
    #[serde(rename = "job.failed")]
    JobFailed,
    #[serde(rename = "job.expired")]
    JobExpired,
    #[serde(rename = "job.cancelled")]
    JobCancelled,
}

impl EventType {
    /// All types.
    pub const ALL: [Self; 12] = [
        Self::ResponseCompleted,
        Self::ResponseFailed,
        Self::ResponseCancelled,
        Self::ResponseIncomplete,
        Self::BatchCompleted,
        Self::BatchFailed,
        Self::BatchExpired,
        Self::BatchCancelled,
        Self::JobSucceeded,
        Self::JobFailed,
        Self::JobExpired,
        Self::JobCancelled,
    ];

    /// Name in events and in the registry.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResponseCompleted => "response.completed",
            Self::ResponseFailed => "response.failed",
            Self::ResponseCancelled => "response.cancelled",
            Self::ResponseIncomplete => "response.incomplete",
            Self::BatchCompleted => "batch.completed",
            Self::BatchFailed => "batch.failed",
            Self::BatchExpired => "batch.expired",
            Self::BatchCancelled => "batch.cancelled",
            Self::JobSucceeded => "job.succeeded",
            Self::JobFailed => "job.failed",
            Self::JobExpired => "job.expired",
            Self::JobCancelled => "job.cancelled",
        }
    }

    /// Returns the type called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether the event is about a background response.
    pub fn is_response_event(self) -> bool {
        self.name().starts_with("response.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_parsed_back_and_is_the_name_in_the_registry() {
        for kind in EventType::ALL {
            assert_eq!(EventType::parse(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.name());
        }
        assert_eq!(EventType::parse("response.expired"), None);
    }
}
