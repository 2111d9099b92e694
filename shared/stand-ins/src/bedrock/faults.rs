//! Faults to inject: from the settings of a pool, the control route, or a model id that begins with
//! `sim.`.

use std::collections::HashMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    config::Simulator,
    problem::{Problem, TOO_MANY_TOKENS, TOO_MANY_TOKENS_PER_DAY},
};

/// A fault. It has at least one effect. If several effects refuse the call, the first of this order
/// applies: `disconnect`, `throttle`, `daily_quota`, `unavailable`, `status_5xx`, `error`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Model id that the fault applies to; all models if absent.
    pub model_id: Option<String>,
    /// Reads the request and closes the connection without a response.
    pub disconnect: bool,
    /// Responds with 429 ThrottlingException: `true` to all calls, or a number to this share of the
    /// calls, evenly spread (0.25 = every fourth).
    pub throttle: Option<Throttle>,
    /// Responds with 429 ThrottlingException, as beyond the quota of tokens per day.
    pub daily_quota: bool,
    /// Responds with 503 ServiceUnavailableException.
    pub unavailable: bool,
    /// Responds with this status: 503 as ServiceUnavailableException, other statuses as
    /// InternalServerException.
    pub status_5xx: Option<u16>,
    /// Responds with this exception and its status, for example `ModelTimeoutException`.
    pub error: Option<String>,
    /// Pauses for this time: a stream after its first tokens, other calls after the headers of the
    /// response.
    pub stall_ms: Option<u64>,
    /// Pauses for this time before the first byte of an answer.
    pub silent_ms: Option<u64>,
    /// Closes the connection of a stream after this number of events. The tokens until then are
    /// produced and counted.
    pub cut_stream_after_events: Option<u64>,
    /// Ends a stream with a `throttlingException` event after this number of events. The tokens
    /// until then are produced and counted.
    pub throttle_mid_stream: Option<u64>,
    /// Share of the matching calls that the fault strikes, from 0 to 1 and evenly spread; all calls
    /// if absent.
    pub share: Option<f64>,
    /// Number of calls that the fault strikes before it is removed; unlimited if absent.
    pub times: Option<u64>,
}

/// Calls that are throttled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Throttle {
    /// All calls or none.
    Always(bool),
    /// A share from 0 to 1.
    Share(f64),
}

/// Effects of a fault on a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct InjectedFault {
    /// Response instead of an answer.
    pub refusal: Option<Refusal>,
    /// Pause in milliseconds.
    pub stall_ms: u64,
    /// Pause before the first byte in milliseconds.
    pub silent_ms: u64,
    /// Number of events before the connection is closed.
    pub cut_after_events: Option<u64>,
    /// Number of events before a throttling event.
    pub throttle_after_events: Option<u64>,
}

/// Response to a refused call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    /// Closes the connection without a response.
    Disconnect,
    /// An error response.
    Error(Problem),
}

/// Faults that can still strike.
#[derive(Debug, Default)]
pub(super) struct FaultSet {
    by_pool: HashMap<String, ActiveFault>,
    added: Vec<ActiveFault>,
}

#[derive(Debug)]
struct ActiveFault {
    fault: Fault,
    strikes_left: Option<u64>,
    throttle_share: EvenShare,
    strike_share: EvenShare,
}

/// Spreads a share evenly instead of at random, so that a run is repeatable.
#[derive(Debug, Default)]
struct EvenShare(f64);

impl EvenShare {
    /// Returns whether the next call belongs to the share.
    fn is_next(&mut self, share: f64) -> bool {
        self.0 += share;
        let is_due = self.0 > 1.0 - 1e-9;
        if is_due {
            self.0 -= 1.0;
        }
        is_due
    }
}

/// Pause of `sim.stalls` and `sim.silent`.
const STALL_MS: u64 = 600_000;
/// Events after which `sim.breaks` and `sim.throttles-mid-stream` fail: the first event and a few
/// deltas.
const EVENTS_BEFORE_FAILURE: u64 = 4;

