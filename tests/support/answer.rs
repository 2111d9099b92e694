//! Answers, server-sent events, quotas, and the settings of a deployment.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use reqwest::{RequestBuilder, Response, header::HeaderMap};
use serde_json::{Value, json};
use spillway::{app::App, http::handle};
use tokio::task::JoinHandle;

use super::{Deployment, key};

/// Time limit of every step in a test. It is far longer than any step takes, so that no test fails
/// on a slow machine.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// A response that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Sends `request` and reads the response to its end.
    pub async fn to(request: RequestBuilder) -> Self {
        Self::read(within(request.send()).await.expect("an answer")).await
    }

    /// Reads `response` to its end.
    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: within(response.bytes()).await.expect("a whole body") }
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the header `name`, or an empty string if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a visible value"))
    }
}

/// Awaits `future`. Fails the test if it exceeds the time limit.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TIME_LIMIT, future).await.expect("in time")
}

/// Sends `request` to `app` instead of the deployment for which it was built, as a front does.
pub fn ask(app: &App, request: RequestBuilder) -> JoinHandle<Answer> {
    let request = request.build().expect("a request");
    let mut app_request = http::Request::new(Full::new(Bytes::copy_from_slice(
        request.body().and_then(|body| body.as_bytes()).expect("a body"),
    )));
    *app_request.method_mut() = request.method().clone();
    *app_request.uri_mut() = request.url().path().parse().expect("a path");
    *app_request.headers_mut() = request.headers().clone();
    let app = app.clone();
    tokio::spawn(async move {
        let (parts, body) = within(handle(&app, app_request)).await.into_parts();
        let body = within(body.collect()).await.expect("no errors").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    })
}

/// A reader of server-sent events.
pub struct Events {
    response: Response,
    text: String,
}

impl Events {
    /// Reads the events of `response`.
    pub fn of(response: Response) -> Self {
        Self { response, text: String::new() }
    }

    /// Returns the name (empty if it has none) and the data of the next event, or `None` at the end
    /// of the stream.
    pub async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                let event = (field("event: ").to_owned(), field("data: ").to_owned());
                self.text = rest.to_owned();
                return Some(event);
            }
            let Some(chunk) = within(self.response.chunk()).await.expect("a stream that ends well") else {
                assert_eq!(self.text, "", "the stream ended inside an event");
                return None;
            };
            self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }

    /// Returns all remaining events.
    pub async fn rest(mut self) -> Vec<(String, String)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

impl Deployment {
    /// POSTs `body` with the key of `tenant` and reads the response to its end.
    pub async fn ask(&self, path: &str, tenant: &str, body: &Value) -> Answer {
        Answer::to(self.post(path, tenant, body)).await
    }

    /// Returns the quota of `tenant` as soon as it fulfils `condition`.
    pub async fn quota_when(&self, tenant: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let polling = async {
            loop {
                let quota = self.quota(tenant).await;
                if condition(&quota) {
                    return quota;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(polling).await
    }

    /// Returns the statistics of the simulator as soon as they fulfil `condition`.
    pub async fn simulator_when(&self, condition: impl Fn(&Value) -> bool) -> Value {
        let polling = async {
            loop {
                let statistics = self.simulator().await;
                if condition(&statistics) {
                    return statistics;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(polling).await
    }
}

/// Returns how much of `limit` is used, according to `quota`.
pub fn used(quota: &Value, limit: &str) -> u64 {
    let states = quota["limits"].as_array().expect("limits");
    let state = states.iter().find(|state| state["limit"] == limit).unwrap_or_else(|| panic!("no {limit} in {quota}"));
    state["used"].as_u64().expect("a count")
}

/// Returns the used and settled amounts of `quota`, without its times, which change with the clock.
pub fn charged(quota: &Value) -> Value {
    let states = quota["limits"].as_array().expect("limits");
    let used: Vec<Value> = states.iter().map(|state| json!([state["limit"], state["used"]])).collect();
    json!({ "used": used, "settled": quota["settled"] })
}

/// Returns settings with one tenant `t` that has `fields` (TOML), and the model `m` on `pools`
/// (TOML tables `models.ladder`).
pub fn deployment(fields: &str, pools: &str) -> String {
    format!(
        "[keys]\nt = \"{}\"\n[[tenants]]\nname = \"t\"\n{fields}\n[[models]]\nname = \"m\"\ntimeout_ms = 30000\n{pools}\n",
        key("t")
    )
}

/// Returns a pool of the ladder as TOML. `fields` are additional fields.
pub fn pool(name: &str, kind: &str, model_id: &str, fields: &str) -> String {
    format!(
        "[[models.ladder]]\nname = \"{name}\"\nkind = \"{kind}\"\nmodel_id = \"{model_id}\"\n\
         prices = {{ input = 1.0, output = 2.0 }}\n{fields}\n"
    )
}

/// Returns the path of a unary chat with model `m` in each of the three dialects, with a body that
/// allows `max_tokens`, if given, and is answered with `output_tokens` tokens.
pub fn three_chats(output_tokens: u64, max_tokens: Option<u64>) -> [(&'static str, Value); 3] {
    let prompt = format!("[[output_tokens={output_tokens}]]");
    let mut messages = json!({ "model": "m", "messages": [{ "role": "user", "content": prompt }] });
    let mut converse = json!({ "messages": [{ "role": "user", "content": [{ "text": prompt }] }] });
    if let Some(max_tokens) = max_tokens {
        messages["max_tokens"] = json!(max_tokens);
        converse["inferenceConfig"] = json!({ "maxTokens": max_tokens });
    }
    [("/v1/chat/completions", messages.clone()), ("/v1/messages", messages), ("/model/m/converse", converse)]
}

/// Returns an AWS SDK client that sends the key as its session token and does not retry.
pub fn aws_client(deployment: &Deployment) -> aws_sdk_bedrockruntime::Client {
    use aws_sdk_bedrockruntime::config::{Config, Credentials, Region, retry::RetryConfig};
    let credentials = Credentials::new("spillway", "spillway", Some(key("t")), None, "test");
    let config = Config::builder()
        .behavior_version_latest()
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .endpoint_url(&deployment.world.url);
    aws_sdk_bedrockruntime::Client::from_conf(config.build())
}

/// Returns a user message, built with the AWS SDK.
pub fn aws_message(text: &str) -> aws_sdk_bedrockruntime::types::Message {
    use aws_sdk_bedrockruntime::types::{ContentBlock, ConversationRole, Message};
    let content = ContentBlock::Text(text.to_owned());
    Message::builder().role(ConversationRole::User).content(content).build().expect("a message")
}
