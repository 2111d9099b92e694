//! `spillway local` and further brokers in processes of their own, and what their stand-ins count.

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

use super::{client::Client, settings::Settings, watched::Watched};
use crate::process::Process;

/// A running deployment; dropped, it is gone.
pub struct Deployment {
    /// The API of `spillway local`.
    pub client: Client,
    /// What its processes say.
    pub watched: Watched,
    /// The same stores and queues, from this process.
    pub app: App,
    /// Where the stand-ins are.
    pub endpoints: Endpoints,
    /// The environment of a further broker.
    pub environment: Vec<(String, String)>,
    http: reqwest::Client,
    _main: Process,
    _files: TempDir,
}

/// How `spillway local` is started.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Whether its state is on disk.
    pub keeps_state: bool,
    /// How many jobs its drain runs at once.
    pub jobs_at_once: usize,
}

impl Default for Start {
    fn default() -> Self {
        Self { keeps_state: false, jobs_at_once: spillway::drain::CONCURRENCY }
    }
}

/// Requests by operation.
#[derive(Debug, Clone, Default, Deserialize)]
struct Operations {
    operations: BTreeMap<String, u64>,
}

impl Deployment {
    /// Starts `spillway local`.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(settings: &Settings, how: Start) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let config = files.path().join("spillway.toml");
        fs::write(&config, settings.to_toml())?;
        let (config, data) = (config.display().to_string(), files.path().join("data").display().to_string());
        let jobs_at_once = how.jobs_at_once.to_string();
        let mut arguments =
            vec!["local", "--port", "0", "--events", "--config", &config, "--drain-concurrency", &jobs_at_once];
        if how.keeps_state {
            arguments.extend(["--data", &data]);
        }
        Self::of(&arguments, "ready ", files).await
    }

    /// Starts stand-ins without a broker, so that nothing but this process uses them, and writes the registry.
    ///
    /// # Errors
    /// They do not start.
    pub async fn without_broker(settings: &Settings) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let config = files.path().join("spillway.toml");
        fs::write(&config, settings.to_toml())?;
        let config = config.display().to_string();
        let last = "export AWS_SECRET_ACCESS_KEY=";
        let deployment = Self::of(&["stand-ins", "--config", &config], last, files).await?;
        spillway_command::world::seed(&deployment.app, &toml::from_str(&settings.to_toml())?).await?;
        Ok(deployment)
    }

    async fn of(arguments: &[&str], ready: &str, files: TempDir) -> anyhow::Result<Self> {
        let watched = Watched::default();
        let started = Process::start_watched(arguments, &[json_logs()], ready, watched.watch(None));
        let (main, lines) = match started {
            Ok(started) => started,
            Err(error) => {
                // Its last words come by another pipe.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Err(error.context(watched.said().other.join("\n")));
            }
        };
        let exports = lines.iter().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let exports: BTreeMap<String, String> =
            exports.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let url = |name: &str| exports.get(name).cloned().with_context(|| format!("no {name}"));
        let endpoints = Endpoints {
            dynamodb: url("AWS_ENDPOINT_URL_DYNAMODB")?,
            sqs: url("AWS_ENDPOINT_URL_SQS")?,
            s3: url("AWS_ENDPOINT_URL_S3")?,
            bedrock_runtime: url("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")?,
        };
        let config = Config::from_lookup(|name| exports.get(name).cloned())?;
        let clients = Clients::new(&app::loopback().await, Some(&endpoints));
        let url = lines.last().and_then(|line| line.strip_prefix("ready ")).unwrap_or_default();
        Ok(Self {
            client: Client::new(url)?,
            watched,
            app: App::new(&config, clients, Telemetry::off()),
            endpoints,
            environment: exports.into_iter().chain([json_logs()]).collect(),
            http: reqwest::Client::builder().http1_only().no_proxy().build()?,
            _main: main,
            _files: files,
        })
    }

    /// Disturbs a service, which is one of the endpoints, as its control route takes it.
    ///
    /// # Errors
    /// It does not know such a disturbance.
    pub async fn disturb(&self, endpoint: &str, fault: &Value) -> anyhow::Result<()> {
        let sent = self.http.post(format!("{endpoint}/_sim/faults")).json(fault).send().await?;
        sent.error_for_status().with_context(|| format!("the disturbance {fault}"))?;
        Ok(())
    }

    /// Ends all disturbances of models and store.
    ///
    /// # Errors
    /// They do not answer.
    pub async fn end_disturbances(&self) -> anyhow::Result<()> {
        for endpoint in [&self.endpoints.bedrock_runtime, &self.endpoints.dynamodb] {
            self.http.delete(format!("{endpoint}/_sim/faults")).send().await?.error_for_status()?;
        }
        Ok(())
    }

    /// Moves the clock of all stand-ins forward, but no broker's.
    ///
    /// # Errors
    /// They do not answer.
    pub async fn advance_stand_ins(&self, by_ms: u64) -> anyhow::Result<()> {
        let url = format!("{}/_sim/clock", self.endpoints.bedrock_runtime);
        let advance = serde_json::json!({ "advance_ms": by_ms });
        self.http.post(url).json(&advance).send().await?.error_for_status()?;
        Ok(())
    }

    /// What a stand-in tells below `/_sim/`.
    ///
    /// # Errors
    /// It does not.
    pub async fn told<T: for<'de> Deserialize<'de>>(&self, endpoint: &str, route: &str) -> anyhow::Result<T> {
        let answer = self.http.get(format!("{endpoint}/_sim/{route}")).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    /// How often DynamoDB, SQS and S3 were asked for what, and Bedrock for an answer, each by name; a service that does not
    /// count is left out.
    ///
    /// # Errors
    /// The simulator does not answer.
    pub async fn operations(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let Endpoints { dynamodb, sqs, s3, bedrock_runtime } = &self.endpoints;
        let mut all = BTreeMap::new();
        for (service, endpoint) in [("DynamoDB", dynamodb), ("SQS", sqs), ("S3", s3)] {
            let counted = self.told::<Operations>(endpoint, "stats").await.unwrap_or_default();
            all.extend(counted.operations.into_iter().map(|(name, count)| (format!("{service} {name}"), count)));
        }
        let simulated: Value = self.told(bedrock_runtime, "stats").await?;
        all.insert("Bedrock calls".to_owned(), simulated["total"]["requests"].as_u64().unwrap_or(0));
        Ok(all)
    }
}

/// Logs that can be read.
fn json_logs() -> (String, String) {
    ("AWS_LAMBDA_LOG_FORMAT".to_owned(), "JSON".to_owned())
}
