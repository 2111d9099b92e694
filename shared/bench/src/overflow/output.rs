//! Output of the processes of a deployment: request events and logs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use serde_json::Value;

use crate::process::LineSink;

/// Charges in a request event. The field names come from `spillway::telemetry::RequestEvent`.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// Process that printed the event.
    #[serde(skip)]
    pub process: Option<String>,
    pub request_id: String,
    pub tenant: Option<String>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    /// Present if the request was charged.
    pub tenant_charged_at_ms: Option<u64>,
    pub tenant_charged_day_tokens: Option<u64>,
}

/// A log line.
#[derive(Deserialize)]
struct Line {
    level: String,
    fields: BTreeMap<String, Value>,
}

/// Output so far.
#[derive(Debug, Clone, Default)]
pub struct Output {
    pub events: Vec<Event>,
    /// Requests with a settlement whose result the broker does not know.
    pub unsettled: Vec<String>,
    /// Number of warnings and errors by message.
    pub warnings: BTreeMap<String, u64>,
    /// Lines that are neither events nor logs, such as the lines of a panic.
    pub unparsed: Vec<String>,
}

/// Collector of output. Clones share the output.
#[derive(Debug, Clone, Default)]
pub struct OutputLog(Arc<Mutex<Output>>);

/// The broker's log message for a settlement with an unknown result.
const UNSETTLED: &str = "failed to settle a reservation; it will expire";

/// The broker's log message for a message that the sweep sends again.
pub const RESENT: &str = "sending an overdue message again";

impl OutputLog {
    /// Returns a sink for the lines of `process`.
    pub fn sink(&self, process: Option<&str>) -> LineSink {
        let (log, process) = (self.clone(), process.map(str::to_owned));
        Arc::new(move |line| log.add(process.as_deref(), line))
    }

    /// Returns a copy of the output so far.
    pub fn snapshot(&self) -> Output {
        self.lock().clone()
    }

    fn add(&self, process: Option<&str>, line: &str) {
        let mut output = self.lock();
        if let Ok(event) = serde_json::from_str::<Event>(line) {
            output.events.push(Event { process: process.map(str::to_owned), ..event });
        } else if let Ok(Line { level, fields }) = serde_json::from_str(line) {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            let message = text("message").unwrap_or_default();
            if let (UNSETTLED, Some(request)) = (message, text("request_id")) {
                output.unsettled.push(request.to_owned());
            }
            if level == "WARN" || level == "ERROR" {
                *output.warnings.entry(message.to_owned()).or_default() += 1;
            }
        } else if !line.is_empty() && !line.starts_with(r#"{"_aws":"#) {
            // Events of sweeps and of denied calls are not counted.
            output.unparsed.push(line.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn the_library_logs_the_messages_that_are_counted() {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spillway/src");
        let texts: Vec<String> =
            sources(&library).iter().map(|file| std::fs::read_to_string(file).expect("UTF-8")).collect();
        for message in [UNSETTLED, RESENT] {
            assert!(texts.iter().any(|text| text.contains(&format!("\"{message}\""))), "no code logs {message:?}");
        }
    }

    #[test]
    fn events_and_warnings_are_distinguished() {
        let log = OutputLog::default();
        log.add(None, r#"{"request_id":"r","tenant":"t","input_tokens":3,"_aws":{}}"#);
        log.add(
            None,
            r#"{"timestamp":"x","level":"WARN","fields":{"message":"odd","job_id":"j"},"target":"spillway"}"#,
        );
        let unsettled = format!(r#"{{"level":"WARN","fields":{{"message":"{UNSETTLED}","request_id":"r"}}}}"#);
        log.add(None, &unsettled);
        log.add(None, r#"{"_aws":{},"sweeps":1}"#);
        log.add(None, "thread panicked");
        let output = log.snapshot();
        assert_eq!((output.events.len(), output.unsettled), (1, vec!["r".to_owned()]));
        assert_eq!((output.warnings["odd"], output.unparsed.len()), (1, 1));
    }
}
