//! Errors as Bedrock words them: an exception's name, its HTTP status, and a message.

use http::StatusCode;
use serde_json::json;

/// One error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

/// The exceptions of Bedrock Runtime and the statuses of its service model.
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

/// The quota of tokens per minute is spent.
pub(super) const TOO_MANY_TOKENS: &str = "Too many tokens, please wait before trying again.";
/// The quota of requests per minute is spent.
pub(super) const TOO_MANY_REQUESTS: &str = "Too many requests, please wait before trying again.";
/// Every provisioned unit is busy.
pub(super) const UNITS_BUSY: &str = "Your request rate is too high.";

impl Problem {
    /// The exception of this name with its usual message, or nothing if Bedrock has none of that name.
    pub fn named(name: &str) -> Option<Self> {
        let (code, status, message) = EXCEPTIONS.iter().find(|(code, ..)| *code == name)?;
        Some(Self { status: *status, code, message: (*message).to_owned() })
    }

    pub fn internal(status: StatusCode) -> Self {
        let name = if status == StatusCode::SERVICE_UNAVAILABLE {
            "ServiceUnavailableException"
        } else {
            "InternalServerException"
        };
        Self { status, ..Self::known(name) }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::known("ValidationException") }
    }

    /// A body that is no JSON, or JSON of other types. The message names the place and never the content.
    pub fn unreadable(error: &serde_json::Error) -> Self {
        let message = format!("The request body could not be read at line {} column {}.", error.line(), error.column());
        Self { message, ..Self::known("SerializationException") }
    }

    pub fn throttled(message: &str) -> Self {
        Self { message: message.to_owned(), ..Self::known("ThrottlingException") }
    }

    pub fn unknown_model() -> Self {
        Self::known("ResourceNotFoundException")
    }

    pub fn unknown_operation() -> Self {
        Self::known("UnknownOperationException")
    }

    pub fn unavailable() -> Self {
        Self::known("ServiceUnavailableException")
    }

    pub fn is_throttle(&self) -> bool {
        self.code == "ThrottlingException"
    }

    /// The value of `x-amzn-errortype`, with the suffix that Bedrock appends and every client must cut off.
    pub fn error_type(&self) -> String {
        format!("{}:http://internal.amazon.com/coral/com.amazon.bedrock/", self.code)
    }

    pub fn body(&self) -> String {
        json!({ "message": self.message }).to_string()
    }

    fn known(name: &'static str) -> Self {
        Self::named(name).unwrap_or(Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: name,
            message: String::new(),
        })
    }
}
