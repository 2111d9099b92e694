//! What a caller may be told went wrong. Each dialect renders it in its own error shape.

use crate::quota::{LimitName, LimitState, Receipt};

/// The kinds of failure that callers can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be right, now or later (400).
    Invalid,
    /// No valid key (401).
    Unauthenticated,
    /// The money budget is gone; retrying does not help (402, on Bedrock routes 400 `ServiceQuotaExceededException`).
    BudgetExhausted,
    /// A valid key without the right (403).
    Forbidden,
    /// No such route, model or job for this caller (404).
    NotFound,
    /// The path exists, the method does not (405).
    MethodNotAllowed,
    /// The thing is in the wrong state for this (409).
    Conflict,
    /// The body is larger than we take (413).
    TooLarge,
    /// A limit is reached now; `retry_after_ms` says when it frees (429).
    Throttled,
    /// The model failed or answered nonsense (502; on Bedrock routes 424 `ModelErrorException`).
    Model,
    /// The model or one of our own services cannot be reached now (503).
    Unavailable,
    /// The model did not finish in time (504; on Bedrock routes 408 `ModelTimeoutException`).
    Timeout,
    /// Our fault (500).
    Internal,
}

/// A failure as the caller is told it. Never carries prompt text, completions or keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What kind of failure this is.
    pub kind: Kind,
    /// What was wrong, where, and what would be right, in one or two sentences.
    pub message: String,
    /// The request field at fault, as the caller's dialect spells it (`messages[0].content`).
    pub param: Option<String>,
    /// When a retry can succeed, in milliseconds from now; only for `Throttled` and `Unavailable`.
    pub retry_after_ms: Option<u64>,
    /// The limits that refused, most binding first; empty when none did.
    pub limits: Vec<LimitName>,
    /// Whose limits those are, and where they stood.
    pub payer: Option<Box<Payer>>,
    /// What stays charged all the same, because a model may have been billed.
    pub receipt: Option<Box<Receipt>>,
}

/// Whose limits refused: the tenant, or the organisation that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    /// Its name.
    pub name: String,
    /// Where its limits stood at the refusal; empty if they were not asked because the request could never fit.
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

    /// A bad field: what was wrong with `param` and what would be right.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(Kind::Invalid, message) }
    }
}
