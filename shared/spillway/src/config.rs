//! Configuration from environment variables. Nothing else reads the environment.

mod bedrock_endpoints;
mod webhook_ports;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

pub use bedrock_endpoints::BedrockEndpoints;
pub use webhook_ports::WebhookPorts;

use crate::units::Millis;

/// Configuration of a Spillway process. The AWS SDK reads its variables (`AWS_REGION`,
/// `AWS_ENDPOINT_URL_…`, credentials) directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `SPILLWAY_REGISTRY_TABLE`: DynamoDB table of tenants, keys and models.
    pub registry_table: String,
    /// `SPILLWAY_LEDGER_TABLE`: DynamoDB table of counters.
    pub ledger_table: String,
    /// `SPILLWAY_JOBS_TABLE`: DynamoDB table of jobs and their answers.
    pub jobs_table: String,
    /// `SPILLWAY_QUEUE_URL`: SQS queue of jobs. Without it, no request overflows.
    pub queue_url: Option<String>,
    /// `SPILLWAY_DEAD_LETTER_QUEUE_URL`: SQS queue for the messages of jobs that failed
    /// permanently.
    pub dead_letter_queue_url: Option<String>,
    /// `SPILLWAY_WEBHOOK_QUEUE_URL`: SQS queue of webhooks. Without it, no webhooks are sent.
    pub webhook_queue_url: Option<String>,
    /// `SPILLWAY_WEBHOOK_PORTS`: ports that webhook endpoints may have.
    pub webhook_ports: WebhookPorts,
    /// `SPILLWAY_BEDROCK_ENDPOINTS`: endpoints of Bedrock Runtime by region.
    pub bedrock_endpoints: BedrockEndpoints,
    /// `SPILLWAY_BUCKET`: S3 bucket for bodies that are too large for a row. Without it, requests
    /// with such bodies cannot overflow.
    pub bucket: Option<String>,
    /// `SPILLWAY_REGISTRY_CACHE_MS`: maximum age of cached registry entries.
    pub registry_cache_ttl: Millis,
    /// `SPILLWAY_PATH_PREFIX`: prefix of every API path, such as `/llm`; empty for none.
    pub path_prefix: String,
    /// `SPILLWAY_BODY_MEMORY_MIB`: memory for the bodies of requests, in mebibytes.
    pub body_memory_mib: u32,
    /// `SPILLWAY_METRIC_NAMESPACE`: CloudWatch namespace of the metrics in events.
    pub metric_namespace: String,
    /// `RUST_LOG`, else `AWS_LAMBDA_LOG_LEVEL`: `tracing` filter of the log.
    pub log_filter: String,
    /// `AWS_LAMBDA_LOG_FORMAT`: format of log lines.
    pub log_format: LogFormat,
}

/// Format of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Plain text, for people.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// A variable with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{variable} is {value:?}; it must be {must_be}")]
pub struct BadVariable {
    variable: &'static str,
    value: String,
    must_be: &'static str,
}

const DEFAULT_REGISTRY_CACHE_TTL: Millis = Millis::from_s(30);
const MAX_REGISTRY_CACHE_TTL: Millis = Millis::from_s(60);
const DEFAULT_BODY_MEMORY_MIB: u32 = 256;
const BODY_MEMORY_RANGE_MIB: std::ops::RangeInclusive<u32> = 64..=1_000_000;
const MAX_PATH_PREFIX_BYTES: usize = 128;
const MAX_METRIC_NAMESPACE_BYTES: usize = 255;

/// Namespace of the metrics if none is configured.
pub const DEFAULT_METRIC_NAMESPACE: &str = "Spillway";

