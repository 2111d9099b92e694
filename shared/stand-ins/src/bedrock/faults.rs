//! What goes wrong on demand: by a pool's settings, by the control route, or by a model id that begins with `sim.`.

use std::collections::HashMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    config::Simulator,
    problem::{Problem, TOO_MANY_TOKENS},
};

/// One fault. At least one effect is set; of several the first in this order that refuses the call wins: `region_down`,
/// `throttle`, `unavailable`, `status_5xx`, `error`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The model id it is for; absent for every model.
    pub model_id: Option<String>,
    /// The connection is dropped without an answer.
    pub region_down: bool,
    /// Answers 429 ThrottlingException: `true` always, or to this share of the calls, evenly spread (0.25 = every
    /// fourth).
    pub throttle: Option<Throttle>,
    /// Answers 503 ServiceUnavailableException.
    pub unavailable: bool,
    /// Answers this status: 503 as ServiceUnavailableException, others as InternalServerException.
    pub status_5xx: Option<u16>,
    /// Answers this exception with its own status, for example `ModelTimeoutException`.
    pub error: Option<String>,
    /// Falls silent for so long: a stream after its first tokens, other calls after the response's headers.
    pub stall_ms: Option<u64>,
    /// Drops the connection of a stream after so many events; the tokens sent until then are produced and counted.
    pub cut_stream_after_events: Option<u64>,
    /// Ends a stream after so many events with a `throttlingException` event; counted as for a cut.
    pub throttle_mid_stream: Option<u64>,
    /// The share of its calls that it strikes, between 0 and 1 and evenly spread; absent for all.
    pub share: Option<f64>,
    /// How many calls it strikes before it is gone; absent for no end.
    pub times: Option<u64>,
}

/// How many of the calls are throttled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Throttle {
    /// All or none.
    Always(bool),
    /// A share between 0 and 1.
    Share(f64),
}

/// What a fault does to one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Disturbance {
    pub refusal: Option<Refusal>,
    pub stall_ms: u64,
    pub cut_after_events: Option<u64>,
    pub throttle_after_events: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    /// No answer at all.
    Drop,
    Answer(Problem),
}

/// Every fault that may still strike.
#[derive(Debug, Default)]
pub(super) struct Faults {
    by_pool: HashMap<String, Active>,
    ordered: Vec<Active>,
}

#[derive(Debug)]
struct Active {
    fault: Fault,
    strikes_left: Option<u64>,
    throttle_due: Due,
    strike_due: Due,
}

/// Spreads a share evenly instead of drawing lots, so that a run can be repeated.
#[derive(Debug, Default)]
struct Due(f64);

impl Due {
    /// Whether the next one belongs to the share.
    fn is_now(&mut self, share: f64) -> bool {
        self.0 += share;
        let is_due = self.0 > 1.0 - 1e-9;
        if is_due {
            self.0 -= 1.0;
        }
        is_due
    }
}

/// How long `sim.stalls` is silent.
const STALL_MS: u64 = 600_000;
/// Events after which `sim.breaks` and `sim.throttles-mid-stream` fail: the opening and a few deltas.
const EVENTS_BEFORE_FAILURE: u64 = 4;

impl Faults {
    /// The faults that pools were configured with.
    pub fn new(simulator: &Simulator) -> Result<Self, String> {
        let mut faults = Self::default();
        for pool in &simulator.pools {
            let Some(fault) = &pool.fault else { continue };
            if fault.model_id.is_some() {
                return Err(format!("the fault of pool {:?} names a model id of its own", pool.model_id));
            }
            fault.check()?;
            faults.by_pool.insert(pool.model_id.clone(), Active::new(fault.clone()));
        }
        Ok(faults)
    }

    /// Adds a fault behind those that are there.
    pub fn add(&mut self, fault: Fault) -> Result<(), String> {
        fault.check()?;
        self.ordered.push(Active::new(fault));
        Ok(())
    }

    /// Forgets the faults that were added; those of pools stay.
    pub fn clear(&mut self) {
        self.ordered.clear();
    }

    /// The faults that were added and may still strike.
    pub fn added(&self) -> Vec<&Fault> {
        self.ordered.iter().map(|active| &active.fault).collect()
    }

    /// What happens to this call: by its model id, else by its pool, else by the first added fault that strikes.
    pub fn strike(&mut self, model_id: &str) -> Disturbance {
        if let Some(disturbance) = by_model_id(model_id).and_then(|fault| Active::new(fault).strike()) {
            return disturbance;
        }
        if let Some(disturbance) = self.by_pool.get_mut(model_id).and_then(Active::strike) {
            return disturbance;
        }
        let matching = self.ordered.iter_mut().filter(|active| active.concerns(model_id));
        let disturbance = matching.into_iter().find_map(Active::strike).unwrap_or_default();
        self.ordered.retain(|active| active.strikes_left != Some(0));
        disturbance
    }
}

/// The part of a `sim.` model id that names its behaviour: `breaks` in `sim.breaks` and in `sim.breaks.second`.
pub(super) fn behaviour(model_id: &str) -> Option<&str> {
    model_id.strip_prefix("sim.")?.split('.').next()
}

