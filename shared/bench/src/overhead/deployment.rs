//! Broker and stand-ins in separate processes, and the count of the broker's calls to AWS.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;
use spillway::{
    app::{self, App, Clients, Endpoints},
    config::{BedrockEndpoints, Config},
    telemetry::Telemetry,
};
use spillway_command::{settings::Settings, world};

use crate::process::Process;

/// Public name of the model.
pub const MODEL: &str = "bench-claude";
/// Bedrock model ID of its only pool.
pub const MODEL_ID: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";

/// A running deployment.
pub struct Deployment {
    /// `spillway serve`.
    pub broker: Process,
    /// `spillway stand-ins`, which includes DynamoDB and Bedrock.
    pub stand_ins: Process,
    /// Base URL of the broker.
    pub broker_url: String,
    /// Base URL of the simulator.
    pub simulator_url: String,
    /// Key of the tenant.
    pub key: String,
    dynamodb_url: String,
}

/// Number of requests to AWS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// Reads of DynamoDB. Only the registry is read, at intervals that do not depend on the
    /// requests.
    pub reads: u64,
    /// Writes to DynamoDB.
    pub writes: u64,
    /// Model calls.
    pub model_calls: u64,
}

impl RoundTrips {
    /// Returns the difference to `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            model_calls: self.model_calls - before.model_calls,
        }
    }

    /// Returns the sum.
    pub fn plus(self, added: Self) -> Self {
        Self {
            reads: self.reads + added.reads,
            writes: self.writes + added.writes,
            model_calls: self.model_calls + added.model_calls,
        }
    }
}

/// Response of `GET /_sim/stats` of the DynamoDB stand-in.
#[derive(Deserialize)]
struct DynamoDbStats {
    operations: BTreeMap<String, u64>,
}

/// Response of `GET /_sim/stats` of the simulator.
#[derive(Deserialize)]
struct SimulatorStats {
    total: SimulatorTotal,
}

#[derive(Deserialize)]
struct SimulatorTotal {
    requests: u64,
}

impl Deployment {
    /// Starts both processes and writes the registry.
    ///
    /// # Errors
    /// Returns an error if a process does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let (stand_ins, lines) = Process::start(&["stand-ins"], &[], "export AWS_SECRET_ACCESS_KEY=")?;
        let exports = lines.iter().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let exports: BTreeMap<&str, &str> = exports.collect();
        let url = |name: &str| {
            exports
                .get(name)
                .map(|url| (*url).to_owned())
                .with_context(|| format!("the stand-ins did not print {name}"))
        };
        let endpoints = Endpoints {
            dynamodb: url("AWS_ENDPOINT_URL_DYNAMODB")?,
            sqs: url("AWS_ENDPOINT_URL_SQS")?,
            s3: url("AWS_ENDPOINT_URL_S3")?,
            bedrock_runtime: url("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")?,
        };
        let key = seed(&endpoints).await?;
        // The broker gets no queue, so that it works only for the requests.
        let environment = exports.iter().filter(|(name, _)| **name != "SPILLWAY_QUEUE_URL");
        let environment: Vec<_> = environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (broker, lines) = Process::start(&["serve", "--port", "0"], &environment, "ready ")?;
        let broker_url = lines
            .last()
            .and_then(|line| line.strip_prefix("ready "))
            .context("the broker did not print its address")?
            .to_owned();
        let (simulator_url, dynamodb_url) = (endpoints.bedrock_runtime, endpoints.dynamodb);
        Ok(Self { broker, stand_ins, broker_url, simulator_url, key, dynamodb_url })
    }

    /// Returns the number of requests to DynamoDB and Bedrock so far.
    ///
    /// # Errors
    /// Returns an error if a stand-in is unavailable.
    pub async fn round_trips(&self, client: &reqwest::Client) -> anyhow::Result<RoundTrips> {
        let dynamodb = client.get(format!("{}/_sim/stats", self.dynamodb_url)).send().await?;
        let simulator = client.get(format!("{}/_sim/stats", self.simulator_url)).send().await?;
        let (dynamodb, simulator) = (dynamodb.bytes().await?, simulator.bytes().await?);
        let dynamodb: DynamoDbStats = serde_json::from_slice(&dynamodb)?;
        let simulator: SimulatorStats = serde_json::from_slice(&simulator)?;
        let is_read =
            |operation: &str| ["Get", "BatchGet", "Query", "Scan"].iter().any(|word| operation.starts_with(word));
        let mut counts = RoundTrips { model_calls: simulator.total.requests, ..RoundTrips::default() };
        for (operation, count) in dynamodb.operations {
            *(if is_read(&operation) { &mut counts.reads } else { &mut counts.writes }) += count;
        }
        Ok(counts)
    }
}

/// Writes the tenant, the model and the key to the registry. Returns the key.
async fn seed(endpoints: &Endpoints) -> anyhow::Result<String> {
    let settings: Settings = toml::from_str(include_str!("deployment.toml")).context("the settings are not valid")?;
    let clients = Clients::new(&app::loopback().await, Some(endpoints), BedrockEndpoints::default())?;
    let app = App::new(&Config::from_lookup(|_| None)?, clients, Telemetry::off());
    world::seed(&app, &settings).await?;
    settings.keys.into_values().next().context("the settings have no key")
}

#[cfg(test)]
mod tests {
    use spillway_command::admin::Entries;

    use super::*;

    #[test]
    fn the_settings_are_valid_and_hold_the_model() {
        let text = include_str!("deployment.toml");
        let entries = Entries::parse(text).expect("entries that can be applied");
        let settings: Settings = toml::from_str(text).expect("settings");
        assert_eq!(entries.models[0].name, MODEL);
        assert_eq!(entries.models[0].ladder[0].model_id, MODEL_ID);
        assert!(settings.keys.contains_key(&entries.tenants[0].name));
    }
}