impl Config {
    /// Reads the environment of this process. An empty variable counts as absent.
    ///
    /// # Errors
    /// Returns an error if a variable has an invalid value.
    pub fn from_env() -> Result<Self, BadVariable> {
        Self::from_lookup(|variable| std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Reads variables through `lookup`.
    ///
    /// # Errors
    /// Returns an error if a variable has an invalid value.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, BadVariable> {
        let read = |variable: &'static str| lookup(variable).filter(|value| !value.is_empty());
        let table = |variable: &'static str, default: &str| match read(variable) {
            None => Ok(default.to_owned()),
            Some(name) if is_table_name(&name) => Ok(name),
            Some(value) => {
                Err(BadVariable { variable, value, must_be: "a DynamoDB table name: 3 to 255 of a-z A-Z 0-9 . _ -" })
            }
        };
        let queue = |variable| read(variable).map(|value| queue_url(variable, value)).transpose();
        Ok(Self {
            registry_table: table("SPILLWAY_REGISTRY_TABLE", "spillway-registry")?,
            ledger_table: table("SPILLWAY_LEDGER_TABLE", "spillway-ledger")?,
            jobs_table: table("SPILLWAY_JOBS_TABLE", "spillway-jobs")?,
            queue_url: queue("SPILLWAY_QUEUE_URL")?,
            dead_letter_queue_url: queue("SPILLWAY_DEAD_LETTER_QUEUE_URL")?,
            webhook_queue_url: queue("SPILLWAY_WEBHOOK_QUEUE_URL")?,
            webhook_ports: read("SPILLWAY_WEBHOOK_PORTS").map_or(Ok(WebhookPorts::default()), webhook_ports)?,
            bedrock_endpoints: read("SPILLWAY_BEDROCK_ENDPOINTS")
                .map_or(Ok(BedrockEndpoints::default()), bedrock_endpoints)?,
            bucket: read("SPILLWAY_BUCKET").map(bucket).transpose()?,
            registry_cache_ttl: read("SPILLWAY_REGISTRY_CACHE_MS")
                .map_or(Ok(DEFAULT_REGISTRY_CACHE_TTL), registry_cache_ttl)?,
            path_prefix: read("SPILLWAY_PATH_PREFIX").map_or(Ok(String::new()), path_prefix)?,
            body_memory_mib: read("SPILLWAY_BODY_MEMORY_MIB").map_or(Ok(DEFAULT_BODY_MEMORY_MIB), body_memory_mib)?,
            metric_namespace: read("SPILLWAY_METRIC_NAMESPACE")
                .map_or_else(|| Ok(DEFAULT_METRIC_NAMESPACE.to_owned()), metric_namespace)?,
            log_filter: log_filter(read("RUST_LOG"), read("AWS_LAMBDA_LOG_LEVEL"))?,
            log_format: read("AWS_LAMBDA_LOG_FORMAT").map_or(Ok(LogFormat::default()), log_format)?,
        })
    }
}

fn is_table_name(name: &str) -> bool {
    (3..=255).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn queue_url(variable: &'static str, value: String) -> Result<String, BadVariable> {
    if value.starts_with("https://") || value.starts_with("http://") {
        return Ok(value);
    }
    let must_be = "the URL of an SQS queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/spillway-jobs";
    Err(BadVariable { variable, value, must_be })
}

fn webhook_ports(value: String) -> Result<WebhookPorts, BadVariable> {
    let must_be = "ports from 1 to 65535, at most 16, separated by commas, such as 443,8443";
    WebhookPorts::parse(&value).ok_or(BadVariable { variable: "SPILLWAY_WEBHOOK_PORTS", value, must_be })
}

fn bedrock_endpoints(value: String) -> Result<BedrockEndpoints, BadVariable> {
    let must_be = "regions with their endpoints, separated by commas, such as eu-west-1=https://vpce-1.example.com";
    BedrockEndpoints::parse(&value).ok_or(BadVariable { variable: "SPILLWAY_BEDROCK_ENDPOINTS", value, must_be })
}

/// Checks a bucket name (Amazon S3 User Guide, "General purpose bucket naming rules"), without
/// dots.
fn bucket(value: String) -> Result<String, BadVariable> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_edge = |byte: Option<u8>| byte.is_some_and(|byte| is_inner(byte) && byte != b'-');
    let (first, last) = (value.bytes().next(), value.bytes().next_back());
    if (3..=63).contains(&value.len()) && value.bytes().all(is_inner) && is_edge(first) && is_edge(last) {
        return Ok(value);
    }
    let must_be = "the name of an S3 bucket: 3 to 63 of a-z 0-9 -, with a letter or digit at both ends";
    Err(BadVariable { variable: "SPILLWAY_BUCKET", value, must_be })
}

fn registry_cache_ttl(value: String) -> Result<Millis, BadVariable> {
    match value.parse().map(Millis::from_ms) {
        Ok(ttl) if ttl <= MAX_REGISTRY_CACHE_TTL => Ok(ttl),
        _ => {
            let must_be = "a whole number of milliseconds from 0 to 60000";
            Err(BadVariable { variable: "SPILLWAY_REGISTRY_CACHE_MS", value, must_be })
        }
    }
}

