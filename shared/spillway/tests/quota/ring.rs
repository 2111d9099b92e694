//! Model check of the ring of requests in flight: every interleaving of a few processes with
//! separate clocks on two items, while the limits change. The writes are the product's.

mod model;
mod state;

use std::{sync::Mutex, time::Instant};

use model::{Fault, RingModel};
use spillway::quota;
use stateright::{Checker, HasDiscoveries, Model};

/// Maximum clock skew, in milliseconds.
const MAX_SKEW_MS: i64 = quota::MAX_CLOCK_SKEW.as_ms() as i64;

/// Returns a model of two processes with the maximum clock skew in opposite directions, and
/// constant limits of two requests.
fn ring(fault: Option<Fault>) -> RingModel {
    RingModel {
        fault,
        skews_ms: vec![-MAX_SKEW_MS, MAX_SKEW_MS],
        limits: [2, 2],
        changes: false,
        some_are_long: true,
        moments: 3,
        writes: Mutex::default(),
    }
}

/// Explores every state.
fn check(model: RingModel) {
    let began = Instant::now();
    let checker = model.checker().spawn_bfs().join();
    println!("{} states, {} unique, {:?}", checker.state_count(), checker.unique_state_count(), began.elapsed());
    checker.assert_properties();
}

/// Returns the first property that fails, with the shortest path to the failure.
fn first_failure(model: RingModel) -> Option<(&'static str, String)> {
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let failures: Vec<_> = checker
        .model()
        .properties()
        .into_iter()
        .filter(|property| property.expectation.discovery_is_failure())
        .collect();
    let found = failures.iter().find_map(|property| checker.discovery(property.name).map(|path| (property.name, path)));
    found.map(|(name, path)| (name, format!("{:?}", path.into_actions())))
}

#[test]
fn every_property_holds_under_constant_limits() {
    check(ring(None));
}

#[test]
fn every_property_holds_under_lowered_limits() {
    check(RingModel { limits: [3, 2], changes: true, some_are_long: false, moments: 3, ..ring(None) });
}

#[test]
fn every_fault_of_the_ring_has_a_counter_example() {
    let roomy = |fault| RingModel { limits: [4, 4], ..ring(Some(fault)) };
    let changing = |fault| RingModel { changes: true, ..ring(Some(fault)) };
    for (model, broken) in [
        (ring(Some(Fault::EarlyReap)), model::LIMIT),
        (ring(Some(Fault::MarginOfOneSkew)), model::LIMIT),
        (ring(Some(Fault::UnconditionalReap)), model::COUNT),
        (roomy(Fault::DoubleSettle), model::LIMIT),
        (ring(Some(Fault::UnconditionalSettle)), model::NEGATIVE),
        (changing(Fault::NoVersion), model::STALE),
        (ring(Some(Fault::NoReap)), model::FREES),
    ] {
        let fault = model.fault;
        let (name, path) = first_failure(model).unwrap_or_else(|| panic!("{fault:?} breaks nothing"));
        assert_eq!(name, broken, "{fault:?} by {path}");
    }
}

/// Shows that the margin must be twice the maximum clock skew.
#[test]
fn a_clock_skew_above_half_the_margin_breaks_the_limit() {
    let model = RingModel { skews_ms: vec![-2 * MAX_SKEW_MS, 2 * MAX_SKEW_MS], ..ring(None) };
    let (name, path) = first_failure(model).expect("a counter-example");
    assert_eq!(name, model::LIMIT, "by {path}");
}
