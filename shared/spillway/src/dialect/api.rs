//! What a model can be asked for, and the way from a body to a request and from an answer to a body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Context, Dialect, Echo, Encoder, Rendered, anthropic, bedrock, headers,
    json::{self, Path},
    openai,
};
use crate::{
    chat::{Answer, Format, NativeReply, Output, Request},
    problem::{Kind, Problem},
};

/// A request and an answer that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// OpenAI's chat completions.
    ChatCompletions,
    /// OpenAI's responses.
    Responses,
    /// OpenAI's embeddings.
    Embeddings,
    /// Anthropic's messages.
    Messages,
    /// Bedrock's Converse and ConverseStream.
    Converse,
    /// Bedrock's InvokeModel and InvokeModelWithResponseStream.
    Invoke,
}

/// A path that calls a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPath<'a> {
    /// The API of the call.
    pub api: Api,
    /// The model in the path, still percent-encoded. Only Bedrock's paths have one.
    pub model: Option<&'a str>,
    /// Whether the path asks for a stream. In other APIs, the body does.
    pub stream: bool,
}

impl Api {
    /// The call that a raw path makes, if it calls a model. Some SDKs put `/openai` or `/anthropic` before the path.
    ///
    /// A Bedrock model id is everything between `/model/` and the last segment: ids hold `:`, ARNs hold `/`, and clients
    /// encode them differently.
    pub fn at(path: &str) -> Option<ModelPath<'_>> {
        if let Some((model, operation)) = path.strip_prefix("/model/").and_then(|rest| rest.rsplit_once('/')) {
            let (api, stream) = match operation {
                "converse" => (Self::Converse, false),
                "converse-stream" => (Self::Converse, true),
                "invoke" => (Self::Invoke, false),
                "invoke-with-response-stream" => (Self::Invoke, true),
                _ => return None,
            };
            return Some(ModelPath { api, model: Some(model), stream });
        }
        let path = without_vendor(path).trim_end_matches('/');
        let apis = [Self::ChatCompletions, Self::Responses, Self::Embeddings, Self::Messages];
        let api = apis.into_iter().find(|api| api.path() == path)?;
        Some(ModelPath { api, model: None, stream: false })
    }

    /// The path of a call, with `{id}` for the model.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Messages => "/v1/messages",
            Self::Converse => "/model/{id}/converse",
            Self::Invoke => "/model/{id}/invoke",
        }
    }

    /// Who speaks like this.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::ChatCompletions | Self::Responses | Self::Embeddings => Dialect::OpenAi,
            Self::Messages => Dialect::Anthropic,
            Self::Converse | Self::Invoke => Dialect::Bedrock,
        }
    }

    /// Reads a request body as far as its model. `path_model` is the model in the route, if the route has one,
    /// percent-decoded; `stream` counts only on Bedrock routes, the others say it in the body.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: the body is no JSON object, or nothing names a model.
    pub fn read(self, body: &[u8], path_model: Option<&str>, stream: bool) -> Result<Draft, Problem> {
        let body = json::body(body)?;
        let named = if self.dialect() == Dialect::Bedrock { None } else { body.get("model") };
        let model = match (named.filter(|model| !model.is_null()), path_model) {
            (Some(model), _) => json::name(model.clone(), &Path::Root.key("model"))?,
            (None, Some(model)) => model.to_owned(),
            (None, None) => return Err(Path::Root.key("model").refuse("is missing")),
        };
        Ok(Draft { api: self, model, body, stream })
    }

    /// Renders a count of input tokens (200).
    pub fn count(self, request_id: &str, input_tokens: u64) -> Rendered {
        let name = if self.dialect() == Dialect::Bedrock { "inputTokens" } else { "input_tokens" };
        let headers = headers::of_json(self.dialect(), request_id);
        Rendered { status: StatusCode::OK, headers, body: json!({ name: input_tokens }).to_string().into() }
    }

    /// Renders a complete answer (200).
    pub fn answer(self, context: &Context, answer: &Answer) -> Rendered {
        let usage = answer.usage.unwrap_or_default();
        let body = match (self, &answer.output) {
            (Self::ChatCompletions, Output::Converse(body)) => openai::answer(context, body, &usage).to_string(),
            (Self::Responses, Output::Converse(body)) => openai::response(context, body, &usage).to_string(),
            (Self::Messages, Output::Converse(body)) => anthropic::answer(context, body, &usage).to_string(),
            (Self::Converse, Output::Converse(body)) => body.to_string(),
            (Self::Embeddings, Output::Native(replies)) => match openai::embeddings(context, replies, &usage) {
                Ok(body) => body.to_string(),
                Err(problem) => return self.dialect().problem(&context.request_id, &problem),
            },
            (Self::Messages | Self::Invoke, Output::Native(replies)) => return self.relayed(context, replies),
            _ => {
                let problem = Problem::new(Kind::Internal, "The answer is in another form than the request.");
                return self.dialect().problem(&context.request_id, &problem);
            }
        };
        let headers = headers::of_json(self.dialect(), &context.request_id);
        Rendered { status: StatusCode::OK, headers, body: Bytes::from(body) }
    }

    /// The model's own bytes; on Bedrock routes with the model's own headers.
    fn relayed(self, context: &Context, replies: &[NativeReply]) -> Rendered {
        let mut headers = headers::of_json(self.dialect(), &context.request_id);
        let reply = replies.first();
        if let (Self::Invoke, Some(reply)) = (self, reply) {
            headers::add(&mut headers, &reply.headers);
        }
        Rendered { status: StatusCode::OK, headers, body: reply.map(|reply| reply.body.clone()).unwrap_or_default() }
    }

    /// Starts a stream.
    pub fn stream(self, context: Context) -> Encoder {
        match self {
            Self::ChatCompletions | Self::Embeddings => Encoder::ChatCompletion(openai::Stream::new(context)),
            Self::Responses => Encoder::Response(openai::ResponseStream::new(context)),
            Self::Messages => Encoder::Message(anthropic::Stream::new(context)),
            Self::Converse | Self::Invoke => Encoder::EventStream(bedrock::Stream::default()),
        }
    }

    /// The headers of a stream; `of_reply` are those of the model's.
    pub fn stream_headers(self, request_id: &str, of_reply: &[(String, String)]) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = headers::of_stream(self.dialect(), request_id);
        if self == Self::Invoke {
            headers::add(&mut headers, of_reply);
        }
        headers
    }
}

