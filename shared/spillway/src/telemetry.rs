//! Telemetry for operators: one wide event per request on stdout, and logs on stderr.
//!
//! An event is a line of JSON in CloudWatch's embedded metric format, so that the line is both a
//! searchable record and the source of the metrics. Neither events nor logs ever contain a prompt,
//! an answer or a key.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use metrique::{
    CloseValue, RootEntry,
    emf::{Emf, flags::NoMetric},
    unit::{Count, Millisecond},
    unit_of_work::metrics,
    writer::format::Format,
};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{EnvFilter, Layer, filter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::{Config, LogFormat},
    quota::{Charged, Receipt},
    units::{Millis, UnixMs},
};

/// Namespace of the metrics in CloudWatch.
const NAMESPACE: &str = "Spillway";

/// Value of a dimension that a request does not have. CloudWatch accepts no empty values.
const UNKNOWN: &str = "none";

/// The outcome of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[metrics(value(string), rename_all = "snake_case")]
pub enum RequestOutcome {
    Answered,
    /// The request became a job.
    Queued,
    /// There was no room, or there will never be.
    Refused,
    /// The caller, Spillway or the model failed. Also the outcome of an event that was never
    /// completed.
    #[default]
    Failed,
    /// The client disconnected and cannot come back for the answer.
    Cancelled,
    /// The caller got the answer of another attempt at the same call. Nothing was charged for it.
    Replayed,
}

/// The record of one request. A field that is `None` is left out.
///
/// The names of the fields are the names in the JSON. Each number without `NoMetric` is a metric
/// per combination of the dimensions, and CloudWatch bills each metric, so there are few. No
/// dimension has values that a caller can make up: `model` is a name from the registry, never the
/// caller's text.
#[derive(Debug, Clone, Default)]
#[metrics(emf::dimension_sets = [["outcome"], ["dialect", "model", "outcome"]])]
pub struct RequestEvent {
    pub request_id: String,
    /// The request whose answer this request got, if not its own.
    pub answer_of: Option<String>,
    pub tenant: Option<String>,
    pub dialect: Option<&'static str>,
    /// Method and path pattern, such as `POST /v1/messages`.
    pub route: Option<&'static str>,
    pub model: Option<String>,
    pub pool: Option<String>,
    pub class: Option<&'static str>,
    pub outcome: RequestOutcome,
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
    /// Duration of the admission, without the hold.
    #[metrics(unit = Millisecond)]
    pub admit_ms: Option<Millis>,
    #[metrics(unit = Millisecond)]
    pub time_to_first_token_ms: Option<Millis>,
    /// Time from the first byte of the request to the last byte of the answer.
    #[metrics(unit = Millisecond)]
    pub duration_ms: Millis,
    /// Time spent waiting for room.
    #[metrics(flags(NoMetric))]
    pub hold_ms: Option<Millis>,
    /// Number of calls to the model, one for each pool that was tried.
    #[metrics(flags(NoMetric))]
    pub attempts: Option<u32>,
    /// Quota tokens that were not reserved because recent answers were shorter than the output cap.
    #[metrics(flags(NoMetric))]
    pub regained_tokens: Option<u64>,
    /// The tenant's parent, if it was charged.
    pub parent: Option<String>,
    /// Final charge on the tenant.
    #[metrics(flatten, prefix = "tenant_")]
    pub tenant_charged: Option<ChargedEvent>,
    /// Final charge on the parent.
    #[metrics(flatten, prefix = "parent_")]
    pub parent_charged: Option<ChargedEvent>,
    /// Final charge on the pool.
    #[metrics(flatten, prefix = "pool_")]
    pub pool_charged: Option<ChargedEvent>,
}

/// The charge on one account: enough to recompute its counters (`spillway ledger verify`).
#[derive(Debug, Clone, Copy)]
#[metrics(subfield_owned)]
pub struct ChargedEvent {
    #[metrics(flags(NoMetric))]
    charged_at_ms: UnixMs,
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
            charged_at_ms: at,
            charged_minute_tokens: charge.minute_tokens,
            charged_day_tokens: charge.day_tokens,
            charged_microusd: charge.cost_microusd,
        }
    }
}

impl CloseValue for Millis {
    type Closed = u64;

    fn close(self) -> u64 {
        self.as_ms()
    }
}

impl CloseValue for UnixMs {
    type Closed = u64;

    fn close(self) -> u64 {
        self.as_ms()
    }
}

impl RequestEvent {
    /// Adds the charges in `receipt`.
    pub fn charge(&mut self, receipt: &Receipt) {
        self.tenant_charged = receipt.tenant.map(ChargedEvent::from);
        self.parent_charged = receipt.parent.map(ChargedEvent::from);
        self.pool_charged = receipt.pool.map(ChargedEvent::from);
        self.pool.clone_from(&receipt.pool_name);
    }
}

/// Destination of the request events. Clones share it.
#[derive(Clone)]
pub struct Telemetry {
    writer: Option<Arc<Mutex<EventWriter>>>,
}

/// Writes events as lines.
struct EventWriter {
    format: Emf,
    line: Vec<u8>,
    output: Box<dyn Write + Send>,
}

impl Telemetry {
    /// Writes events to stdout, where Lambda picks them up.
    pub fn stdout() -> Self {
        Self::to(std::io::stdout())
    }

    /// Drops all events.
    pub fn off() -> Self {
        Self { writer: None }
    }

    /// Writes events to `output`, with one `write_all` and one `flush` for each event.
    pub fn to(output: impl Write + Send + 'static) -> Self {
        let format = Emf::builder(NAMESPACE.to_owned(), vec![vec![]]).build();
        let writer = EventWriter { format, line: Vec::new(), output: Box::new(output) };
        Self { writer: Some(Arc::new(Mutex::new(writer))) }
    }

    /// Writes the event before it returns, because Lambda may freeze the process right after the
    /// answer.
    pub fn record(&self, event: RequestEvent) {
        let Some(writer) = &self.writer else { return };
        if let Err(error) = writer.lock().unwrap_or_else(PoisonError::into_inner).write(event) {
            tracing::error!(%error, "failed to record an event");
        }
    }
}

impl EventWriter {
    fn write(&mut self, mut event: RequestEvent) -> anyhow::Result<()> {
        event.dialect.get_or_insert(UNKNOWN);
        event.model.get_or_insert_with(|| UNKNOWN.to_owned());
        self.line.clear();
        self.format.format(&RootEntry::new(event.close()), &mut self.line)?;
        self.output.write_all(&self.line)?;
        Ok(self.output.flush()?)
    }
}

/// Sends logs to stderr, configured by `config`. Does nothing if the process already has a log.
///
/// Debug and trace lines come from Spillway only, whatever the filter is: at these levels the AWS
/// SDK prints whole requests.
pub fn init_logs(config: &Config) {
    subscriber(&config.log_filter, config.log_format, std::io::stderr).try_init().ok();
}

fn subscriber<W>(filter: &str, format: LogFormat, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level_filter = EnvFilter::builder().parse_lossy(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let lines = match format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(level_filter).with_filter(filter::filter_fn(is_harmless)))
}

/// Whether a line cannot contain a request.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with("spillway")
}

#[cfg(test)]
mod tests;
