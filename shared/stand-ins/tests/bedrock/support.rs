//! A simulator on a free port, an SDK client for it, and helpers for the tests.

use std::{future::Future, time::Duration};

use aws_sdk_bedrockruntime::{
    Client,
    config::{BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        converse::{ConverseOutput, builders::ConverseFluentBuilder},
        converse_stream::{ConverseStreamOutput, builders::ConverseStreamFluentBuilder},
    },
    primitives::Blob,
    types::{ContentBlock, ConversationRole, InferenceConfiguration, Message, ResponseStream},
};
use aws_smithy_types::Document;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use serde_json::Value;
use spillway_stand_ins::{
    bedrock::{Options, Simulator, serve},
    clock::Clock,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running simulator.
pub struct Bedrock {
    /// SDK client.
    pub client: Client,
    /// Clock of the simulator.
    pub clock: Clock,
    /// URL of the simulator.
    pub endpoint: String,
    _shutdown: DropGuard,
}

impl Bedrock {
    /// Starts a simulator that answers immediately and serves every model.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a simulator with these settings in TOML.
    pub async fn start_with(settings: &str) -> Self {
        let simulator: Simulator = toml::from_str(settings).expect("settings");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (clock, shutdown) = (Clock::default(), CancellationToken::new());
        tokio::spawn(serve(listener, Options { clock: clock.clone(), simulator }, shutdown.clone()));
        Self { client: client(&endpoint), clock, endpoint, _shutdown: shutdown.drop_guard() }
    }

    /// Returns a Converse call with a user message.
    pub fn converse(&self, model_id: &str, text: &str) -> ConverseFluentBuilder {
        self.client.converse().model_id(model_id).messages(user(text))
    }

    /// Returns a ConverseStream call with a user message.
    pub fn converse_stream(&self, model_id: &str, text: &str) -> ConverseStreamFluentBuilder {
        self.client.converse_stream().model_id(model_id).messages(user(text))
    }

    /// Sends a request to a control route and returns the status and the body.
    pub async fn control(&self, method: &str, route: &str, body: &str) -> (u16, Value) {
        let (response, body) = self.send(method, &format!("/_sim/{route}"), body).await;
        (response.status().as_u16(), serde_json::from_slice(&body).expect("JSON"))
    }

    /// Returns the statistics.
    pub async fn stats(&self) -> Value {
        self.control("GET", "stats", "").await.1
    }

    /// Sends a request over HTTP/1.1, without the SDK.
    pub async fn send(&self, method: &str, path: &str, body: &str) -> (Response<()>, Bytes) {
        self.send_with(method, path, &[], body, false).await
    }

    /// Sends a request with headers, over h2c if `http2` is set.
    pub async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        http2: bool,
    ) -> (Response<()>, Bytes) {
        let client = HttpClient::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
        let response = soon(client.request(request)).await.expect("a response");
        let (parts, body) = response.into_parts();
        (Response::from_parts(parts, ()), soon(body.collect()).await.expect("a body").to_bytes())
    }

    /// Waits until the statistics satisfy `holds`.
    pub async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1_000 {
            let stats = self.stats().await;
            if holds(&stats) {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("timeout: {what}");
    }
}

fn client(endpoint: &str) -> Client {
    let config = aws_sdk_bedrockruntime::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "tests"))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// Awaits a future and panics if it takes longer than 20 seconds.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// Returns whether a future is still pending after 100 milliseconds.
pub async fn waits<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(100), future).await.is_err()
}

/// Returns a user message.
pub fn user(text: &str) -> Message {
    message(ConversationRole::User, ContentBlock::Text(text.to_owned()))
}

/// Returns a message with a content block.
pub fn message(role: ConversationRole, content: ContentBlock) -> Message {
    Message::builder().role(role).content(content).build().expect("a message")
}

/// Returns a configuration with `maxTokens`.
pub fn max_tokens(max_tokens: i32) -> InferenceConfiguration {
    InferenceConfiguration::builder().max_tokens(max_tokens).build()
}

/// Returns a JSON object.
pub fn object(members: &[(&str, Document)]) -> Document {
    Document::Object(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

/// Returns the text of a response.
pub fn text(answer: &ConverseOutput) -> String {
    let message = answer.output().and_then(|output| output.as_message().ok()).expect("a message");
    message.content().iter().filter_map(|block| block.as_text().ok().cloned()).collect()
}

/// Returns the input, output and total tokens.
pub fn usage(answer: &ConverseOutput) -> (i32, i32, i32) {
    let usage = answer.usage().expect("usage");
    (usage.input_tokens(), usage.output_tokens(), usage.total_tokens())
}

/// Returns the code, the HTTP status and the message of a call that must fail.
pub fn refused<T, E: ProvideErrorMetadata>(result: Result<T, SdkError<E>>) -> (String, u16, String) {
    let error = result.err().expect("an error");
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    (error.code().unwrap_or_default().to_owned(), status, error.message().unwrap_or_default().to_owned())
}

/// Reads all events of a stream. Returns them with the error that ended the stream, if any.
pub async fn drain(
    stream: &mut aws_sdk_bedrockruntime::operation::converse_stream::ConverseStreamOutput,
) -> (Vec<aws_sdk_bedrockruntime::types::ConverseStreamOutput>, Option<String>) {
    let mut events = Vec::new();
    loop {
        match soon(stream.stream.recv()).await {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(format!("{error:?}"))),
        }
    }
}

/// Returns the body of an InvokeModel response that must succeed.
pub async fn invoke(bedrock: &Bedrock, model_id: &str, body: &Value) -> Value {
    let call = bedrock.client.invoke_model().model_id(model_id).body(Blob::new(body.to_string()));
    serde_json::from_slice(soon(call.send()).await.expect("an answer").body().as_ref()).expect("JSON")
}

/// Returns all chunks of an InvokeModel stream that must succeed.
pub async fn chunks(bedrock: &Bedrock, model_id: &str, body: &Value) -> Vec<Value> {
    let body = Blob::new(body.to_string());
    let call = bedrock.client.invoke_model_with_response_stream().model_id(model_id).body(body);
    let mut stream = soon(call.send()).await.expect("a stream").body;
    let mut chunks = Vec::new();
    while let Some(ResponseStream::Chunk(chunk)) = soon(stream.recv()).await.expect("a chunk") {
        chunks.push(serde_json::from_slice(chunk.bytes().expect("bytes").as_ref()).expect("JSON"));
    }
    chunks
}

/// Opens a stream that must succeed.
pub async fn open(call: ConverseStreamFluentBuilder) -> ConverseStreamOutput {
    soon(call.send()).await.expect("a stream")
}
