//! A deployment in child processes: `spillway local` or `spillway stand-ins`, and the control API
//! of its stand-ins.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;
use spillway::{
    app::{self, App, Clients, Endpoints},
    config::Config,
    telemetry::Telemetry,
};
use tempfile::TempDir;

use super::{client::Client, output::OutputLog, settings::Settings};
use crate::process::Process;

/// A running deployment. Dropping it stops its processes.
pub struct Deployment {
    /// Client of `spillway local`.
    pub client: Client,
    /// Output of its processes.
    pub output: OutputLog,
    /// The same stores and queues, accessed from this process.
    pub app: App,
    /// Endpoints of the stand-ins.
    pub endpoints: Endpoints,
    /// Environment for further brokers.
    pub environment: Vec<(String, String)>,
    http: reqwest::Client,
    _main: Process,
    _files: TempDir,
}

/// Options of `spillway local`.
#[derive(Debug, Clone, Copy)]
pub struct LocalOptions {
    /// Whether its state is on disk.
    pub keeps_state: bool,
    /// Number of jobs that its drain runs concurrently.
    pub drain_concurrency: usize,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { keeps_state: false, drain_concurrency: spillway::drain::DEFAULT_CONCURRENCY }
    }
}

/// Number of requests by operation.
#[derive(Debug, Clone, Default, Deserialize)]
struct Operations {
    operations: BTreeMap<String, u64>,
}

impl Deployment {
    /// Starts `spillway local`.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub async fn start(settings: &Settings, options: LocalOptions) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let config = files.path().join("spillway.toml");
        fs::write(&config, settings.to_toml())?;
        let (config, data) = (config.display().to_string(), files.path().join("data").display().to_string());
        let drain_concurrency = options.drain_concurrency.to_string();
        let mut arguments =
            vec!["local", "--port", "0", "--events", "--config", &config, "--drain-concurrency", &drain_concurrency];
        if options.keeps_state {
            arguments.extend(["--data", &data]);
        }
        Self::spawn(&arguments, "ready ", files).await
    }

    /// Starts stand-ins without a broker, so that only this process uses them, and writes the
    /// registry.
    ///
    /// # Errors
    /// Returns an error if the stand-ins do not start.
    pub async fn without_broker(settings: &Settings) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let config = files.path().join("spillway.toml");
        fs::write(&config, settings.to_toml())?;
        let config = config.display().to_string();
        let last = "export AWS_SECRET_ACCESS_KEY=";
        let deployment = Self::spawn(&["stand-ins", "--config", &config], last, files).await?;
        spillway_command::world::seed(&deployment.app, &toml::from_str(&settings.to_toml())?).await?;
        Ok(deployment)
    }

    async fn spawn(arguments: &[&str], ready: &str, files: TempDir) -> anyhow::Result<Self> {
        let output = OutputLog::default();
        let started = Process::start_with_sink(arguments, &[json_logs()], ready, output.sink(None));
        let (main, lines) = match started {
            Ok(started) => started,
            Err(error) => {
                // The last log lines arrive through another pipe.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Err(error.context(output.snapshot().unparsed.join("\n")));
            }
        };
        let exports = lines.iter().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let exports: BTreeMap<String, String> =
            exports.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let url = |name: &str| exports.get(name).cloned().with_context(|| format!("the process did not print {name}"));
        let endpoints = Endpoints {
            dynamodb: url("AWS_ENDPOINT_URL_DYNAMODB")?,
            sqs: url("AWS_ENDPOINT_URL_SQS")?,
            s3: url("AWS_ENDPOINT_URL_S3")?,
            bedrock_runtime: url("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")?,
        };
        let config = Config::from_lookup(|name| exports.get(name).cloned())?;
        let clients = Clients::new(&app::loopback().await, Some(&endpoints), config.bedrock_endpoints.clone())?;
        let url = lines.last().and_then(|line| line.strip_prefix("ready ")).unwrap_or_default();
        Ok(Self {
            client: Client::new(url)?,
            output,
            app: App::new(&config, clients, Telemetry::off()),
            endpoints,
            environment: exports.into_iter().chain([json_logs()]).collect(),
            http: reqwest::Client::builder().http1_only().no_proxy().build()?,
            _main: main,
            _files: files,
        })
    }

    /// Injects a fault into the service at `endpoint`, in the format of its control API.
    ///
    /// # Errors
    /// Returns an error if the service does not know the fault.
    pub async fn inject_fault(&self, endpoint: &str, fault: &Value) -> anyhow::Result<()> {
        let sent = self.http.post(format!("{endpoint}/_sim/faults")).json(fault).send().await?;
        sent.error_for_status().with_context(|| format!("cannot inject the fault {fault}"))?;
        Ok(())
    }

    /// Clears all faults of the models and the store.
    ///
    /// # Errors
    /// Returns an error if a stand-in is unavailable.
    pub async fn clear_faults(&self) -> anyhow::Result<()> {
        for endpoint in [&self.endpoints.bedrock_runtime, &self.endpoints.dynamodb] {
            self.http.delete(format!("{endpoint}/_sim/faults")).send().await?.error_for_status()?;
        }
        Ok(())
    }

    /// Advances the clock of the stand-ins, but not of the brokers.
    ///
    /// # Errors
    /// Returns an error if the simulator is unavailable.
    pub async fn advance_stand_ins(&self, by_ms: u64) -> anyhow::Result<()> {
        let url = format!("{}/_sim/clock", self.endpoints.bedrock_runtime);
        let advance = serde_json::json!({ "advance_ms": by_ms });
        self.http.post(url).json(&advance).send().await?.error_for_status()?;
        Ok(())
    }

    /// Reads a route below `/_sim/` of a stand-in.
    ///
    /// # Errors
    /// Returns an error if the route cannot be read.
    pub async fn read_control<T: for<'de> Deserialize<'de>>(&self, endpoint: &str, route: &str) -> anyhow::Result<T> {
        let answer = self.http.get(format!("{endpoint}/_sim/{route}")).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    /// Returns the number of requests to DynamoDB, SQS, S3 and Bedrock by operation. It omits a
    /// service that does not count its requests.
    ///
    /// # Errors
    /// Returns an error if the simulator is unavailable.
    pub async fn operations(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let Endpoints { dynamodb, sqs, s3, bedrock_runtime } = &self.endpoints;
        let mut operations = BTreeMap::new();
        for (service, endpoint) in [("DynamoDB", dynamodb), ("SQS", sqs), ("S3", s3)] {
            let counts = self.read_control::<Operations>(endpoint, "stats").await.unwrap_or_default();
            operations.extend(counts.operations.into_iter().map(|(name, count)| (format!("{service} {name}"), count)));
        }
        let simulated: Value = self.read_control(bedrock_runtime, "stats").await?;
        operations.insert("Bedrock calls".to_owned(), simulated["total"]["requests"].as_u64().unwrap_or(0));
        Ok(operations)
    }
}

/// Returns the variable that makes logs JSON lines.
fn json_logs() -> (String, String) {
    ("AWS_LAMBDA_LOG_FORMAT".to_owned(), "JSON".to_owned())
}
