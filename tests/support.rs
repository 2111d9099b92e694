//! A deployment to test against: the broker over the stand-ins in this process, called over HTTP.

pub mod alarms;
pub mod answer;
pub mod jobs;
pub mod metrics;
pub mod process;
pub mod receiver;
pub mod recorded;
pub mod template;
pub mod time;
pub mod tls;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use spillway::{
    app::{self, App, Clients, Endpoints},
    config::Config,
    telemetry::Telemetry,
    units::Millis,
};
use spillway_command::{
    settings::Settings,
    world::{Options, World},
};

/// A running deployment and a client for it.
pub struct Deployment {
    pub world: World,
    pub http: Client,
}

impl Deployment {
    /// Starts a deployment in memory from `settings` (TOML, as for `spillway local --config`).
    pub async fn start(settings: &str) -> Self {
        Self::start_with(settings, Telemetry::off()).await
    }

    /// Starts a deployment that sends its events to `telemetry`.
    pub async fn start_with(settings: &str, telemetry: Telemetry) -> Self {
        Self::start_world(settings, telemetry, None).await
    }

    /// Starts a deployment that sends no events and also serves HTTPS.
    pub async fn start_with_tls(settings: &str) -> Self {
        Self::start_world(settings, Telemetry::off(), Some(0)).await
    }

    async fn start_world(settings: &str, telemetry: Telemetry, tls_port: Option<u16>) -> Self {
        let settings: Settings = toml::from_str(settings).expect("settings");
        let options = Options {
            settings,
            apply_settings: true,
            data: None,
            port: 0,
            tls_port,
            allowed_hosts: Vec::new(),
            drain_concurrency: spillway::drain::DEFAULT_CONCURRENCY,
            telemetry,
        };
        Self { world: World::start(options).await.expect("a deployment"), http: Client::new() }
    }

    /// Returns the app of another process, which shares only the tables with this one. It caches
    /// nothing of the registry.
    pub async fn another_app(&self) -> App {
        let config = Config::from_lookup(|_| None).expect("defaults");
        self.app_with(&Config { registry_cache_ttl: Millis::ZERO, ..config }).await
    }

    /// Returns the app of another process with `config`.
    pub async fn app_with(&self, config: &Config) -> App {
        let stand_ins = &self.world.stand_ins;
        let endpoints = Endpoints {
            dynamodb: stand_ins.dynamodb_url(),
            sqs: stand_ins.sqs_url(),
            s3: stand_ins.s3_url(),
            bedrock_runtime: stand_ins.bedrock_url(),
        };
        let clients =
            Clients::new(&app::loopback().await, Some(&endpoints), config.bedrock_endpoints.clone()).expect("clients");
        let app = App::new(config, clients, Telemetry::off());
        app.clock.advance(self.world.app.clock.now() - app.clock.now());
        app
    }

    /// Builds a POST request with the key of `tenant`, as made by [`key`].
    pub fn post(&self, path: &str, tenant: &str, body: &Value) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.world.url)).bearer_auth(key(tenant)).json(body)
    }

    /// Builds a GET request with the key of `tenant`.
    pub fn get(&self, path: &str, tenant: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.world.url)).bearer_auth(key(tenant))
    }

    /// Sends an OpenAI chat that is answered with `output_tokens` tokens.
    pub async fn chat(&self, tenant: &str, output_tokens: u64, max_tokens: u64) -> Response {
        self.post("/v1/chat/completions", tenant, &chat(output_tokens, max_tokens)).send().await.expect("an answer")
    }

    /// Returns the statistics of the simulator.
    pub async fn simulator(&self) -> Value {
        json_of(self.http.get(format!("{}/_sim/stats", self.world.stand_ins.bedrock_url())).send().await).await
    }

    /// Returns the number of DynamoDB requests by operation.
    pub async fn dynamodb_operations(&self) -> Value {
        let stats =
            json_of(self.http.get(format!("{}/_sim/stats", self.world.stand_ins.dynamodb_url())).send().await).await;
        stats["operations"].clone()
    }

    /// Returns `GET /v1/quota` of `tenant`.
    pub async fn quota(&self, tenant: &str) -> Value {
        json_of(self.get("/v1/quota", tenant).send().await).await
    }
}

async fn json_of(response: reqwest::Result<Response>) -> Value {
    response.expect("an answer").json().await.expect("JSON")
}

/// Returns the test key of a tenant.
pub fn key(tenant: &str) -> String {
    format!("sk-spill-{tenant}-{}", "0123456789abcdef".repeat(4))
}

/// Returns the body of an OpenAI chat that is answered with `output_tokens` tokens.
pub fn chat(output_tokens: u64, max_tokens: u64) -> Value {
    let prompt = format!("[[output_tokens={output_tokens}]]");
    json!({ "model": "m", "max_tokens": max_tokens, "messages": [{ "role": "user", "content": prompt }] })
}

/// Returns settings with one tenant `t` under `limits` (a TOML inline table) and the model `m` on
/// one unlimited pool.
pub fn one_tenant(limits: &str) -> String {
    format!(
        r#"
        [[tenants]]
        name = "t"
        limits = {limits}
        [[models]]
        name = "m"
        timeout_ms = 30000
        [[models.ladder]]
        name = "on-demand"
        kind = "on_demand"
        model_id = "sim.model"
        prices = {{ input = 1.0, output = 2.0 }}
        [keys]
        t = "{}"
        "#,
        key("t")
    )
}
