//! Why a job's message is in the dead-letter queue.

use crate::problem::Kind;

/// The reason, in one word for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request cannot be right.
    InvalidRequest,
    /// Its tenant is gone, or may not do that any more.
    NotAllowed,
    /// Its tenant's money is used up.
    BudgetExhausted,
    /// The model failed at every attempt.
    ModelError,
    /// The model did not finish in time at every attempt.
    ModelTimeout,
    /// The model or a service could not be reached, and may have been billed all the same.
    Unavailable,
    /// Our own fault.
    BrokerError,
    /// Every attempt was lost together with the drain that made it.
    AttemptsExhausted,
    /// It failed, and its drain died before it said why; the job's own error does.
    Failed,
    /// The message names a job that does not exist, or is no longer kept.
    UnknownJob,
    /// The message names no job.
    UnreadableMessage,
}

impl Reason {
    /// The reason why a job ends that met a problem of this kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Invalid | Kind::NotFound | Kind::MethodNotAllowed | Kind::Conflict | Kind::TooLarge => {
                Self::InvalidRequest
            }
            Kind::Unauthenticated | Kind::Forbidden => Self::NotAllowed,
            Kind::BudgetExhausted => Self::BudgetExhausted,
            Kind::Model => Self::ModelError,
            Kind::Timeout => Self::ModelTimeout,
            Kind::Unavailable | Kind::Throttled => Self::Unavailable,
            Kind::Internal => Self::BrokerError,
        }
    }

    /// Its name in the message.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotAllowed => "not_allowed",
            Self::BudgetExhausted => "budget_exhausted",
            Self::ModelError => "model_error",
            Self::ModelTimeout => "model_timeout",
            Self::Unavailable => "unavailable",
            Self::BrokerError => "broker_error",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Failed => "failed",
            Self::UnknownJob => "unknown_job",
            Self::UnreadableMessage => "unreadable_message",
        }
    }
}
