//! Bedrock's exceptions: names, status codes and bodies.

use http::StatusCode;
use serde_json::{Value, json};

use crate::problem::{Kind, Problem};

/// Returns the name of the exception, for `x-amzn-errortype`.
pub fn exception(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid | Kind::TooLarge | Kind::UnsupportedEncoding => "ValidationException",
        Kind::Unauthenticated => "UnrecognizedClientException",
        Kind::BudgetExhausted => "ServiceQuotaExceededException",
        Kind::Forbidden => "AccessDeniedException",
        Kind::NotFound => "ResourceNotFoundException",
        Kind::MethodNotAllowed => "UnknownOperationException",
        Kind::Conflict => "ConflictException",
        Kind::Throttled => "ThrottlingException",
        Kind::Model => "ModelErrorException",
        Kind::Unavailable => "ServiceUnavailableException",
        Kind::Timeout => "ModelTimeoutException",
        Kind::Internal => "InternalServerException",
    }
}

/// Returns the status that AWS sends with the exception.
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid | Kind::BudgetExhausted => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated | Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::Throttled => StatusCode::TOO_MANY_REQUESTS,
        Kind::Model => StatusCode::FAILED_DEPENDENCY,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Timeout => StatusCode::REQUEST_TIMEOUT,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Renders `{"message"}`.
pub fn problem(problem: &Problem) -> Value {
    json!({"message": problem.message})
}
