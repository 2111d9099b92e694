//! Telemetry for operators: one wide event per request on stdout, and logs on stderr.
//!
//! An event is a line of JSON in CloudWatch's embedded metric format, so that the line is both a
//! searchable record and the source of the metrics. Neither events nor logs ever contain a prompt,
//! an answer or a key. Sweeps and denied calls have events, too.

mod events;
mod formats;

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use metrique::{
    CloseValue, RootEntry,
    emf::Emf,
    writer::{Entry, format::Format},
};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{EnvFilter, Layer, filter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

pub use events::{DenialEvent, LateCallEvent, PoolOutageEvent, RequestEvent, RequestOutcome, SweepEvent};
use formats::Formats;

use crate::config::{Config, DEFAULT_METRIC_NAMESPACE, LogFormat};

/// Destination of events. Clones share it.
#[derive(Clone)]
pub struct Telemetry {
    writer: Option<Arc<Mutex<EventWriter>>>,
}

/// Writes events as lines.
struct EventWriter {
    formats: Formats,
    line: Vec<u8>,
    output: Box<dyn Write + Send>,
}

impl Telemetry {
    /// Writes events with metrics in `namespace` to `output`, with one `write_all` and one `flush`
    /// for each event.
    pub fn new(namespace: &str, output: impl Write + Send + 'static) -> Self {
        let writer = EventWriter { formats: Formats::new(namespace), line: Vec::new(), output: Box::new(output) };
        Self { writer: Some(Arc::new(Mutex::new(writer))) }
    }

    /// Writes events with metrics in the default namespace to `output`.
    pub fn to(output: impl Write + Send + 'static) -> Self {
        Self::new(DEFAULT_METRIC_NAMESPACE, output)
    }

    /// Drops all events.
    pub fn off() -> Self {
        Self { writer: None }
    }

    /// Records a request. Writes the event before it returns, because Lambda may freeze the process
    /// right after the answer.
    pub fn record(&self, mut event: RequestEvent) {
        let tokens = event.input_tokens.unwrap_or_default() + event.output_tokens.unwrap_or_default();
        event.tokens = event.cost_microusd.map(|_| tokens);
        self.write(|formats| formats.for_request(&event), &RootEntry::new(event.clone().close()));
    }

    /// Records a sweep.
    pub fn record_sweep(&self, event: SweepEvent) {
        self.write(|formats| &mut formats.plain, &RootEntry::new(event.close()));
    }

    /// Records a call that Bedrock denied.
    pub fn record_denial(&self, event: DenialEvent) {
        self.write(|formats| &mut formats.plain, &RootEntry::new(event.close()));
    }

    /// Records a call that was passed on to the next pool.
    pub fn record_late_call(&self, event: LateCallEvent) {
        self.write(|formats| &mut formats.plain, &RootEntry::new(event.close()));
    }

    /// Records an outage of a pool that begins.
    pub fn record_outage(&self, event: PoolOutageEvent) {
        self.write(|formats| &mut formats.plain, &RootEntry::new(event.close()));
    }

    fn write(&self, format: impl FnOnce(&mut Formats) -> &mut Emf, event: &impl Entry) {
        let Some(writer) = &self.writer else { return };
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writer.write(format, event) {
            tracing::error!(%error, "failed to record an event");
        }
    }
}

impl EventWriter {
    fn write(&mut self, format: impl FnOnce(&mut Formats) -> &mut Emf, event: &impl Entry) -> anyhow::Result<()> {
        self.line.clear();
        format(&mut self.formats).format(event, &mut self.line)?;
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
