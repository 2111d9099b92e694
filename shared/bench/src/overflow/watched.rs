//! What the processes of a deployment say: an event for every request, and their logs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use serde_json::Value;

use crate::process::Watch;

/// The event of a request, as far as its charge goes; the names are those of `spillway::telemetry::RequestEvent`.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// The process that told it.
    #[serde(skip)]
    pub teller: Option<String>,
    pub request_id: String,
    pub tenant: Option<String>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    /// There is one if something was charged.
    pub tenant_charged_at_ms: Option<u64>,
    pub tenant_charged_day_tokens: Option<u64>,
}

/// A line of a log.
#[derive(Deserialize)]
struct Line {
    level: String,
    fields: BTreeMap<String, Value>,
}

/// What was said so far.
#[derive(Debug, Clone, Default)]
pub struct Said {
    pub events: Vec<Event>,
    /// The requests with a settlement whose outcome the broker does not know.
    pub unsettled: Vec<String>,
    /// How often each warning and error came.
    pub warnings: BTreeMap<String, u64>,
    /// Lines that are neither events nor logs, such as those of a panic.
    pub other: Vec<String>,
}

/// Collects it; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<Mutex<Said>>);

/// What the broker says of a settlement that it cannot be sure of.
const UNSETTLED: &str = "a reservation was not settled and will expire";

/// What it says of a message that the sweep sends again.
pub const RESENT: &str = "a job's message is late or lost, and is sent again";

impl Watched {
    /// What a process's lines are given to; `teller` tells it from others.
    pub fn watch(&self, teller: Option<&str>) -> Watch {
        let (watched, teller) = (self.clone(), teller.map(str::to_owned));
        Arc::new(move |line| watched.hear(teller.as_deref(), line))
    }

    /// A copy of what was said so far.
    pub fn said(&self) -> Said {
        self.lock().clone()
    }

    fn hear(&self, teller: Option<&str>, line: &str) {
        let mut said = self.lock();
        if let Ok(event) = serde_json::from_str::<Event>(line) {
            said.events.push(Event { teller: teller.map(str::to_owned), ..event });
        } else if let Ok(Line { level, fields }) = serde_json::from_str(line) {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            let message = text("message").unwrap_or_default();
            if let (UNSETTLED, Some(request)) = (message, text("request_id")) {
                said.unsettled.push(request.to_owned());
            }
            if level == "WARN" || level == "ERROR" {
                *said.warnings.entry(message.to_owned()).or_default() += 1;
            }
        } else if !line.is_empty() {
            said.other.push(line.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_warnings_are_told_apart() {
        let watched = Watched::default();
        watched.hear(None, r#"{"request_id":"r","tenant":"t","input_tokens":3,"_aws":{}}"#);
        watched.hear(
            None,
            r#"{"timestamp":"x","level":"WARN","fields":{"message":"odd","job_id":"j"},"target":"spillway"}"#,
        );
        let unsettled = format!(r#"{{"level":"WARN","fields":{{"message":"{UNSETTLED}","request_id":"r"}}}}"#);
        watched.hear(None, &unsettled);
        watched.hear(None, "thread panicked");
        let said = watched.said();
        assert_eq!((said.events.len(), said.unsettled), (1, vec!["r".to_owned()]));
        assert_eq!((said.warnings["odd"], said.other.len()), (1, 1));
    }
}
