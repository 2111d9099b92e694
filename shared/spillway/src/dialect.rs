//! The wire formats of callers: OpenAI, Anthropic and Bedrock. Each is translated to and from
//! Bedrock's Converse, or passed on unchanged if the model takes the caller's body.
//!
//! A dialect drops nothing silently. It translates a parameter, or lists it in
//! [`chat::Request::ignored`] because it has no effect here, or rejects it by name because the
//! answer would differ without it.

mod anthropic;
mod api;
mod bedrock;
mod converse;
mod encoder;
mod headers;
pub mod json;
mod limits;
mod media;
mod openai;
mod output_members;
mod reply;
mod resources;
mod sse;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    problem::{Kind, Problem},
    quota::LimitState,
    units::UnixMs,
};

pub use api::{Api, Draft};
pub use bedrock::GuardrailContent;
pub use encoder::Encoder;
pub use openai::{ResponseEcho, ResponseState, ResponseStream, ResumedStream, ToolAlias, last_response};
pub use resources::{check as check_resources, unlisted_guardrail};

/// Maximum size of a request, in bytes: of a body, compressed or not, and of a line of a batch.
/// Parsed, a request can take many times its size. Less fits into an event of Lambda (see the API
/// documentation, "Sizes").
pub const MAX_REQUEST_BYTES: usize = 6 * 1024 * 1024;

/// A caller's wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Bedrock,
}

/// Members of a request that its answer repeats.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerContext {
    /// Id of the request at Spillway. It is part of the answer's id and the value of the dialect's
    /// request id header.
    pub request_id: String,
    /// Model as the caller named it.
    pub model: String,
    /// Time when the answer began. Answers have it in whole seconds.
    pub created_at: UnixMs,
    /// Parameters that only some APIs repeat.
    pub echo: Echo,
}

/// Parameters of a request that shape its answer in some APIs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Echo {
    /// Whether a stream of chat completion chunks ends with the usage
    /// (`stream_options.include_usage`).
    pub include_usage: bool,
    /// Whether vectors are sent in base64 (`encoding_format`).
    pub base64: bool,
    /// Parameters that a response ([`Api::Responses`]) repeats.
    pub response: ResponseEcho,
}

/// A complete reply, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Status code.
    pub status: StatusCode,
    /// Headers that depend on the dialect, including `content-type`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body.
    pub body: Bytes,
}

impl Dialect {
    /// Returns the dialect's name in telemetry events.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Bedrock => "bedrock",
        }
    }

    /// Renders a failure before the first byte of an answer: the status, the headers, which say
    /// when to retry, and the dialect's error body.
    pub fn problem(self, request_id: &str, problem: &Problem) -> Rendered {
        let body = match self {
            Self::OpenAi => openai::problem(problem),
            Self::Anthropic => anthropic::problem(request_id, problem),
            Self::Bedrock => bedrock::problem(problem),
        };
        let mut headers = headers::for_json(self, request_id);
        headers.extend(headers::for_problem(self, problem));
        Rendered { status: self.status(problem.kind), headers, body: Bytes::from(body.to_string()) }
    }

    /// Returns the status of a failure before the first byte of an answer.
    pub fn status(self, kind: Kind) -> StatusCode {
        match self {
            Self::OpenAi | Self::Anthropic => http_status(kind),
            Self::Bedrock => bedrock::status(kind),
        }
    }

    /// Returns the kind of failure for the status of a reply. It inverts
    /// [`problem`](Self::problem), except for kinds that share a status.
    pub fn kind_for_status(status: u16) -> Kind {
        match status {
            400 => Kind::Invalid,
            401 => Kind::Unauthenticated,
            402 => Kind::BudgetExhausted,
            403 => Kind::Forbidden,
            404 => Kind::NotFound,
            405 => Kind::MethodNotAllowed,
            408 | 504 => Kind::Timeout,
            409 => Kind::Conflict,
            413 => Kind::TooLarge,
            415 => Kind::UnsupportedEncoding,
            424 | 502 => Kind::Model,
            429 => Kind::Throttled,
            503 => Kind::Unavailable,
            _ => Kind::Internal,
        }
    }

    /// Returns the headers of a JSON body that depend on the dialect, including `content-type`.
    pub fn json_headers(self, request_id: &str) -> Vec<(HeaderName, HeaderValue)> {
        headers::for_json(self, request_id)
    }

    /// Returns the `content-type` of a stream.
    pub fn stream_content_type(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Anthropic => "text/event-stream",
            Self::Bedrock => "application/vnd.amazon.eventstream",
        }
    }

    /// Returns the headers about the caller's limits: `RateLimit` and `RateLimit-Policy`
    /// (draft-ietf-httpapi-ratelimit-headers) in every dialect, and the dialect's own.
    pub fn limit_headers(self, states: &[LimitState], now: UnixMs) -> Vec<(HeaderName, HeaderValue)> {
        limits::headers(self, states, now)
    }
}

/// Returns the status of a failure in the dialects that follow HTTP.
fn http_status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::BudgetExhausted => StatusCode::PAYMENT_REQUIRED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::Throttled => StatusCode::TOO_MANY_REQUESTS,
        Kind::Model => StatusCode::BAD_GATEWAY,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
