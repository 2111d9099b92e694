//! The ways callers speak: OpenAI, Anthropic, Bedrock. Each maps to and from Bedrock's Converse, the only inner shape.
//!
//! A dialect drops nothing silently: a parameter is mapped, named in [`chat::Request::ignored`] because it has no
//! effect here, or refused by name because leaving it out would change what the caller gets.

mod anthropic;
mod bedrock;
mod converse;
mod headers;
mod json;
mod limits;
mod media;
mod openai;
mod reply;
mod sse;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::{chat, quota};

/// A caller's wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Bedrock,
}

/// What an answer repeats from its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Our id of the request; answers carry it in their own id and in the dialect's request id header.
    pub request_id: String,
    /// The model as the caller named it.
    pub model: String,
    /// When the answer began, in seconds since the Unix epoch.
    pub created_s: u64,
    /// Whether an OpenAI stream ends with a usage chunk.
    pub include_usage: bool,
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

    /// Reads a request body. `path_model` is the model in the route, if the route has one, percent-decoded; `stream`
    /// counts only on Bedrock routes, the others say it in the body.
    ///
    /// # Errors
    /// [`chat::Kind::Invalid`] with the field at fault in the dialect's spelling; never quotes prompt text.
    pub fn parse(self, body: &[u8], path_model: Option<&str>, stream: bool) -> Result<chat::Request, chat::Problem> {
        let body = json::body(body)?;
        match self {
            Self::OpenAi => openai::parse(body, path_model),
            Self::Anthropic => anthropic::parse(body, path_model),
            Self::Bedrock => bedrock::parse(body, path_model, stream),
        }
    }

    /// Renders a complete answer (200).
    pub fn answer(self, context: &Context, answer: &chat::Answer) -> Rendered {
        let body = match self {
            Self::OpenAi => openai::answer(context, answer),
            Self::Anthropic => anthropic::answer(context, answer),
            Self::Bedrock => answer.body.clone(),
        };
        Rendered {
            status: StatusCode::OK,
            headers: headers::of_json(self, &context.request_id),
            body: Bytes::from(body.to_string()),
        }
    }

    /// Renders a failure before the first byte of an answer: its status, its headers (when to retry, or not to) and
    /// the dialect's own error body.
    pub fn problem(self, request_id: &str, problem: &chat::Problem) -> Rendered {
        let (status, body) = match self {
            Self::OpenAi => (usual_status(problem.kind), openai::problem(problem)),
            Self::Anthropic => (usual_status(problem.kind), anthropic::problem(request_id, problem)),
            Self::Bedrock => (bedrock::status(problem.kind), bedrock::problem(problem)),
        };
        let mut headers = headers::of_json(self, request_id);
        headers.extend(headers::of_problem(self, problem));
        Rendered { status, headers, body: Bytes::from(body.to_string()) }
    }

    /// Starts a stream in this dialect.
    pub fn stream(self, context: Context) -> Encoder {
        match self {
            Self::OpenAi => Encoder::OpenAi(openai::Stream::new(context)),
            Self::Anthropic => Encoder::Anthropic(anthropic::Stream::new(context)),
            Self::Bedrock => Encoder::Bedrock(bedrock::Stream::default()),
        }
    }

    /// The `content-type` of a stream.
    pub fn stream_content_type(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Anthropic => "text/event-stream",
            Self::Bedrock => "application/vnd.amazon.eventstream",
        }
    }

    /// All headers of a stream that depend on the dialect, `content-type` among them.
    pub fn stream_headers(self, request_id: &str) -> Vec<(HeaderName, HeaderValue)> {
        headers::of_stream(self, request_id)
    }

    /// Where the caller's limits stand: the dialect's own headers, and `RateLimit` and `RateLimit-Policy`
    /// (draft-ietf-httpapi-ratelimit-headers) in all of them. `now_ms` is the Unix time.
    pub fn limit_headers(self, states: &[quota::LimitState], now_ms: u64) -> Vec<(HeaderName, HeaderValue)> {
        limits::headers(self, states, now_ms)
    }
}

/// Turns the events of one stream into bytes to send now; the bytes may be none.
///
/// A stream is `event`s, then `finish` or `problem`; after either, nothing more comes out.
#[derive(Debug)]
pub enum Encoder {
    OpenAi(openai::Stream),
    Anthropic(anthropic::Stream),
    Bedrock(bedrock::Stream),
}

impl Encoder {
    /// The bytes of one event.
    pub fn event(&mut self, event: &chat::Event) -> Bytes {
        match self {
            Self::OpenAi(stream) => stream.event(event),
            Self::Anthropic(stream) => stream.event(event),
            Self::Bedrock(stream) => stream.event(event),
        }
    }

    /// Ends the stream with an error, in the dialect's own form.
    pub fn problem(&mut self, problem: &chat::Problem) -> Bytes {
        match self {
            Self::OpenAi(stream) => stream.problem(problem),
            Self::Anthropic(stream) => stream.problem(problem),
            Self::Bedrock(stream) => stream.problem(problem),
        }
    }

    /// Ends the stream well.
    pub fn finish(&mut self) -> Bytes {
        match self {
            Self::OpenAi(stream) => stream.finish(),
            Self::Anthropic(stream) => stream.finish(),
            Self::Bedrock(stream) => stream.finish(),
        }
    }

    /// Bytes that say nothing and keep a silent connection open; none in the Bedrock dialect, which has no such frame.
    pub fn keep_alive(&self) -> Bytes {
        match self {
            Self::OpenAi(_) => sse::comment("keep-alive"),
            Self::Anthropic(_) => sse::named("ping", r#"{"type": "ping"}"#),
            Self::Bedrock(_) => Bytes::new(),
        }
    }
}

/// The status of a failure where the dialect has no other custom.
fn usual_status(kind: chat::Kind) -> StatusCode {
    use chat::Kind;
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
