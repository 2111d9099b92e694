//! A whole deployment in this process: the broker and the stand-ins.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context;
use futures_util::future::join;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use spillway::{
    app::{self, App, Clients, Endpoints},
    blobs::Blobs,
    config::{BedrockEndpoints, Config},
    http::{Body, handle},
    queue::Queue,
    store::tables,
    telemetry::Telemetry,
    units::Millis,
};
use spillway_stand_ins::{StandIns, browser, clock::Clock as StandInClock};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    seeds::Seeds,
    server::{self, ConnectionLimits, Listener},
    settings::Settings,
    shutdown::{STOP_TIMEOUT, flush},
    tls::{self, Tls},
};

/// Visibility timeout of the queues: longer than a call to a demo model may take.
const VISIBILITY_TIMEOUT: Millis = Millis::from_s(90);

/// Maximum age of registry entries in memory. A developer wants to see a change at once.
const REGISTRY_CACHE_TTL: Millis = Millis::from_s(2);

/// Bucket for bodies that are too large for a row.
const BUCKET: &str = "spillway-bodies";

/// Options for [`World::start`].
pub struct Options {
    /// Tenants, models, keys and simulator settings.
    pub settings: Settings,
    /// Whether the settings are written to a registry that has tenants already.
    pub apply_settings: bool,
    /// Directory for state that survives a restart; `None` keeps state in memory.
    pub data: Option<PathBuf>,
    /// Port of the API; 0 for any free port.
    pub port: u16,
    /// Port of the API over HTTPS, 0 for any free port; `None` for no HTTPS.
    pub tls_port: Option<u16>,
    /// Names by which clients may call the API, besides the names of this machine.
    pub allowed_hosts: Vec<String>,
    /// Number of jobs to run concurrently.
    pub drain_concurrency: usize,
    /// Destination of request events.
    pub telemetry: Telemetry,
}

/// A running deployment.
pub struct World {
    /// The broker.
    pub app: App,
    /// DynamoDB, SQS, S3 and Bedrock Runtime.
    pub stand_ins: StandIns,
    /// Clock of the stand-ins; the broker has a separate clock.
    pub stand_in_clock: StandInClock,
    /// Base URL of the API.
    pub url: String,
    /// HTTPS endpoint, if there is one.
    pub tls: Option<Tls>,
    /// Names of tables, queues and bucket.
    pub config: Config,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    pump: JoinHandle<()>,
}

impl World {
    /// Starts the deployment. When it returns, the API accepts requests.
    ///
    /// # Errors
    /// Returns an error if a port is taken, the data directory cannot be used, or the settings are
    /// not valid.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let tcp = server::listen((host, options.port).into())
            .with_context(|| format!("port {} cannot be used; choose another with --port", options.port))?;
        let url = format!("http://{}", tcp.local_addr()?);
        let mut listeners = vec![Listener { tcp, tls: None }];
        let stand_in_clock = StandInClock::default();
        let stand_ins = StandIns::start(spillway_stand_ins::Options {
            clock: stand_in_clock.clone(),
            data: options.data.clone(),
            simulator: options.settings.simulator.clone(),
            queue_faults: options.settings.queue_faults,
            ..spillway_stand_ins::Options::default()
        })
        .await?;
        let tls = match options.tls_port {
            Some(port) => {
                // The stand-ins have created the directory.
                let (listener, tls) = tls::bind(host, port, options.data.as_deref()).await?;
                listeners.push(listener);
                Some(tls)
            }
            None => None,
        };
        let (config, clients, queue) = provision(&stand_ins).await?;
        let mut app = App::new(&config, clients, options.telemetry);
        // Webhook endpoints are on this machine too.
        app.outbound = app.outbound.with_loopback();
        let seeds = options.data.as_deref().map(Seeds::read).transpose()?.unwrap_or_default();
        let is_new = seeds.is_empty() && app.registry.tenants().await?.is_empty();
        if is_new || options.apply_settings {
            seeds.plant(&app.registry, &options.settings).await?;
        }
        let shutdown = CancellationToken::new();
        let pump = tokio::spawn(spillway::drain::pump(app.clone(), queue, options.drain_concurrency, shutdown.clone()));
        let api = app.clone();
        let allowed_hosts: Arc<[String]> = options.allowed_hosts.into();
        let handler = move |mut request| {
            let api = api.clone();
            let is_for_this_machine = browser::is_for_this_machine(&request, &allowed_hosts);
            server::trust_access_key_id(&mut request);
            async move { if is_for_this_machine { handle(&api, request).await } else { misdirected() } }
        };
        let server = tokio::spawn(server::serve(listeners, handler, ConnectionLimits::default(), shutdown.clone()));
        Ok(Self { app, stand_ins, stand_in_clock, url, tls, config, shutdown, server, pump })
    }

    /// Advances all clocks.
    pub fn advance(&self, by_ms: u64) {
        self.stand_in_clock.advance(by_ms);
        self.app.clock.advance(Millis::from_ms(by_ms));
    }

    /// Finishes requests and jobs in flight, as far as they end in time, then stops the deployment.
    pub async fn stop(self) {
        self.shutdown.cancel();
        if timeout(STOP_TIMEOUT, join(self.server, self.pump)).await.is_err() {
            warn!("cut off requests or jobs that still ran after the signal to stop");
        }
        flush(&self.app).await;
        self.stand_ins.stop().await;
    }
}

