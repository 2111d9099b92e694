//! A writer that records events or logs.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing::{Dispatch, Level, subscriber::DefaultGuard};

/// The recorded lines. Clones share them.
#[derive(Clone, Default)]
pub struct Recorded(Arc<Mutex<Vec<u8>>>);

impl Recorded {
    /// Returns all lines so far.
    pub fn lines(&self) -> Vec<u8> {
        self.0.lock().expect("not poisoned").clone()
    }

    /// Returns the events of requests so far.
    pub fn requests(&self) -> Vec<Value> {
        self.events().into_iter().filter(|event| event.get("request_id").is_some()).collect()
    }

    /// Returns all events so far.
    pub fn events(&self) -> Vec<Value> {
        let lines = String::from_utf8(self.lines()).expect("text");
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes the logs of this thread to `logs` while the returned guards live.
///
/// With a single dispatcher, `tracing` lets the thread that reaches a callsite first decide for all
/// threads whether the callsite is of interest, and that thread can belong to a test without logs.
/// With a second dispatcher, `tracing` asks all dispatchers.
pub fn record_logs(logs: &Recorded) -> (DefaultGuard, Dispatch) {
    let writer = logs.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_writer(move || writer.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    (guard, Dispatch::new(tracing_subscriber::registry()))
}
