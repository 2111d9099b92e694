//! Reasons why a message is in the dead-letter queue.

use crate::problem::Kind;

/// The reason in one word, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The request is invalid.
    InvalidRequest,
    /// The tenant does not exist any more, or lacks the right.
    NotAllowed,
    /// The tenant's budget is used up.
    BudgetExhausted,
    /// Every attempt ended with an error of the model.
    ModelError,
    /// Every attempt ran out of time.
    ModelTimeout,
    /// The model or a service was unavailable. The call may have been billed all the same.
    Unavailable,
    /// The pools of the job's model failed too often or for too long. Nothing was billed.
    PoolsFailed,
    /// Spillway has a bug.
    BrokerError,
    /// The drain of every attempt died.
    AttemptsExhausted,
    /// The job failed, but its drain died before it sent the dead letter. The job's row has the
    /// error.
    Failed,
    /// The message names a job that does not exist or is no longer kept.
    UnknownJob,
    /// The message is not a job id.
    UnreadableMessage,
}

impl FailureReason {
    /// The reason for a job that ended with a problem of this kind.
    pub fn for_kind(kind: Kind) -> Self {
        match kind {
            Kind::Invalid
            | Kind::NotFound
            | Kind::MethodNotAllowed
            | Kind::Conflict
            | Kind::TooLarge
            | Kind::UnsupportedEncoding => Self::InvalidRequest,
            Kind::Unauthenticated | Kind::Forbidden => Self::NotAllowed,
            Kind::BudgetExhausted => Self::BudgetExhausted,
            Kind::Model => Self::ModelError,
            Kind::Timeout => Self::ModelTimeout,
            Kind::Unavailable | Kind::Throttled => Self::Unavailable,
            Kind::Internal => Self::BrokerError,
        }
    }

    /// Name in the dead letter.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotAllowed => "not_allowed",
            Self::BudgetExhausted => "budget_exhausted",
            Self::ModelError => "model_error",
            Self::ModelTimeout => "model_timeout",
            Self::Unavailable => "unavailable",
            Self::PoolsFailed => "pools_failed",
            Self::BrokerError => "broker_error",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Failed => "failed",
            Self::UnknownJob => "unknown_job",
            Self::UnreadableMessage => "unreadable_message",
        }
    }
}