impl FaultSet {
    /// Creates the set with the faults of the pools.
    ///
    /// # Errors
    /// Returns an error if a fault is invalid.
    pub fn new(simulator: &Simulator) -> Result<Self, String> {
        let mut faults = Self::default();
        for pool in &simulator.pools {
            let Some(fault) = &pool.fault else { continue };
            if fault.model_id.is_some() {
                return Err(format!("the fault of pool {:?} must not have a model_id", pool.model_id));
            }
            fault.validate()?;
            faults.by_pool.insert(pool.model_id.clone(), ActiveFault::new(fault.clone()));
        }
        Ok(faults)
    }

    /// Adds a fault after the existing faults.
    ///
    /// # Errors
    /// Returns an error if the fault is invalid.
    pub fn add(&mut self, fault: Fault) -> Result<(), String> {
        fault.validate()?;
        self.added.push(ActiveFault::new(fault));
        Ok(())
    }

    /// Removes the added faults and keeps the faults of pools.
    pub fn clear(&mut self) {
        self.added.clear();
    }

    /// Returns the added faults that can still strike.
    pub fn added(&self) -> Vec<&Fault> {
        self.added.iter().map(|active| &active.fault).collect()
    }

    /// Returns the effects on a call: of its model id, else of its pool, else of the first added
    /// fault that strikes.
    pub fn strike(&mut self, model_id: &str) -> InjectedFault {
        if let Some(injected_fault) = fault_for_model_id(model_id).and_then(|fault| ActiveFault::new(fault).strike()) {
            return injected_fault;
        }
        if let Some(injected_fault) = self.by_pool.get_mut(model_id).and_then(ActiveFault::strike) {
            return injected_fault;
        }
        let matching = self.added.iter_mut().filter(|active| active.matches_model(model_id));
        let injected_fault = matching.into_iter().find_map(ActiveFault::strike).unwrap_or_default();
        self.added.retain(|active| active.strikes_left != Some(0));
        injected_fault
    }
}

/// Returns the behaviour in a `sim.` model id: `breaks` in `sim.breaks` and `sim.breaks.second`.
pub(super) fn behaviour(model_id: &str) -> Option<&str> {
    model_id.strip_prefix("sim.")?.split('.').next()
}

fn fault_for_model_id(model_id: &str) -> Option<Fault> {
    let error = |name: &str| Fault { error: Some(name.to_owned()), ..Fault::default() };
    match behaviour(model_id)? {
        "throttled" => Some(Fault { throttle: Some(Throttle::Always(true)), ..Fault::default() }),
        "breaks" => Some(Fault { cut_stream_after_events: Some(EVENTS_BEFORE_FAILURE), ..Fault::default() }),
        "throttles-mid-stream" => Some(Fault { throttle_mid_stream: Some(EVENTS_BEFORE_FAILURE), ..Fault::default() }),
        "stalls" => Some(Fault { stall_ms: Some(STALL_MS), ..Fault::default() }),
        "silent" => Some(Fault { silent_ms: Some(STALL_MS), ..Fault::default() }),
        "errors" => Some(error("InternalServerException")),
        "timeout" => Some(error("ModelTimeoutException")),
        "refuses" => Some(error("ValidationException")),
        "denied" => Some(error("AccessDeniedException")),
        _ => None,
    }
}

impl Fault {
    fn validate(&self) -> Result<(), String> {
        if let Some(Throttle::Share(share)) = self.throttle
            && !(0.0..=1.0).contains(&share)
        {
            return Err("throttle must be a boolean or a share between 0 and 1".to_owned());
        }
        if self.status_5xx.is_some_and(|status| !(500..600).contains(&status)) {
            return Err("status_5xx must be a status between 500 and 599".to_owned());
        }
        if self.error.as_ref().is_some_and(|name| Problem::from_name(name).is_none()) {
            return Err("error must be the name of an exception of Bedrock Runtime".to_owned());
        }
        if self.share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err("share must be between 0 and 1".to_owned());
        }
        let effectless =
            Fault { model_id: self.model_id.clone(), share: self.share, times: self.times, ..Fault::default() };
        if *self == effectless {
            return Err("a fault must have an effect".to_owned());
        }
        Ok(())
    }

    fn refusal(&self, throttle: bool) -> Option<Refusal> {
        if self.disconnect {
            return Some(Refusal::Disconnect);
        }
        let problem = if throttle {
            Some(Problem::throttled(TOO_MANY_TOKENS))
        } else if self.daily_quota {
            Some(Problem::throttled(TOO_MANY_TOKENS_PER_DAY))
        } else if self.unavailable {
            Some(Problem::unavailable())
        } else if let Some(status) = self.status_5xx {
            StatusCode::from_u16(status).ok().map(Problem::internal)
        } else {
            self.error.as_deref().and_then(Problem::from_name)
        };
        problem.map(Refusal::Error)
    }
}