fn body_memory_mib(value: String) -> Result<u32, BadVariable> {
    let must_be = "a whole number of mebibytes from 64 to 1000000";
    let mib = value.parse().ok().filter(|mib| BODY_MEMORY_RANGE_MIB.contains(mib));
    mib.ok_or(BadVariable { variable: "SPILLWAY_BODY_MEMORY_MIB", value, must_be })
}

fn path_prefix(value: String) -> Result<String, BadVariable> {
    let is_segment = |segment: &str| {
        let is_plain = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte));
        is_plain && !matches!(segment, "" | "." | "..")
    };
    if value.len() <= MAX_PATH_PREFIX_BYTES
        && value.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment))
    {
        return Ok(value);
    }
    let must_be = "a path without a slash at its end, such as /llm, of at most 128 of a-z A-Z 0-9 . _ ~ - /";
    Err(BadVariable { variable: "SPILLWAY_PATH_PREFIX", value, must_be })
}

/// Checks a namespace (Amazon CloudWatch User Guide, "Namespaces"). AWS reserves names that start
/// with `AWS/`.
fn metric_namespace(value: String) -> Result<String, BadVariable> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/#:".contains(&byte);
    if value.len() <= MAX_METRIC_NAMESPACE_BYTES && value.bytes().all(is_plain) && !value.starts_with("AWS/") {
        return Ok(value);
    }
    let must_be = "a CloudWatch namespace, such as Spillway/production: at most 255 of a-z A-Z 0-9 . - _ / # :";
    Err(BadVariable { variable: "SPILLWAY_METRIC_NAMESPACE", value, must_be })
}

fn log_filter(rust_log: Option<String>, lambda_level: Option<String>) -> Result<String, BadVariable> {
    if let Some(value) = rust_log {
        let must_be = "a tracing filter, such as info or spillway=debug,info";
        return match EnvFilter::try_new(&value) {
            Ok(_) => Ok(value),
            Err(_) => Err(BadVariable { variable: "RUST_LOG", value, must_be }),
        };
    }
    let Some(value) = lambda_level else { return Ok("info".to_owned()) };
    match value.to_ascii_lowercase().as_str() {
        level @ ("trace" | "debug" | "info" | "warn" | "error") => Ok(level.to_owned()),
        // Lambda has a level that `tracing` does not have.
        "fatal" => Ok("error".to_owned()),
        _ => {
            let must_be = "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL";
            Err(BadVariable { variable: "AWS_LAMBDA_LOG_LEVEL", value, must_be })
        }
    }
}

