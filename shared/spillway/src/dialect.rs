//! The ways callers speak: OpenAI, Anthropic, Bedrock. Each maps to and from Bedrock's Converse, or passes the body
//! on where the model takes it as it is.
//!
//! A dialect drops nothing silently: a parameter is mapped, named in [`chat::Request::ignored`] because it has no
//! effect here, or refused by name because leaving it out would change what the caller gets.

mod anthropic;
mod api;
mod bedrock;
mod converse;
mod encoder;
mod headers;
mod json;
mod limits;
mod media;
mod openai;
mod reply;
mod sse;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    problem::{Kind, Problem},
    quota,
};

pub use api::{Api, Draft, ModelPath, without_vendor};
pub use encoder::Encoder;
pub use openai::{KnownTool, ResponseEcho, ResponseStream, Resumed, Standing, last_response};

/// A caller's wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Bedrock,
}

/// What an answer repeats from its request.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// Our id of the request; answers carry it in their own id and in the dialect's request id header.
    pub request_id: String,
    /// The model as the caller named it.
    pub model: String,
    /// When the answer began, in seconds since the Unix epoch.
    pub created_s: u64,
    /// What only some APIs repeat.
    pub echo: Echo,
}

/// What the answers of some APIs need of their request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Echo {
    /// Whether a stream of chat completion chunks ends with the usage (`stream_options.include_usage`).
    pub include_usage: bool,
    /// Whether vectors are wanted in base64 (`encoding_format`).
    pub base64: bool,
    /// What a response (`Api::Responses`) repeats.
    pub response: ResponseEcho,
}

/// A complete reply, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The status line.
    pub status: StatusCode,
    /// All headers that depend on the dialect, `content-type` among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl Dialect {
    /// Its name in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Bedrock => "bedrock",
        }
    }

    /// Renders a failure before the first byte of an answer: its status, its headers (when to retry, or not to) and
    /// the dialect's own error body.
    pub fn problem(self, request_id: &str, problem: &Problem) -> Rendered {
        let (status, body) = match self {
            Self::OpenAi => (usual_status(problem.kind), openai::problem(problem)),
            Self::Anthropic => (usual_status(problem.kind), anthropic::problem(request_id, problem)),
            Self::Bedrock => (bedrock::status(problem.kind), bedrock::problem(problem)),
        };
        let mut headers = headers::of_json(self, request_id);
        headers.extend(headers::of_problem(self, problem));
        Rendered { status, headers, body: Bytes::from(body.to_string()) }
    }

    /// The kind of failure that a reply with this status tells of: the reverse of what [`problem`](Self::problem) does, as far
    /// as there is one.
    pub fn kind_of(status: u16) -> Kind {
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
            424 | 502 => Kind::Model,
            429 => Kind::Throttled,
            503 => Kind::Unavailable,
            _ => Kind::Internal,
        }
    }

    /// The headers of a JSON body that depend on the dialect, `content-type` among them.
    pub fn json_headers(self, request_id: &str) -> Vec<(HeaderName, HeaderValue)> {
        headers::of_json(self, request_id)
    }

    /// The `content-type` of a stream.
    pub fn stream_content_type(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Anthropic => "text/event-stream",
            Self::Bedrock => "application/vnd.amazon.eventstream",
        }
    }

    /// Where the caller's limits stand: the dialect's own headers, and `RateLimit` and `RateLimit-Policy`
    /// (draft-ietf-httpapi-ratelimit-headers) in all of them. `now_ms` is the Unix time.
    pub fn limit_headers(self, states: &[quota::LimitState], now_ms: u64) -> Vec<(HeaderName, HeaderValue)> {
        limits::headers(self, states, now_ms)
    }
}

/// The status of a failure where the dialect has no other custom.
fn usual_status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::BudgetExhausted => StatusCode::PAYMENT_REQUIRED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Throttled => StatusCode::TOO_MANY_REQUESTS,
        Kind::Model => StatusCode::BAD_GATEWAY,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