impl ActiveFault {
    fn new(fault: Fault) -> Self {
        Self {
            strikes_left: fault.times,
            fault,
            throttle_share: EvenShare::default(),
            strike_share: EvenShare::default(),
        }
    }

    fn matches_model(&self, model_id: &str) -> bool {
        self.fault.model_id.as_deref().is_none_or(|expected| expected == model_id)
    }

    fn strike(&mut self) -> Option<InjectedFault> {
        if self.strikes_left == Some(0) || !self.fault.share.is_none_or(|share| self.strike_share.is_next(share)) {
            return None;
        }
        let throttle = self.throttle_is_due();
        let injected_fault = InjectedFault {
            refusal: self.fault.refusal(throttle),
            stall_ms: self.fault.stall_ms.unwrap_or(0),
            silent_ms: self.fault.silent_ms.unwrap_or(0),
            cut_after_events: self.fault.cut_stream_after_events,
            throttle_after_events: self.fault.throttle_mid_stream,
        };
        if injected_fault == InjectedFault::default() {
            return None;
        }
        self.strikes_left = self.strikes_left.map(|left| left - 1);
        Some(injected_fault)
    }

    fn throttle_is_due(&mut self) -> bool {
        match self.fault.throttle {
            None => false,
            Some(Throttle::Always(always)) => always,
            Some(Throttle::Share(share)) => self.throttle_share.is_next(share),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled(injected_fault: &InjectedFault) -> bool {
        matches!(&injected_fault.refusal, Some(Refusal::Error(problem)) if problem.is_throttle())
    }

    #[test]
    fn a_share_of_the_calls_is_struck_evenly() {
        let mut faults = FaultSet::default();
        faults.add(Fault { throttle: Some(Throttle::Share(0.25)), ..Fault::default() }).unwrap();
        let struck: Vec<bool> = (0..8).map(|_| throttled(&faults.strike("any"))).collect();
        assert_eq!(struck, [false, false, false, true, false, false, false, true]);
    }

    #[test]
    fn any_effect_can_strike_a_share_of_the_calls() {
        let mut faults = FaultSet::default();
        let cut = Fault { cut_stream_after_events: Some(2), share: Some(0.5), ..Fault::default() };
        faults.add(cut).unwrap();
        let struck: Vec<bool> = (0..4).map(|_| faults.strike("any").cut_after_events.is_some()).collect();
        assert_eq!(struck, [false, true, false, true]);
        assert!(faults.add(Fault { share: Some(0.5), ..Fault::default() }).is_err(), "a share is no effect");
    }

    #[test]
    fn a_fault_is_removed_after_its_number_of_times() {
        let mut faults = FaultSet::default();
        let fault = Fault { model_id: Some("a".into()), unavailable: true, times: Some(2), ..Fault::default() };
        faults.add(fault).unwrap();
        assert_eq!(faults.strike("b"), InjectedFault::default());
        assert!(faults.strike("a").refusal.is_some());
        assert!(faults.strike("a").refusal.is_some());
        assert_eq!(faults.strike("a"), InjectedFault::default());
        assert!(faults.added().is_empty());
    }

    #[test]
    fn a_fault_without_effect_or_out_of_range_is_refused() {
        let mut faults = FaultSet::default();
        for fault in [
            Fault { times: Some(1), ..Fault::default() },
            Fault { throttle: Some(Throttle::Share(1.5)), ..Fault::default() },
            Fault { status_5xx: Some(404), ..Fault::default() },
            Fault { error: Some("Nonsense".into()), ..Fault::default() },
        ] {
            assert!(faults.add(fault).is_err());
        }
    }

    #[test]
    fn several_model_ids_can_have_the_same_behaviour() {
        let mut faults = FaultSet::default();
        assert!(throttled(&faults.strike("sim.throttled")));
        assert!(throttled(&faults.strike("sim.throttled.second")));
        assert!(!throttled(&faults.strike("sim.anything")));
    }
}