/// The path without the prefix of a vendor, which some SDKs insist on.
pub fn without_vendor(path: &str) -> &str {
    path.strip_prefix("/openai")
        .or_else(|| path.strip_prefix("/anthropic"))
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path)
}

/// A request body that names its model and has not been read any further.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    api: Api,
    model: String,
    body: Map<String, Value>,
    stream: bool,
}

impl Draft {
    /// The model as the caller names it.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Reads the rest, for a model whose own bodies are of `format`; `headers` are those of the HTTP request.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the field at fault in the dialect's spelling; never quotes prompt text.
    pub fn request(self, format: Option<Format>, headers: &HeaderMap) -> Result<(Request, Echo), Problem> {
        let Self { api, model, body, stream } = self;
        match api {
            Api::ChatCompletions => openai::parse(model, body),
            Api::Responses => openai::parse_response(model, body),
            Api::Embeddings => openai::parse_embeddings(model, body, format),
            Api::Messages if format == Some(Format::Messages) => plain(anthropic::pass_on(model, body, headers)),
            Api::Messages => plain(anthropic::parse(model, body, headers)),
            Api::Converse => plain(bedrock::parse(model, body, stream)),
            Api::Invoke => plain(bedrock::invoke(model, body, format, headers, stream)),
        }
    }

    /// Reads the rest as something whose tokens are to be counted instead of answered.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub fn to_count(self, format: Option<Format>, headers: &HeaderMap) -> Result<Request, Problem> {
        match self.api {
            Api::Converse | Api::Invoke => bedrock::count(self.model, self.body, format),
            _ => self.request(format, headers).map(|(request, _)| request),
        }
    }
}

fn plain(request: Result<Request, Problem>) -> Result<(Request, Echo), Problem> {
    request.map(|request| (request, Echo::default()))
}
