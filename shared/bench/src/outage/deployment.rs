//! Two regions, each behind a gate, and two brokers, all as processes.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use spillway::{
    app::{self, App, Clients, Endpoints},
    config::{BedrockEndpoints, Config},
    telemetry::Telemetry,
};
use spillway_command::{settings::Settings, world};
use tempfile::TempDir;

use super::{fault, gate::Gate};
use crate::process::{LineSink, Process};

/// Bedrock ids of the pools in the near region.
pub const NEAR: [&str; 2] = ["near.provisioned", "near.on-demand"];

/// Number of brokers.
pub const BROKERS: usize = 2;

const SETTINGS: &str = include_str!("deployment.toml");

/// A region: stand-ins, of which the far region uses only the models.
pub struct Region {
    /// Gate in front of the models.
    pub gate: Gate,
    simulator_url: String,
    http: reqwest::Client,
    _process: Process,
}

/// A running deployment.
pub struct Deployment {
    pub near: Region,
    pub far: Region,
    pub brokers: Vec<Broker>,
    /// Key of the tenant.
    pub key: String,
    _files: TempDir,
}

/// A broker.
pub struct Broker {
    pub url: String,
    /// Times at which it printed the event of an outage.
    outages: Arc<Mutex<Vec<Instant>>>,
    _process: Process,
}

impl Deployment {
    /// Starts all processes and writes the registry.
    ///
    /// # Errors
    /// Returns an error if a process does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let config = files.path().join("outage.toml");
        fs::write(&config, SETTINGS)?;
        let config = config.display().to_string();
        let (near, exports) = Region::start(&config).await?;
        let (far, _) = Region::start(&config).await?;
        let key = seed(&exports).await?;
        let regions = format!("eu-west-1=http://{},eu-central-1=http://{}", near.gate.address, far.gate.address);
        let more = [("SPILLWAY_BEDROCK_ENDPOINTS".to_owned(), regions), ("RUST_LOG".to_owned(), "error".to_owned())];
        let environment: Vec<_> = exports.into_iter().chain(more).collect();
        let brokers = (0..BROKERS).map(|_| Broker::start(&environment)).collect::<anyhow::Result<_>>()?;
        Ok(Self { near, far, brokers, key, _files: files })
    }
}

impl Region {
    /// Starts the stand-ins of a region. Also returns the variables that they print.
    async fn start(config: &str) -> anyhow::Result<(Self, BTreeMap<String, String>)> {
        let (process, lines) =
            Process::start(&["stand-ins", "--config", config], &[], "export AWS_SECRET_ACCESS_KEY=")?;
        let exports = lines.iter().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let exports: BTreeMap<_, _> = exports.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let simulator_url =
            exports.get("AWS_ENDPOINT_URL_BEDROCK_RUNTIME").context("no address of the models")?.clone();
        let address: SocketAddr = simulator_url.trim_start_matches("http://").parse()?;
        let http = reqwest::Client::builder().http1_only().no_proxy().build()?;
        Ok((Self { gate: Gate::open(address).await?, simulator_url, http, _process: process }, exports))
    }

    /// Injects a fault of the models.
    ///
    /// # Errors
    /// Returns an error if the simulator refuses it.
    pub async fn inject(&self, fault: &Value) -> anyhow::Result<()> {
        let sent = self.http.post(format!("{}/_sim/faults", self.simulator_url)).json(fault).send().await?;
        sent.error_for_status().with_context(|| format!("cannot inject the fault {fault}"))?;
        Ok(())
    }

    /// Removes all faults of the models.
    ///
    /// # Errors
    /// Returns an error if the simulator does not answer.
    pub async fn clear(&self) -> anyhow::Result<()> {
        self.http.delete(format!("{}/_sim/faults", self.simulator_url)).send().await?.error_for_status()?;
        Ok(())
    }

    /// Lets the models end all calls, also the silent ones, and returns them. The clock of the
    /// region advances, so no drill can go on.
    ///
    /// # Errors
    /// Returns an error if the simulator does not answer, or the calls do not end.
    pub async fn end_calls(&self) -> anyhow::Result<Value> {
        let advance = json!({ "advance_ms": 2 * fault::SILENCE_MS });
        self.http.post(format!("{}/_sim/clock", self.simulator_url)).json(&advance).send().await?.error_for_status()?;
        for _ in 0..100 {
            if self.read("stats").await?["total"]["in_flight"] == 0 {
                return self.read("calls").await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("calls of a model do not end")
    }

    async fn read(&self, name: &str) -> anyhow::Result<Value> {
        let answer = self.http.get(format!("{}/_sim/{name}", self.simulator_url)).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }
}

impl Broker {
    fn start(environment: &[(String, String)]) -> anyhow::Result<Self> {
        let outages = Arc::<Mutex<Vec<Instant>>>::default();
        let seen = Arc::clone(&outages);
        let sink: LineSink = Arc::new(move |line| {
            if line.contains("\"pool_outage_ms\":") {
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            }
        });
        let (process, lines) = Process::start_with_sink(&["serve", "--port", "0"], environment, "ready ", sink)?;
        let url = lines.last().and_then(|line| line.strip_prefix("ready ")).context("no address of the broker")?;
        Ok(Self { url: url.to_owned(), outages, _process: process })
    }

    /// Returns when the broker first noticed an outage after `since`.
    pub fn first_outage(&self, since: Instant) -> Option<Instant> {
        let outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.iter().copied().find(|at| *at >= since)
    }
}

/// Writes the tenant, the model and the key to the registry. Returns the key.
async fn seed(exports: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let url = |name: &str| exports.get(name).cloned().with_context(|| format!("the stand-ins did not print {name}"));
    let endpoints = Endpoints {
        dynamodb: url("AWS_ENDPOINT_URL_DYNAMODB")?,
        sqs: url("AWS_ENDPOINT_URL_SQS")?,
        s3: url("AWS_ENDPOINT_URL_S3")?,
        bedrock_runtime: url("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")?,
    };
    let settings: Settings = toml::from_str(SETTINGS).context("the settings are not valid")?;
    let clients = Clients::new(&app::loopback().await, Some(&endpoints), BedrockEndpoints::default())?;
    let app = App::new(&Config::from_lookup(|name| exports.get(name).cloned())?, clients, Telemetry::off());
    world::seed(&app, &settings).await?;
    settings.keys.into_values().next().context("the settings have no key")
}

#[cfg(test)]
mod tests {
    use spillway_command::admin::Entries;

    use super::*;

    #[test]
    fn the_settings_are_valid_and_the_near_pools_come_first() {
        let entries = Entries::parse(SETTINGS).expect("entries that can be applied");
        let ids: Vec<_> = entries.models[0].rungs().map(|pool| pool.model_id.as_str()).collect();
        assert_eq!(ids, [NEAR[0], NEAR[1], "far.on-demand"]);
    }
}
