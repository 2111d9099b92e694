//! The ring of requests in flight, model-checked: every interleaving of a few processes with clocks of their own, over two
//! items, while the limits change. The writes are the product's own.

mod model;
mod state;

use std::{sync::Mutex, time::Instant};

use model::{Fault, RingModel};
use spillway::quota;
use stateright::{Checker, HasDiscoveries, Model};

/// As far as clocks may be off.
const MOST_SKEW_MS: i64 = quota::MOST_SKEW_MS as i64;

/// Two processes whose clocks are as far apart as they may be, and two slots' worth of limits that stay as they are.
fn ring(fault: Option<Fault>) -> RingModel {
    RingModel {
        fault,
        skews_ms: vec![-MOST_SKEW_MS, MOST_SKEW_MS],
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

/// The shortest way to break something, with what breaks.
fn first_failure(model: RingModel) -> Option<(&'static str, String)> {
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let failures: Vec<_> =
        checker.model().properties().into_iter().filter(|one| one.expectation.discovery_is_failure()).collect();
    let found = failures.iter().find_map(|one| checker.discovery(one.name).map(|path| (one.name, path)));
    found.map(|(name, path)| (name, format!("{:?}", path.into_actions())))
}

#[test]
fn under_limits_that_stay_every_promise_is_kept() {
    check(ring(None));
}

#[test]
fn under_limits_that_are_lowered_every_promise_is_kept() {
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

/// Why the margin must be twice as long as clocks may be off.
#[test]
fn clocks_that_are_further_off_than_half_the_margin_break_the_limit() {
    let model = RingModel { skews_ms: vec![-2 * MOST_SKEW_MS, 2 * MOST_SKEW_MS], ..ring(None) };
    let (name, path) = first_failure(model).expect("a counter-example");
    assert_eq!(name, model::LIMIT, "by {path}");
}
