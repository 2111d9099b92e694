//! Failures that are reported to callers. Each dialect renders them in its own error format.

use crate::{
    quota::{Allowance, Limit, LimitName, LimitState},
    units::Millis,
};

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
    /// The body has a content encoding that is not read (415).
    UnsupportedEncoding,
    /// A limit is reached; `retry_after` is the time until it has room (429).
    Throttled,
    /// The model failed, or its answer cannot be used (502; on Bedrock routes 424
    /// `ModelErrorException`).
    Model,
    /// The model, or a service that the broker depends on, is unavailable (503).
    Unavailable,
    /// The model did not finish in time (504; on Bedrock routes 408 `ModelTimeoutException`).
    Timeout,
    /// An error in Spillway (500).
    Internal,
}

impl Kind {
    /// Whether the caller did nothing wrong: a 5xx, whatever the status is in the caller's dialect.
    pub fn is_server_error(self) -> bool {
        matches!(self, Self::Model | Self::Unavailable | Self::Timeout | Self::Internal)
    }

    /// Name in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::BudgetExhausted => "budget_exhausted",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::Throttled => "throttled",
            Self::Model => "model",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
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
    /// Time until a retry can succeed; only for `Throttled` and `Unavailable`.
    pub retry_after: Option<Millis>,
    /// The limits that refused the request, if limits did.
    pub refused_by: Option<RefusedBy>,
    /// The service of the broker that is unavailable, if that is the reason.
    pub unavailable_service: Option<&'static str>,
    /// The pools that did not take the request. Boxed, because most problems have none.
    pub skipped: Option<Box<SkippedPools>>,
}

/// Code of an error that Bedrock named, such as `InternalServerException`. It is safe to print: a
/// server sends it, so it is cut to 64 ASCII letters and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BedrockErrorCode(String);

/// Maximum length of a [`BedrockErrorCode`].
const MAX_CODE_CHARS: usize = 64;

impl BedrockErrorCode {
    /// Reads the code from the name of an exception. A name may have a namespace before a `#` and
    /// an address after a `:`, and starts with a small letter inside a stream. Returns `None` if
    /// nothing is left.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.rsplit('#').next().and_then(|name| name.split(':').next()).unwrap_or_default();
        let mut chars = name.chars().filter(char::is_ascii_alphanumeric).take(MAX_CODE_CHARS);
        let first = chars.next()?.to_ascii_uppercase();
        Some(Self(std::iter::once(first).chain(chars).collect()))
    }

    /// Returns the code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A pool that did not take a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedPool {
    /// Name of the pool.
    pub pool: String,
    /// The limit that is reached, the outage, or another reason in one word.
    pub reason: &'static str,
    /// The error with which Bedrock answered, if it named one.
    pub error: Option<BedrockErrorCode>,
    /// Whether the pool was called. A pool that is known to be full or out is not.
    pub is_called: bool,
}

impl SkippedPool {
    /// A pool that was not called, for this reason in one word.
    pub fn passed_over(pool: &str, reason: &'static str) -> Self {
        Self { pool: pool.to_owned(), reason, error: None, is_called: false }
    }
}

/// The pools that did not take a request, in the order in which they were tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkippedPools {
    /// The pools.
    pub pools: Vec<SkippedPool>,
    /// Whether they are all pools that the request may use, so that it ended because of them.
    pub is_whole_ladder: bool,
}

impl SkippedPools {
    /// Returns the pools with their reasons, such as `pt: tokens_per_minute, od: error
    /// (InternalServerException)`; `None` if there are none.
    pub fn text(&self) -> Option<String> {
        let text = |skipped: &SkippedPool| match &skipped.error {
            Some(error) => format!("{}: {} ({})", skipped.pool, skipped.reason, error.as_str()),
            None => format!("{}: {}", skipped.pool, skipped.reason),
        };
        let each: Vec<String> = self.pools.iter().map(text).collect();
        Some(each.join(", ")).filter(|text| !text.is_empty())
    }
}

/// The limits that refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusedBy {
    /// Limits of the tenant or of its organisation.
    Limits(Box<ExceededLimits>),
    /// A limit of the tenant for what calls no model.
    Allowance(Allowance),
    /// The pools of the model: each is full, or smaller than the request.
    Pools,
}

/// Limits of a tenant or organisation that have no room for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceededLimits {
    /// The name of the tenant or organisation that the limits belong to.
    pub payer: String,
    /// The limits that refused, most binding first.
    pub limits: Vec<Limit>,
    /// The state of all its limits at the refusal; empty if it was not read, because the request
    /// could never fit.
    pub limit_states: Vec<LimitState>,
}

impl RefusedBy {
    /// Returns the names of the limits, most binding first.
    pub fn limit_names(&self) -> Vec<LimitName> {
        match self {
            Self::Limits(exceeded) => exceeded.limits.iter().copied().map(LimitName::Account).collect(),
            Self::Allowance(allowance) => vec![LimitName::Allowance(*allowance)],
            Self::Pools => vec![LimitName::ModelCapacity],
        }
    }
}

impl Problem {
    /// A service that the broker depends on is unavailable. Nothing is admitted without it.
    pub fn unavailable(service: &'static str) -> Self {
        let message = format!("The {service} cannot be reached; nothing was charged. Try again.");
        Self {
            retry_after: Some(Millis::from_s(1)),
            unavailable_service: Some(service),
            ..Self::new(Kind::Unavailable, message)
        }
    }

    /// A failure of `kind`, with `message` for the caller.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            param: None,
            retry_after: None,
            refused_by: None,
            unavailable_service: None,
            skipped: None,
        }
    }

    /// A wrong field: `message` says what is wrong with `param` and what would be right.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(Kind::Invalid, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_server_is_reduced_to_letters_and_digits() {
        let code = |name: &str| BedrockErrorCode::parse(name).map(|code| code.as_str().to_owned());
        assert_eq!(code("InternalServerException").as_deref(), Some("InternalServerException"));
        assert_eq!(code("internalServerException").as_deref(), Some("InternalServerException"), "inside a stream");
        assert_eq!(code("com.amazon#AccessDeniedException:http://x/").as_deref(), Some("AccessDeniedException"));
        assert_eq!(code("two words\n{\"a\"}").as_deref(), Some("Twowordsa"));
        assert_eq!(code(&"x".repeat(1_000)).map(|code| code.len()), Some(MAX_CODE_CHARS));
        assert_eq!((code(""), code("…:")), (None, None));
    }

    #[test]
    fn skipped_pools_are_named_with_reason_and_error() {
        let skipped =
            |pool: &str, error| SkippedPool { pool: pool.to_owned(), reason: "error", error, is_called: true };
        let pools = vec![skipped("a", None), skipped("b", BedrockErrorCode::parse("ModelNotReadyException"))];
        let text = SkippedPools { pools, is_whole_ladder: true }.text();
        assert_eq!(text.as_deref(), Some("a: error, b: error (ModelNotReadyException)"));
        assert_eq!(SkippedPools::default().text(), None);
    }

    #[test]
    fn a_problem_is_small_enough_to_be_returned() {
        assert!(size_of::<Problem>() < 128, "{}", size_of::<Problem>());
    }
}
