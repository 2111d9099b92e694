//! How often each operation of a service was asked for: `GET /_sim/stats` tells it, `DELETE` begins anew.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::Method;
use serde_json::{Value, json};

/// The path of the counts.
pub(crate) const PATH: &str = "/_sim/stats";

/// Clones share the counts.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counts {
    /// Counts a request for `operation`.
    pub(crate) fn count(&self, operation: &str) {
        *self.lock().entry(operation.to_owned()).or_default() += 1;
    }

    /// Answers a request for the counts themselves; DELETE resets them.
    pub(crate) fn answer(&self, method: &Method) -> Value {
        let mut counts = self.lock();
        if method == Method::DELETE {
            counts.clear();
        }
        json!({ "operations": *counts })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
