//! Counts a service's requests and makes some of them fail.
//!
//! [`Faults`] is the state, for tests in the same process; [`serve`] is a loopback proxy that applies it to a stand-in that
//! cannot do so itself. Over HTTP the same is told and taken: `GET` and `DELETE /_sim/stats`, `POST` (one [`Fault`] as JSON) and `DELETE /_sim/faults`.

pub(crate) mod control;
mod proxy;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

pub use proxy::serve;

/// What happens to a request that is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Answered with DynamoDB's `ThrottlingException`, status 400, or S3's `SlowDown`, status 503; the request is not carried
    /// out.
    Throttle,
    /// Answered with DynamoDB's `InternalServerError` or S3's `InternalError`, status 500; the request is not carried out.
    #[serde(rename = "error_500")]
    Error500,
    /// Carried out, then never answered: the client's own timeout has to end the wait.
    TimeoutAfter,
    /// Carried out, then the connection is closed without an answer.
    CutAfter,
    /// Carried out and answered, this many milliseconds late.
    DelayMs(u64),
}

/// Which requests are struck, and how. A request is struck by the first fault, in the order of injection, that fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Such as `UpdateItem` or `PutObject`; every operation when absent.
    #[serde(default)]
    pub operation: Option<String>,
    pub effect: Effect,
    /// How many matching requests pass before the first can be struck.
    #[serde(default)]
    pub skip: u64,
    /// How many requests are struck at most; any number when absent.
    #[serde(default)]
    pub times: Option<u64>,
    /// The share of the matching requests to strike, 0 to 1. The same sequence of requests always meets the same faults.
    #[serde(default = "always")]
    pub probability: f64,
}

impl Fault {
    /// Strikes every request of `operation`; narrow it down with the other fields.
    pub fn on(operation: &str, effect: Effect) -> Self {
        Self { operation: Some(operation.to_owned()), effect, skip: 0, times: None, probability: always() }
    }
}

/// What came by on the wire since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Requests per operation, struck ones included. An operation of DynamoDB is the end of `x-amz-target`, else the path.
    pub operations: BTreeMap<String, u64>,
    /// Answers that were a `ConditionalCheckFailedException`.
    pub failed_conditions: u64,
    /// Requests that a fault struck.
    pub struck: u64,
}

/// A handle on a service's counters and faults; clones share them.
#[derive(Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

impl Faults {
    /// Adds a fault behind those already there.
    pub fn inject(&self, fault: Fault) {
        self.lock().rules.push(Rule { fault, matched: 0, struck: 0 });
    }

    /// Removes all faults; the counters stay.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    pub fn stats(&self) -> Stats {
        self.lock().stats.clone()
    }

    /// Sets all counters to zero; the faults stay.
    pub fn reset_stats(&self) {
        self.lock().stats = Stats::default();
    }

    /// Counts a request and says what is to happen to it.
    pub(crate) fn arrive(&self, operation: &str) -> Option<Effect> {
        let mut state = self.lock();
        *state.stats.operations.entry(operation.to_owned()).or_default() += 1;
        let effect = state.rules.iter_mut().find_map(|rule| rule.strike(operation))?;
        state.stats.struck += 1;
        Some(effect)
    }

    fn count_failed_condition(&self) {
        self.lock().stats.failed_conditions += 1;
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
        if self.fault.operation.as_deref().is_some_and(|wanted| wanted != operation) {
            return None;
        }
        self.matched += 1;
        let fires = self.matched > self.fault.skip
            && self.fault.times.is_none_or(|times| self.struck < times)
            && share(self.matched) < self.fault.probability;
        self.struck += u64::from(fires);
        fires.then_some(self.fault.effect)
    }
}

fn always() -> f64 {
    1.0
}

/// A number in 0..1 that looks random and depends on `n` alone (the finalizer of SplitMix64).
fn share(n: u64) -> f64 {
    let mut mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
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
        (0..requests).map(|_| faults.arrive("UpdateItem").is_some()).collect()
    }

    #[test]
    fn a_sequence_strikes_exactly_its_requests() {
        let fault = Fault { skip: 2, times: Some(1), ..Fault::on("UpdateItem", Effect::Throttle) };
        assert_eq!(struck(fault, 5), [false, false, true, false, false]);
    }

    #[test]
    fn a_fault_strikes_its_operation_only() {
        assert_eq!(struck(Fault::on("GetItem", Effect::Throttle), 2), [false, false]);
        assert_eq!(struck(Fault { operation: None, ..Fault::on("", Effect::Throttle) }, 2), [true, true]);
    }

    #[test]
    fn a_probability_strikes_its_share_and_repeats_itself() {
        let fault = Fault { probability: 0.25, ..Fault::on("UpdateItem", Effect::Throttle) };
        let first = struck(fault.clone(), 10_000);
        let hits = first.iter().filter(|hit| **hit).count();
        assert!((2_300..2_700).contains(&hits), "{hits} of 10000 struck");
        assert_eq!(first, struck(fault, 10_000));
        assert!(!struck(Fault { probability: 0.0, ..Fault::on("UpdateItem", Effect::Throttle) }, 1000).contains(&true));
    }

    #[test]
    fn a_fault_is_written_as_json() {
        let fault: Fault = serde_json::from_str(r#"{"effect":{"delay_ms":7},"times":3}"#).unwrap();
        assert_eq!((fault.effect, fault.times, fault.probability), (Effect::DelayMs(7), Some(3), 1.0));
        let fault: Fault = serde_json::from_str(r#"{"operation":"PutItem","effect":"error_500"}"#).unwrap();
        assert_eq!(fault, Fault::on("PutItem", Effect::Error500));
        assert!(serde_json::from_str::<Fault>(r#"{"effect":"throttle","probabilty":0.1}"#).is_err());
    }
}
