//! Connections that died while the process was frozen: they cost a caller nothing.

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use spillway::{
    app::{App, Clients, Endpoints, loopback},
    config::{BedrockEndpoints, Config},
    http::handle,
    telemetry::Telemetry,
    units::Millis,
};

use crate::{
    breaking_proxy::{Break, BreakingProxy},
    support::{Deployment, answer::used, chat, key, one_tenant},
};

/// Number of calls, each after all connections have died.
const CALLS: u64 = 100;

/// How long the process is frozen between two calls.
const FREEZE: Millis = Millis::from_s(4);

/// A deployment whose broker reaches DynamoDB and Bedrock through proxies.
struct Proxied {
    deployment: Deployment,
    app: App,
    dynamodb: BreakingProxy,
    bedrock: BreakingProxy,
}

/// Creates the app of a process that reaches DynamoDB and Bedrock at these URLs.
async fn app(deployment: &Deployment, dynamodb: &str, bedrock_runtime: &str) -> App {
    let endpoints = Endpoints {
        dynamodb: dynamodb.to_owned(),
        sqs: deployment.world.stand_ins.sqs_url(),
        s3: deployment.world.stand_ins.s3_url(),
        bedrock_runtime: bedrock_runtime.to_owned(),
    };
    let clients = Clients::new(&loopback().await, Some(&endpoints), BedrockEndpoints::default()).expect("clients");
    App::new(&Config::from_lookup(|_| None).expect("defaults"), clients, Telemetry::off())
}

impl Proxied {
    async fn start() -> Self {
        let limits = "{ requests_per_minute = 1000, tokens_per_day = 1000000, in_flight = 5 }";
        let deployment = Deployment::start(&one_tenant(limits)).await;
        let dynamodb = BreakingProxy::start(&deployment.world.stand_ins.dynamodb_url()).await;
        let bedrock = BreakingProxy::start(&deployment.world.stand_ins.bedrock_url()).await;
        let app = app(&deployment, &dynamodb.url, &bedrock.url).await;
        Self { deployment, app, dynamodb, bedrock }
    }

    /// Sends a chat and reads its answer.
    async fn chat(&self, is_streamed: bool) -> (u16, String) {
        let mut body: Value = chat(5, 8);
        body["stream"] = json!(is_streamed);
        let request = Request::post("/v1/chat/completions").header("x-api-key", key("t"));
        let response = handle(&self.app, request.body(body.to_string()).expect("a request")).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Freezes the process for some seconds, as Lambda does between two invocations.
    fn freeze(&self) {
        self.deployment.world.advance(FREEZE.as_ms());
        self.app.clock.advance(FREEZE);
    }

    async fn assert_calls(&self, count: u64) {
        let simulator = self.deployment.simulator().await;
        assert_eq!(simulator["total"]["requests"], count, "no model call is made twice");
        let quota = self.deployment.quota("t").await;
        assert_eq!(quota["settled"]["requests"], count);
        assert_eq!(used(&quota, "in_flight"), 0);
        let tokens = simulator["tenants"]["t"]["quota_tokens"].as_u64().unwrap_or(0);
        assert_eq!(used(&quota, "tokens_per_day"), tokens);
    }
}

#[tokio::test]
async fn connections_that_died_cost_a_caller_nothing() {
    let proxied = Proxied::start().await;
    for number in 0..CALLS {
        proxied.freeze();
        proxied.dynamodb.break_connections(Break::BeforeRequest);
        proxied.bedrock.break_connections(Break::BeforeRequest);
        let (status, text) = proxied.chat(number % 2 == 1).await;
        assert_eq!(status, 200, "call {number}: {text}");
    }
    proxied.assert_calls(CALLS).await;
    // A call that is sent again leaves no connection to Bedrock in the pool, so every second call
    // finds a dead one.
    let resets = (proxied.dynamodb.resets(), proxied.bedrock.resets());
    assert!(resets.0 >= CALLS - 1 && resets.1 >= CALLS / 2, "{resets:?}");
}

#[tokio::test]
async fn lost_replies_of_the_ledger_cost_a_caller_nothing() {
    let proxied = Proxied::start().await;
    for number in 0..CALLS {
        proxied.dynamodb.break_connections(Break::BeforeReply);
        let (status, text) = proxied.chat(number % 2 == 1).await;
        assert_eq!(status, 200, "call {number}: {text}");
    }
    proxied.assert_calls(CALLS).await;
    assert!(proxied.dynamodb.resets() >= CALLS - 1, "{}", proxied.dynamodb.resets());
}

#[tokio::test]
async fn a_call_whose_connection_is_reset_while_other_calls_pass_is_not_made_twice() {
    let proxied = Proxied::start().await;
    for (number, is_streamed) in [(1, false), (3, true)] {
        let (status, text) = proxied.chat(is_streamed).await;
        assert_eq!(status, 200, "{text}");
        // Calls pass for a second, so the pause before the first one is over.
        proxied.deployment.world.advance(1_500);
        proxied.app.clock.advance(Millis::from_ms(1_500));
        proxied.bedrock.break_connections(Break::BeforeReply);
        let (status, text) = proxied.chat(is_streamed).await;
        assert_eq!(status, 502, "{text}");
        let simulator = proxied.deployment.simulator().await;
        assert_eq!(simulator["total"]["requests"], number + 1, "the model works on the call once");
    }
}

#[tokio::test]
async fn a_call_that_cannot_reach_bedrock_is_not_charged() {
    let mut proxied = Proxied::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    proxied.app = app(&proxied.deployment, &proxied.dynamodb.url, &url).await;
    let (status, text) = proxied.chat(false).await;
    assert_eq!(status, 503, "{text}");
    proxied.assert_calls(0).await;
}

#[tokio::test]
async fn all_sdk_clients_share_their_connections() {
    let proxied = Proxied::start().await;
    for _ in 0..3 {
        assert_eq!(proxied.chat(false).await.0, 200);
    }
    // A new process reads the tenant and the models at the same time, on two connections. The
    // ledger uses the same.
    assert!(proxied.dynamodb.connections() <= 2, "{}", proxied.dynamodb.connections());
    assert_eq!(proxied.bedrock.connections(), 1);
}
