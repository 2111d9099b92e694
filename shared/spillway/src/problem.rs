//! Failures that are reported to callers. Each dialect renders them in its own error format.

use crate::quota::{LimitName, LimitState, Receipt};

/// Kinds of failure that callers can distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong (400).
    Invalid,
    /// No valid key (401).
    Unauthenticated,
    /// The budget is exhausted; a retry does not help (402; on Bedrock routes 400
    /// `ServiceQuotaExceededException`).
    BudgetExhausted,
    /// The key is valid but lacks the permission (403).
    Forbidden,
    /// The route, model or job does not exist for this caller (404).
    NotFound,
    /// The path exists, but not with this method (405).
    MethodNotAllowed,
    /// The resource is in the wrong state for the operation (409).
    Conflict,
    /// The body is too large (413).
    TooLarge,
    /// A limit is reached; `retry_after_ms` is the time until it has room (429).
    Throttled,
    /// The model failed, or its answer cannot be used (502; on Bedrock routes 424
    /// `ModelErrorException`).
    Model,
    /// The model or a service of ours is unavailable (503).
    Unavailable,
    /// The model did not finish in time (504; on Bedrock routes 408 `ModelTimeoutException`).
    Timeout,
    /// An error in Spillway (500).
    Internal,
}

/// A failure as it is reported to the caller. Never contains prompt text, completions or keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The kind of failure.
    pub kind: Kind,
    /// What is wrong, where, and what would be right, in one or two sentences.
    pub message: String,
    /// The wrong field of the request, in the spelling of the caller's dialect
    /// (`messages[0].content`).
    pub param: Option<String>,
    /// Milliseconds until a retry can succeed; only for `Throttled` and `Unavailable`.
    pub retry_after_ms: Option<u64>,
    /// The limits that refused, most binding first; empty when none did.
    pub limits: Vec<LimitName>,
    /// The owner of the limits, and their state.
    pub payer: Option<Box<Payer>>,
    /// The charge that remains because a model may have been billed.
    pub receipt: Option<Box<Receipt>>,
}

/// The owner of the limits that refused: the tenant, or its organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    /// The name of the tenant or organisation.
    pub name: String,
    /// The state of its limits at the refusal; empty if they were not read, because the request
    /// could never fit.
    pub limit_states: Vec<LimitState>,
}

impl Problem {
    /// One of our own services cannot be reached. Nothing is admitted without it.
    pub fn unavailable(service: &str) -> Self {
        let message = format!("The {service} cannot be reached; nothing was charged. Try again.");
        Self { retry_after_ms: Some(1_000), ..Self::new(Kind::Unavailable, message) }
    }

    /// A failure of `kind`, with `message` for the caller.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            param: None,
            retry_after_ms: None,
            limits: Vec::new(),
            payer: None,
            receipt: None,
        }
    }

    /// A wrong field: `message` says what is wrong with `param` and what would be right.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(Kind::Invalid, message) }
    }
}
