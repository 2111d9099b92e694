//! Counts the requests of a service and injects faults into them.
//!
//! [`Faults`] is the state; tests in the same process use it directly. [`serve`] is a loopback
//! proxy that applies it to a stand-in that cannot apply it itself. The same controls exist over
//! HTTP: `GET` and `DELETE /_sim/stats`, `POST` (one [`Fault`] as JSON) and `DELETE /_sim/faults`.

pub(crate) mod control;
mod proxy;
mod units;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

pub use proxy::serve;
pub use units::Units;

/// Effect of a fault on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Rejects the request with `ThrottlingException` and status 400 (DynamoDB), `RequestThrottled`
    /// and status 400 (SQS), or `SlowDown` and status 503 (S3).
    Throttle,
    /// Rejects the request with status 500 and `InternalServerError` (DynamoDB), `InternalFailure`
    /// (SQS) or `InternalError` (S3).
    #[serde(rename = "error_500")]
    Error500,
    /// Executes the request and never responds, so that the client runs into its timeout.
    TimeoutAfter,
    /// Executes the request and closes the connection without a response.
    CutAfter,
    /// Executes the request and responds after this many milliseconds.
    DelayMs(u64),
}

/// A fault: the requests that it strikes, and its effect. If several faults match a request, the
/// fault that was injected first strikes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Operation that the fault applies to, such as `UpdateItem` or `PutObject`; all operations if
    /// absent.
    #[serde(default)]
    pub operation: Option<String>,
    /// Effect on a struck request.
    pub effect: Effect,
    /// Number of matching requests that pass before the first can be struck.
    #[serde(default)]
    pub skip: u64,
    /// Maximum number of struck requests; unlimited if absent.
    #[serde(default)]
    pub times: Option<u64>,
    /// Share of the matching requests that is struck, from 0 to 1. The same sequence of requests
    /// always gets the same faults.
    #[serde(default = "default_probability")]
    pub probability: f64,
}

impl Fault {
    /// Creates a fault that strikes all requests of `operation`. The other fields narrow it down.
    pub fn on(operation: &str, effect: Effect) -> Self {
        Self { operation: Some(operation.to_owned()), effect, skip: 0, times: None, probability: default_probability() }
    }
}

/// Counters since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Requests per operation, including struck requests. The operation of a DynamoDB request is
    /// the last segment of `x-amz-target`, or the path without that header.
    pub operations: BTreeMap<String, u64>,
    /// Responses with a `ConditionalCheckFailedException`.
    pub failed_conditions: u64,
    /// Requests that were struck by a fault.
    pub struck: u64,
    /// Units of DynamoDB by table. Empty for other services.
    pub units: BTreeMap<String, Units>,
}

/// Handle to the counters and faults of a service. Clones share the same state.
#[derive(Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

impl Faults {
    /// Adds a fault after the existing faults.
    pub fn inject(&self, fault: Fault) {
        self.lock().rules.push(Rule { fault, matched: 0, struck: 0 });
    }

    /// Removes all faults and keeps the counters.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// Returns a copy of the counters.
    pub fn stats(&self) -> Stats {
        self.lock().stats.clone()
    }

    /// Sets all counters to zero and keeps the faults.
    pub fn reset_stats(&self) {
        self.lock().stats = Stats::default();
    }

    /// Counts a request and returns the effect of the fault that strikes it.
    pub(crate) fn record(&self, operation: &str) -> Option<Effect> {
        let mut state = self.lock();
        *state.stats.operations.entry(operation.to_owned()).or_default() += 1;
        let effect = state.rules.iter_mut().find_map(|rule| rule.strike(operation))?;
        state.stats.struck += 1;
        Some(effect)
    }

    fn count_failed_condition(&self, request: &[u8]) {
        let mut state = self.lock();
        state.stats.failed_conditions += 1;
        units::add_failed_condition(&mut state.stats.units, request);
    }

    fn count_units(&self, operation: &str, response: &[u8]) {
        units::add(&mut self.lock().stats.units, operation, response);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    stats: Stats,
    rules: Vec<Rule>,
}

struct Rule {
    fault: Fault,
    matched: u64,
    struck: u64,
}

impl Rule {
    fn strike(&mut self, operation: &str) -> Option<Effect> {
        if self.fault.operation.as_deref().is_some_and(|expected| expected != operation) {
            return None;
        }
        self.matched += 1;
        let is_struck = self.matched > self.fault.skip
            && self.fault.times.is_none_or(|times| self.struck < times)
            && pseudo_random(self.matched) < self.fault.probability;
        self.struck += u64::from(is_struck);
        is_struck.then_some(self.fault.effect)
    }
}

fn default_probability() -> f64 {
    1.0
}

/// Returns a pseudo-random number in 0..1 that depends only on `number` (the finalizer of
/// SplitMix64).
fn pseudo_random(number: u64) -> f64 {
    let mut mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) as f64 / (u64::MAX as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(fault: Fault, requests: usize) -> Vec<bool> {
        let faults = Faults::default();
        faults.inject(fault);
        (0..requests).map(|_| faults.record("UpdateItem").is_some()).collect()
    }

    #[test]
    fn skip_and_times_select_the_struck_requests() {
        let fault = Fault { skip: 2, times: Some(1), ..Fault::on("UpdateItem", Effect::Throttle) };
        assert_eq!(struck(fault, 5), [false, false, true, false, false]);
    }

    #[test]
    fn a_fault_strikes_only_its_operation() {
        assert_eq!(struck(Fault::on("GetItem", Effect::Throttle), 2), [false, false]);
        assert_eq!(struck(Fault { operation: None, ..Fault::on("", Effect::Throttle) }, 2), [true, true]);
    }

    #[test]
    fn a_probability_strikes_a_repeatable_share_of_the_requests() {
        let fault = Fault { probability: 0.25, ..Fault::on("UpdateItem", Effect::Throttle) };
        let first = struck(fault.clone(), 10_000);
        let hits = first.iter().filter(|hit| **hit).count();
        assert!((2_300..2_700).contains(&hits), "{hits} of 10000 struck");
        assert_eq!(first, struck(fault, 10_000));
        assert!(!struck(Fault { probability: 0.0, ..Fault::on("UpdateItem", Effect::Throttle) }, 1000).contains(&true));
    }

    #[test]
    fn a_fault_can_be_read_from_json() {
        let fault: Fault = serde_json::from_str(r#"{"effect":{"delay_ms":7},"times":3}"#).unwrap();
        assert_eq!((fault.effect, fault.times, fault.probability), (Effect::DelayMs(7), Some(3), 1.0));
        let fault: Fault = serde_json::from_str(r#"{"operation":"PutItem","effect":"error_500"}"#).unwrap();
        assert_eq!(fault, Fault::on("PutItem", Effect::Error500));
        assert!(serde_json::from_str::<Fault>(r#"{"effect":"throttle","probabilty":0.1}"#).is_err());
    }
}