/// Answers a request for another host than this machine. SDKs of all kinds can read the error.
fn misdirected() -> Response<Body> {
    let message = "This broker answers only requests for this machine, such as http://localhost. To call it by another \
                   name, start it with --allow-host NAME.";
    let error = json!({ "type": "invalid_request_error", "code": "unknown_host", "message": message });
    let body = json!({ "type": "error", "error": error, "message": message }).to_string();
    let mut response = Response::new(Full::from(body).boxed_unsync());
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Creates Spillway's tables, queues and bucket in `stand_ins`, unless they exist. Returns the
/// configuration, clients and queue for an [`App`].
///
/// # Errors
/// Returns an error if a stand-in is unavailable.
pub async fn provision(stand_ins: &StandIns) -> anyhow::Result<(Config, Clients, Queue)> {
    let endpoints = Endpoints {
        dynamodb: stand_ins.dynamodb_url(),
        sqs: stand_ins.sqs_url(),
        s3: stand_ins.s3_url(),
        bedrock_runtime: stand_ins.bedrock_url(),
    };
    let clients = Clients::new(&app::loopback().await, Some(&endpoints), BedrockEndpoints::default())?;
    let mut config = Config::from_lookup(|_| None)?;
    config.registry_cache_ttl = REGISTRY_CACHE_TTL;
    tables::create(&clients.dynamodb, &config).await?;
    let (queue, dead_letters) = Queue::create(clients.sqs.clone(), "spillway-jobs", VISIBILITY_TIMEOUT).await?;
    let (webhooks, _) = Queue::create(clients.sqs.clone(), "spillway-webhooks", VISIBILITY_TIMEOUT).await?;
    Blobs::create(clients.s3.clone(), BUCKET).await?;
    config.queue_url = Some(queue.url().to_owned());
    config.dead_letter_queue_url = Some(dead_letters.url().to_owned());
    config.webhook_queue_url = Some(webhooks.url().to_owned());
    config.bucket = Some(BUCKET.to_owned());
    Ok((config, clients, queue))
}

/// Prints export lines for a shell that point the AWS SDKs, the AWS CLI and the `spillway` command
/// to the stand-ins.
pub fn print_environment(stand_ins: &StandIns, config: &Config) {
    for (name, url) in stand_ins.endpoints() {
        println!("export {name}={url}");
    }
    let resources = [
        ("SPILLWAY_QUEUE_URL", &config.queue_url),
        ("SPILLWAY_DEAD_LETTER_QUEUE_URL", &config.dead_letter_queue_url),
        ("SPILLWAY_WEBHOOK_QUEUE_URL", &config.webhook_queue_url),
        ("SPILLWAY_BUCKET", &config.bucket),
    ];
    for (name, value) in resources.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))) {
        println!("export {name}={value}");
    }
    // boto3 reads the region from AWS_DEFAULT_REGION only.
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        println!("export {name}=us-east-1");
    }
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        println!("export {name}=stand-in");
    }
}

/// Writes the tenants, models and keys of `settings` to the registry.
///
/// # Errors
/// Returns an error if a key or an access key ID is not valid, or the registry is unavailable.
pub async fn seed(app: &App, settings: &Settings) -> anyhow::Result<()> {
    Seeds::default().plant(&app.registry, settings).await
}