fn log_format(value: String) -> Result<LogFormat, BadVariable> {
    match value.to_ascii_lowercase().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(BadVariable { variable: "AWS_LAMBDA_LOG_FORMAT", value, must_be: "Text or JSON" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, BadVariable> {
        Config::from_lookup(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let defaults = config(&[]).expect("defaults");
        assert_eq!(defaults.registry_table, "spillway-registry");
        assert_eq!(defaults.ledger_table, "spillway-ledger");
        assert_eq!(defaults.jobs_table, "spillway-jobs");
        assert_eq!(defaults.queue_url, None);
        assert_eq!(defaults.registry_cache_ttl, Millis::from_s(30));
        assert_eq!(defaults.webhook_ports, WebhookPorts::default());
        assert_eq!(defaults.body_memory_mib, 256);
        assert_eq!((defaults.path_prefix.as_str(), defaults.metric_namespace.as_str()), ("", "Spillway"));
        assert_eq!((defaults.log_filter.as_str(), defaults.log_format), ("info", LogFormat::Text));
        assert_eq!(config(&[("SPILLWAY_QUEUE_URL", ""), ("AWS_LAMBDA_LOG_LEVEL", "")]), Ok(defaults));
    }

    #[test]
    fn every_variable_is_read() {
        let config = config(&[
            ("SPILLWAY_REGISTRY_TABLE", "r-1"),
            ("SPILLWAY_LEDGER_TABLE", "l.1"),
            ("SPILLWAY_JOBS_TABLE", "j_1"),
            ("SPILLWAY_QUEUE_URL", "http://127.0.0.1:9/0/jobs"),
            ("SPILLWAY_DEAD_LETTER_QUEUE_URL", "http://127.0.0.1:9/0/dead"),
            ("SPILLWAY_WEBHOOK_QUEUE_URL", "http://127.0.0.1:9/0/hooks"),
            ("SPILLWAY_WEBHOOK_PORTS", "443,10443"),
            ("SPILLWAY_BUCKET", "b-1"),
            ("SPILLWAY_REGISTRY_CACHE_MS", "0"),
            ("SPILLWAY_PATH_PREFIX", "/llm/v2~a"),
            ("SPILLWAY_BEDROCK_ENDPOINTS", "eu-west-1=https://vpce-1.example.com"),
            ("SPILLWAY_BODY_MEMORY_MIB", "96"),
            ("SPILLWAY_METRIC_NAMESPACE", "Spillway/a-1"),
            ("AWS_LAMBDA_LOG_LEVEL", "FATAL"),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
        ])
        .expect("valid variables");
        let expected = Config {
            registry_table: "r-1".into(),
            ledger_table: "l.1".into(),
            jobs_table: "j_1".into(),
            queue_url: Some("http://127.0.0.1:9/0/jobs".into()),
            dead_letter_queue_url: Some("http://127.0.0.1:9/0/dead".into()),
            webhook_queue_url: Some("http://127.0.0.1:9/0/hooks".into()),
            webhook_ports: WebhookPorts::parse("443,10443").expect("ports"),
            bedrock_endpoints: BedrockEndpoints::parse("eu-west-1=https://vpce-1.example.com").expect("endpoints"),
            bucket: Some("b-1".into()),
            registry_cache_ttl: Millis::ZERO,
            path_prefix: "/llm/v2~a".into(),
            body_memory_mib: 96,
            metric_namespace: "Spillway/a-1".into(),
            log_filter: "error".into(),
            log_format: LogFormat::Json,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn rust_log_takes_precedence_over_the_lambda_level() {
        let config = config(&[("RUST_LOG", "spillway=debug"), ("AWS_LAMBDA_LOG_LEVEL", "ERROR")]).expect("valid");
        assert_eq!(config.log_filter, "spillway=debug");
    }

    #[test]
    fn the_error_for_a_bad_value_names_the_variable_and_valid_values() {
        for (variable, value) in [
            ("SPILLWAY_REGISTRY_TABLE", "no"),
            ("SPILLWAY_LEDGER_TABLE", "a table"),
            ("SPILLWAY_JOBS_TABLE", "arn:aws:dynamodb"),
            ("SPILLWAY_QUEUE_URL", "spillway-jobs"),
            ("SPILLWAY_DEAD_LETTER_QUEUE_URL", "dead"),
            ("SPILLWAY_WEBHOOK_QUEUE_URL", "hooks"),
            ("SPILLWAY_WEBHOOK_PORTS", "all"),
            ("SPILLWAY_BEDROCK_ENDPOINTS", "https://vpce-1.example.com"),
            ("SPILLWAY_BUCKET", "No_Bucket"),
            ("SPILLWAY_BUCKET", "-ends-"),
            ("SPILLWAY_REGISTRY_CACHE_MS", "2s"),
            ("SPILLWAY_REGISTRY_CACHE_MS", "-1"),
            ("SPILLWAY_REGISTRY_CACHE_MS", "60001"),
            ("SPILLWAY_PATH_PREFIX", "llm"),
            ("SPILLWAY_PATH_PREFIX", "/"),
            ("SPILLWAY_PATH_PREFIX", "/llm/"),
            ("SPILLWAY_PATH_PREFIX", "/llm//a"),
            ("SPILLWAY_PATH_PREFIX", "/a/../b"),
            ("SPILLWAY_PATH_PREFIX", "/a%20b"),
            ("SPILLWAY_BODY_MEMORY_MIB", "63"),
            ("SPILLWAY_BODY_MEMORY_MIB", "1 GiB"),
            ("SPILLWAY_METRIC_NAMESPACE", "a namespace"),
            ("SPILLWAY_METRIC_NAMESPACE", "AWS/Lambda"),
            ("RUST_LOG", "spillway=loud=er"),
            ("AWS_LAMBDA_LOG_LEVEL", "LOUD"),
            ("AWS_LAMBDA_LOG_FORMAT", "xml"),
        ] {
            let error = config(&[(variable, value)]).expect_err(variable).to_string();
            assert!(error.starts_with(&format!("{variable} is {value:?}; it must be ")), "{error}");
        }
    }
}
