//! What operators see: one wide event per request on stdout, and logs on stderr.
//!
//! An event is a line of JSON in CloudWatch's embedded metric format, so that one line is both a searchable record and
//! the source of the metrics. Neither events nor logs ever hold a prompt, an answer or a key.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use metrique::emf::Emf;
use metrique::emf::flags::NoMetric;
use metrique::unit::{Count, Millisecond};
use metrique::unit_of_work::metrics;
use metrique::writer::format::Format;
use metrique::{CloseValue, RootEntry};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, filter};

use crate::config::{Config, LogFormat};
use crate::quota::{Charged, Receipt};

/// The namespace of the metrics in CloudWatch.
const NAMESPACE: &str = "Spillway";
/// Stands for a dimension that a request never had; CloudWatch takes no empty ones.
const UNKNOWN: &str = "none";

/// How a request ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[metrics(value(string), rename_all = "snake_case")]
pub enum Outcome {
    Answered,
    /// Became a job.
    Queued,
    /// There was no room, or there will never be.
    Refused,
    /// Anything that went wrong, at the caller, here or at the model. Also what an event says that nobody finished.
    #[default]
    Failed,
    /// The client went away, and cannot come back for the answer.
    Cancelled,
    /// Got the answer of another attempt at the same call; nothing was charged for it.
    Replayed,
}

/// All that is recorded of one request. What is `None` is left out of the event.
///
/// Each number without `NoMetric` is a paid metric per combination of the dimensions, so few are, and what a caller can
/// make up is no dimension: `model` is a name from the registry, never the caller's text.
#[derive(Debug, Clone, Default)]
#[metrics(emf::dimension_sets = [["outcome"], ["dialect", "model", "outcome"]])]
pub struct RequestEvent {
    pub request_id: String,
    /// The request whose answer it got, if not its own.
    pub answer_of: Option<String>,
    pub tenant: Option<String>,
    pub dialect: Option<&'static str>,
    /// Method and path pattern, such as `POST /v1/messages`.
    pub route: Option<&'static str>,
    pub model: Option<String>,
    pub pool: Option<String>,
    pub class: Option<&'static str>,
    pub outcome: Outcome,
    /// The limit that refused.
    pub limit: Option<String>,
    #[metrics(flags(NoMetric))]
    pub stream: bool,
    #[metrics(unit = Count)]
    pub input_tokens: Option<u64>,
    #[metrics(unit = Count)]
    pub output_tokens: Option<u64>,
    #[metrics(flags(NoMetric))]
    pub reserved_tokens: Option<u64>,
    pub cost_microusd: Option<u64>,
    /// The time that admission took, without the hold.
    #[metrics(unit = Millisecond)]
    pub admit_ms: Option<u64>,
    #[metrics(unit = Millisecond)]
    pub time_to_first_token_ms: Option<u64>,
    /// From the request's first byte to the answer's last.
    #[metrics(unit = Millisecond)]
    pub duration_ms: u64,
    /// The time spent waiting for room.
    #[metrics(flags(NoMetric))]
    pub hold_ms: Option<u64>,
    /// Calls to the model, one per pool tried.
    #[metrics(flags(NoMetric))]
    pub attempts: Option<u32>,
    /// Quota tokens that were not reserved because recent answers were shorter than what was asked.
    #[metrics(flags(NoMetric))]
    pub regained_tokens: Option<u64>,
    /// The tenant's parent, if it was charged.
    pub parent: Option<String>,
    /// What the tenant was charged in the end.
    #[metrics(flatten, prefix = "tenant_")]
    pub tenant_charged: Option<ChargedEvent>,
    /// What its parent was.
    #[metrics(flatten, prefix = "parent_")]
    pub parent_charged: Option<ChargedEvent>,
    /// What the pool was.
    #[metrics(flatten, prefix = "pool_")]
    pub pool_charged: Option<ChargedEvent>,
}

/// What one account was charged: enough to recompute its counters (`spillway ledger verify`).
#[derive(Debug, Clone, Copy)]
#[metrics(subfield)]
pub struct ChargedEvent {
    #[metrics(flags(NoMetric))]
    charged_at_ms: u64,
    #[metrics(flags(NoMetric))]
    charged_minute_tokens: u64,
    #[metrics(flags(NoMetric))]
    charged_day_tokens: u64,
    #[metrics(flags(NoMetric))]
    charged_microusd: u64,
}

impl From<Charged> for ChargedEvent {
    fn from(Charged { at, charge }: Charged) -> Self {
        Self {
            charged_at_ms: at.as_ms(),
            charged_minute_tokens: charge.minute_tokens,
            charged_day_tokens: charge.day_tokens,
            charged_microusd: charge.cost_microusd,
        }
    }
}

impl RequestEvent {
    /// Takes over what was charged where.
    pub fn charge(&mut self, receipt: &Receipt) {
        self.tenant_charged = receipt.tenant.map(ChargedEvent::from);
        self.parent_charged = receipt.parent.map(ChargedEvent::from);
        self.pool_charged = receipt.pool.map(ChargedEvent::from);
        self.pool.clone_from(&receipt.pool_name);
    }
}

/// Where events go; clones share it.
#[derive(Clone)]
pub struct Telemetry {
    output: Option<Arc<Mutex<Output>>>,
}

struct Output {
    format: Emf,
    line: Vec<u8>,
    writer: Box<dyn Write + Send>,
}

impl Telemetry {
    /// Events to stdout, where Lambda picks them up.
    pub fn stdout() -> Self {
        Self::to(std::io::stdout())
    }

    /// Events to nowhere.
    pub fn off() -> Self {
        Self { output: None }
    }

    /// Events to `writer`: one `write_all` and one `flush` per event.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        let format = Emf::builder(NAMESPACE.to_owned(), vec![vec![]]).build();
        let output = Output { format, line: Vec::new(), writer: Box::new(writer) };
        Self { output: Some(Arc::new(Mutex::new(output))) }
    }

    /// Writes the event before it returns, because Lambda may freeze the process right after the answer.
    pub fn record(&self, event: RequestEvent) {
        let Some(output) = &self.output else { return };
        if let Err(error) = output.lock().unwrap_or_else(PoisonError::into_inner).write(event) {
            tracing::error!(%error, "cannot record an event");
        }
    }
}

impl Output {
    fn write(&mut self, mut event: RequestEvent) -> anyhow::Result<()> {
        event.dialect.get_or_insert(UNKNOWN);
        event.model.get_or_insert_with(|| UNKNOWN.to_owned());
        self.line.clear();
        self.format.format(&RootEntry::new(event.close()), &mut self.line)?;
        self.writer.write_all(&self.line)?;
        Ok(self.writer.flush()?)
    }
}

/// Sends logs to stderr from now on, as `config` says. Does nothing when the process already has a log.
///
/// Debug and trace lines come from Spillway only, whatever the settings say: the AWS SDK prints whole requests there.
pub fn init_logs(config: &Config) {
    subscriber(&config.log_filter, config.log_format, std::io::stderr).try_init().ok();
}

fn subscriber<W>(filter: &str, format: LogFormat, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let wanted = EnvFilter::builder().parse_lossy(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let lines = match format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(wanted).with_filter(filter::filter_fn(is_harmless)))
}

fn is_harmless(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with("spillway")
}

#[cfg(test)]
mod tests;
