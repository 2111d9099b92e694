//! The APIs of callers. Each turns a body into a request, and an answer into a body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    AnswerContext, Dialect, Echo, Encoder, Rendered, anthropic, bedrock, headers,
    json::{self, Path},
    openai, output_members, resources,
};
use crate::{
    chat::{Answer, CONVERSE_LIMIT_PATHS, Format, NativeReply, Output, Request},
    problem::{Kind, Problem},
    stored_headers::StoredHeaders,
    tenant::Tenant,
};

/// An API: a format of requests, and the format of their answers.
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

impl Api {
    /// Returns the path of a call, with `{id}` for the model.
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

    /// Returns the dialect that the API belongs to.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::ChatCompletions | Self::Responses | Self::Embeddings => Dialect::OpenAi,
            Self::Messages => Dialect::Anthropic,
            Self::Converse | Self::Invoke => Dialect::Bedrock,
        }
    }

    /// Returns the paths at which a body may have its output limit; none if the format of the body
    /// is not known. Returns nothing if there is no output.
    fn limit_paths(self, format: Option<Format>) -> Option<&'static [&'static str]> {
        match self {
            Self::ChatCompletions => Some(Format::ChatCompletions.limit_paths()),
            Self::Responses => Some(&["max_output_tokens"]),
            Self::Messages => Some(Format::Messages.limit_paths()),
            Self::Converse => Some(&CONVERSE_LIMIT_PATHS),
            Self::Invoke => match format {
                Some(format) => Some(format.limit_paths()).filter(|paths| !paths.is_empty()),
                None => Some(&[]),
            },
            Self::Embeddings => None,
        }
    }

    /// Reads only the model of a request body. `path_model` is the percent-decoded model in the
    /// route, if the route has one. `stream` is used on Bedrock routes only; the other APIs have it
    /// in the body.
    ///
    /// # Errors
    /// Returns [`Kind::Invalid`] if the body is not a JSON object, or if neither the body nor the
    /// route names a model.
    pub fn read(self, body: &[u8], path_model: Option<&str>, stream: bool) -> Result<Draft, Problem> {
        let body = json::body(body)?;
        let in_body = if self.dialect() == Dialect::Bedrock { None } else { body.get("model") };
        let model = match (in_body.filter(|model| !model.is_null()), path_model) {
            (Some(model), _) => json::name(model.clone(), &Path::Root.key("model"))?,
            (None, Some(model)) => model.to_owned(),
            (None, None) => return Err(Path::Root.key("model").error("is missing")),
        };
        Ok(Draft { api: self, model, body, stream })
    }

    /// Renders a count of input tokens (200).
    pub fn count(self, request_id: &str, input_tokens: u64) -> Rendered {
        let name = if self.dialect() == Dialect::Bedrock { "inputTokens" } else { "input_tokens" };
        let headers = headers::for_json(self.dialect(), request_id);
        Rendered { status: StatusCode::OK, headers, body: json!({ name: input_tokens }).to_string().into() }
    }

    /// Renders a complete answer (200).
    pub fn answer(self, context: &AnswerContext, answer: &Answer) -> Rendered {
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
            (Self::Messages | Self::Invoke, Output::Native(replies)) => return self.native_answer(context, replies),
            _ => {
                let problem = Problem::new(Kind::Internal, "The model's answer does not have the form of the API.");
                return self.dialect().problem(&context.request_id, &problem);
            }
        };
        let headers = headers::for_json(self.dialect(), &context.request_id);
        Rendered { status: StatusCode::OK, headers, body: Bytes::from(body) }
    }

    /// Renders the model's own bytes. On Bedrock routes it adds the headers of the model's reply.
    fn native_answer(self, context: &AnswerContext, replies: &[NativeReply]) -> Rendered {
        let mut headers = headers::for_json(self.dialect(), &context.request_id);
        let reply = replies.first();
        if let (Self::Invoke, Some(reply)) = (self, reply) {
            headers::extend(&mut headers, &reply.headers);
        }
        Rendered { status: StatusCode::OK, headers, body: reply.map(|reply| reply.body.clone()).unwrap_or_default() }
    }

    /// Starts a stream.
    pub fn stream(self, context: AnswerContext) -> Encoder {
        match self {
            Self::ChatCompletions | Self::Embeddings => Encoder::ChatCompletion(openai::CompletionStream::new(context)),
            Self::Responses => Encoder::Response(openai::ResponseStream::new(context)),
            Self::Messages => Encoder::Message(anthropic::MessageStream::new(context)),
            Self::Converse | Self::Invoke => Encoder::EventStream(bedrock::FrameStream::default()),
        }
    }

    /// Returns the headers of a stream. `reply_headers` are the headers of the model's reply.
    pub fn stream_headers(self, request_id: &str, reply_headers: &StoredHeaders) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = headers::for_stream(self.dialect(), request_id);
        if self == Self::Invoke {
            headers::extend(&mut headers, reply_headers);
        }
        headers
    }
}

/// A request body. Only its model has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    api: Api,
    model: String,
    body: Map<String, Value>,
    stream: bool,
}

impl Draft {
    /// Returns the model as the caller named it.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Reads the rest of the body, for a model whose own bodies have `format`. `headers` are the
    /// headers of the HTTP request.
    ///
    /// # Errors
    /// Returns [`Kind::Invalid`] with the wrong field, as the dialect spells it. The error never
    /// quotes prompt text.
    pub fn request(self, format: Option<Format>, headers: &HeaderMap) -> Result<(Request, Echo), Problem> {
        let Self { api, model, body, stream } = self;
        let paths = api.limit_paths(format);
        let max_tokens = paths.map(|paths| output_members::limit(&body, paths)).transpose()?.flatten();
        match api {
            Api::ChatCompletions => openai::parse(model, body),
            Api::Responses => openai::parse_response(model, body),
            Api::Embeddings => openai::parse_embeddings(model, body, format),
            Api::Messages if format == Some(Format::Messages) => {
                without_echo(anthropic::native_request(model, body, headers))
            }
            Api::Messages => without_echo(anthropic::parse(model, body, headers)),
            Api::Converse => without_echo(bedrock::parse(model, body, stream)),
            Api::Invoke => without_echo(bedrock::invoke(model, body, format, max_tokens, headers, stream)),
        }
    }

    /// Reads the rest of the body, and checks that `tenant` may name the resources in it. No tenant
    /// may name `own_bucket`.
    ///
    /// # Errors
    /// Returns the errors of [`request`](Self::request) and [`Kind::Forbidden`] for a resource that
    /// the operator has not listed.
    pub fn permitted_request(
        self,
        format: Option<Format>,
        headers: &HeaderMap,
        tenant: &Tenant,
        own_bucket: Option<&str>,
    ) -> Result<(Request, Echo), Problem> {
        let (request, echo) = self.request(format, headers)?;
        resources::check(&request, tenant, own_bucket)?;
        Ok((request, echo))
    }

    /// Reads the rest of the body as a request to count tokens.
    ///
    /// # Errors
    /// Returns the same errors as [`request`](Self::request).
    pub fn to_count(self, format: Option<Format>, headers: &HeaderMap) -> Result<Request, Problem> {
        match self.api {
            Api::Converse | Api::Invoke => bedrock::count(self.model, self.body, format),
            _ => self.request(format, headers).map(|(request, _)| request),
        }
    }
}

fn without_echo(request: Result<Request, Problem>) -> Result<(Request, Echo), Problem> {
    request.map(|request| (request, Echo::default()))
}