fn by_model_id(model_id: &str) -> Option<Fault> {
    let error = |name: &str| Fault { error: Some(name.to_owned()), ..Fault::default() };
    match behaviour(model_id)? {
        "throttled" => Some(Fault { throttle: Some(Throttle::Always(true)), ..Fault::default() }),
        "breaks" => Some(Fault { cut_stream_after_events: Some(EVENTS_BEFORE_FAILURE), ..Fault::default() }),
        "throttles-mid-stream" => Some(Fault { throttle_mid_stream: Some(EVENTS_BEFORE_FAILURE), ..Fault::default() }),
        "stalls" => Some(Fault { stall_ms: Some(STALL_MS), ..Fault::default() }),
        "errors" => Some(error("InternalServerException")),
        "timeout" => Some(error("ModelTimeoutException")),
        "refuses" => Some(error("ValidationException")),
        "denied" => Some(error("AccessDeniedException")),
        _ => None,
    }
}

impl Fault {
    fn check(&self) -> Result<(), String> {
        if let Some(Throttle::Share(share)) = self.throttle
            && !(0.0..=1.0).contains(&share)
        {
            return Err("throttle is a boolean or a share between 0 and 1".to_owned());
        }
        if self.status_5xx.is_some_and(|status| !(500..600).contains(&status)) {
            return Err("status_5xx is a status between 500 and 599".to_owned());
        }
        if self.error.as_ref().is_some_and(|name| Problem::named(name).is_none()) {
            return Err("error is not the name of an exception of Bedrock Runtime".to_owned());
        }
        if self.share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err("share is between 0 and 1".to_owned());
        }
        let effectless =
            Fault { model_id: self.model_id.clone(), share: self.share, times: self.times, ..Fault::default() };
        if *self == effectless {
            return Err("a fault needs an effect".to_owned());
        }
        Ok(())
    }

    fn refusal(&self, throttle: bool) -> Option<Refusal> {
        if self.region_down {
            return Some(Refusal::Drop);
        }
        let problem = if throttle {
            Some(Problem::throttled(TOO_MANY_TOKENS))
        } else if self.unavailable {
            Some(Problem::unavailable())
        } else if let Some(status) = self.status_5xx {
            StatusCode::from_u16(status).ok().map(Problem::internal)
        } else {
            self.error.as_deref().and_then(Problem::named)
        };
        problem.map(Refusal::Answer)
    }
}

impl Active {
    fn new(fault: Fault) -> Self {
        Self { strikes_left: fault.times, fault, throttle_due: Due::default(), strike_due: Due::default() }
    }

    fn concerns(&self, model_id: &str) -> bool {
        self.fault.model_id.as_deref().is_none_or(|concerned| concerned == model_id)
    }

    fn strike(&mut self) -> Option<Disturbance> {
        if self.strikes_left == Some(0) || !self.fault.share.is_none_or(|share| self.strike_due.is_now(share)) {
            return None;
        }
        let throttle = self.throttle_is_due();
        let disturbance = Disturbance {
            refusal: self.fault.refusal(throttle),
            stall_ms: self.fault.stall_ms.unwrap_or(0),
            cut_after_events: self.fault.cut_stream_after_events,
            throttle_after_events: self.fault.throttle_mid_stream,
        };
        if disturbance == Disturbance::default() {
            return None;
        }
        self.strikes_left = self.strikes_left.map(|left| left - 1);
        Some(disturbance)
    }

    fn throttle_is_due(&mut self) -> bool {
        match self.fault.throttle {
            None => false,
            Some(Throttle::Always(always)) => always,
            Some(Throttle::Share(share)) => self.throttle_due.is_now(share),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled(disturbance: &Disturbance) -> bool {
        matches!(&disturbance.refusal, Some(Refusal::Answer(problem)) if problem.is_throttle())
    }

    #[test]
    fn a_share_strikes_that_share_of_the_calls_evenly() {
        let mut faults = Faults::default();
        faults.add(Fault { throttle: Some(Throttle::Share(0.25)), ..Fault::default() }).unwrap();
        let struck: Vec<bool> = (0..8).map(|_| throttled(&faults.strike("any"))).collect();
        assert_eq!(struck, [false, false, false, true, false, false, false, true]);
    }

    #[test]
    fn any_effect_can_strike_a_share_of_the_calls() {
        let mut faults = Faults::default();
        let cut = Fault { cut_stream_after_events: Some(2), share: Some(0.5), ..Fault::default() };
        faults.add(cut).unwrap();
        let struck: Vec<bool> = (0..4).map(|_| faults.strike("any").cut_after_events.is_some()).collect();
        assert_eq!(struck, [false, true, false, true]);
        assert!(faults.add(Fault { share: Some(0.5), ..Fault::default() }).is_err(), "a share is no effect");
    }

    #[test]
    fn a_fault_with_a_number_of_times_goes_away() {
        let mut faults = Faults::default();
        let fault = Fault { model_id: Some("a".into()), unavailable: true, times: Some(2), ..Fault::default() };
        faults.add(fault).unwrap();
        assert_eq!(faults.strike("b"), Disturbance::default());
        assert!(faults.strike("a").refusal.is_some());
        assert!(faults.strike("a").refusal.is_some());
        assert_eq!(faults.strike("a"), Disturbance::default());
        assert!(faults.added().is_empty());
    }

    #[test]
    fn a_fault_without_effect_or_out_of_range_is_refused() {
        let mut faults = Faults::default();
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
    fn several_model_ids_can_share_a_behaviour() {
        let mut faults = Faults::default();
        assert!(throttled(&faults.strike("sim.throttled")));
        assert!(throttled(&faults.strike("sim.throttled.second")));
        assert!(!throttled(&faults.strike("sim.anything")));
    }
}
