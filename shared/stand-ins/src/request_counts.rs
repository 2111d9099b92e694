//! Number of requests per operation of a service. `GET /_sim/stats` returns the counts, `DELETE`
//! resets them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::Method;
use serde_json::{Value, json};

/// Path of the counts.
pub(crate) const PATH: &str = "/_sim/stats";

/// Requests per operation. Clones share the counts.
#[derive(Clone, Default)]
pub(crate) struct RequestCounts(Arc<Mutex<BTreeMap<String, u64>>>);

impl RequestCounts {
    /// RequestCounts a request for `operation`.
    pub(crate) fn count(&self, operation: &str) {
        *self.lock().entry(operation.to_owned()).or_default() += 1;
    }

    /// Returns the body for a request to [`PATH`]; DELETE resets the counts first.
    pub(crate) fn respond(&self, method: &Method) -> Value {
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
