//! Errors of Bedrock: the name of an exception, its HTTP status and a message.

use http::StatusCode;
use serde_json::json;

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Name of the exception.
    pub code: &'static str,
    /// Text for the caller.
    pub message: String,
}

/// Exceptions of Bedrock Runtime with the statuses of its service model.
const EXCEPTIONS: [(&str, StatusCode, &str); 13] = [
    ("AccessDeniedException", StatusCode::FORBIDDEN, "You don't have access to the model with the specified model ID."),
    (
        "ConflictException",
        StatusCode::BAD_REQUEST,
        "Error occurred because of a conflict while performing an operation.",
    ),
    (
        "InternalServerException",
        StatusCode::INTERNAL_SERVER_ERROR,
        "The system encountered an unexpected error during processing. Try your request again.",
    ),
    ("ModelErrorException", StatusCode::FAILED_DEPENDENCY, "The model failed to process the request."),
    ("ModelNotReadyException", StatusCode::TOO_MANY_REQUESTS, "Model is not ready for inference. Wait and try again."),
    ("ModelTimeoutException", StatusCode::REQUEST_TIMEOUT, "Model has timed out in processing the request."),
    (
        "ResourceNotFoundException",
        StatusCode::NOT_FOUND,
        "Could not resolve the foundation model from the provided model identifier.",
    ),
    ("SerializationException", StatusCode::BAD_REQUEST, "The request body could not be read."),
    (
        "ServiceQuotaExceededException",
        StatusCode::BAD_REQUEST,
        "The request exceeds the service quota for your account.",
    ),
    ("ServiceUnavailableException", StatusCode::SERVICE_UNAVAILABLE, "Bedrock is unable to process your request."),
    ("ThrottlingException", StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS),
    ("UnknownOperationException", StatusCode::NOT_FOUND, "The requested operation is not known to this service."),
    ("ValidationException", StatusCode::BAD_REQUEST, "The input fails to satisfy the constraints of the service."),
];

/// Message if the quota of tokens per minute is exhausted.
pub(super) const TOO_MANY_TOKENS: &str = "Too many tokens, please wait before trying again.";
/// Message if the quota of tokens per day is exhausted.
pub(super) const TOO_MANY_TOKENS_PER_DAY: &str = "Too many tokens per day, please wait before trying again.";
/// Message if the quota of requests per minute is exhausted.
pub(super) const TOO_MANY_REQUESTS: &str = "Too many requests, please wait before trying again.";
/// Message if all provisioned units are busy.
pub(super) const UNITS_BUSY: &str = "Your request rate is too high.";

impl Problem {
    /// Returns the exception with this name and its default message; `None` if Bedrock has no such
    /// exception.
    pub fn from_name(name: &str) -> Option<Self> {
        let (code, status, message) = EXCEPTIONS.iter().find(|(code, ..)| *code == name)?;
        Some(Self { status: *status, code, message: (*message).to_owned() })
    }

    /// Creates a server error with this status.
    pub fn internal(status: StatusCode) -> Self {
        let name = if status == StatusCode::SERVICE_UNAVAILABLE {
            "ServiceUnavailableException"
        } else {
            "InternalServerException"
        };
        Self { status, ..Self::from_code(name) }
    }

    /// Creates a validation error.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::from_code("ValidationException") }
    }

    /// Creates the error for a body that is not JSON or has other types. The message has the
    /// position and never the content.
    pub fn unreadable(error: &serde_json::Error) -> Self {
        let message = format!("The request body could not be read at line {} column {}.", error.line(), error.column());
        Self { message, ..Self::from_code("SerializationException") }
    }

    /// Creates a throttling error.
    pub fn throttled(message: &str) -> Self {
        Self { message: message.to_owned(), ..Self::from_code("ThrottlingException") }
    }

    /// Creates the error for an unknown model.
    pub fn unknown_model() -> Self {
        Self::from_code("ResourceNotFoundException")
    }

    /// Creates the error for an unknown operation.
    pub fn unknown_operation() -> Self {
        Self::from_code("UnknownOperationException")
    }

    /// Creates the error for an unavailable service.
    pub fn unavailable() -> Self {
        Self::from_code("ServiceUnavailableException")
    }

    /// Returns whether this is a throttling error.
    pub fn is_throttle(&self) -> bool {
        self.code == "ThrottlingException"
    }

    /// Returns the value of `x-amzn-errortype`. Bedrock appends a suffix, which clients must
    /// remove.
    pub fn error_type(&self) -> String {
        format!("{}:http://internal.amazon.com/coral/com.amazon.bedrock/", self.code)
    }

    /// Returns the JSON body.
    pub fn body(&self) -> String {
        json!({ "message": self.message }).to_string()
    }

    fn from_code(name: &'static str) -> Self {
        Self::from_name(name).unwrap_or(Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: name,
            message: String::new(),
        })
    }
}
