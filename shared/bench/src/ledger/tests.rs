//! The goals that mean something at a tenth of the load and in a debug build.

use super::*;

/// Of which 20 are measured: whole epochs.
const SECONDS: u64 = 30;

/// A tenth of the load. Its tenants may not burst, so that their limits are felt within the time there is.
fn small(name: &'static str) -> Scenario {
    let mut callers = load::many_tenants(10);
    for caller in &mut callers {
        caller.tenant.burst.requests_s = Some(0);
        caller.tenant.burst.tokens_s = Some(0);
    }
    Scenario::new(name, callers, SECONDS, 1)
}

#[test]
fn admission_costs_two_writes_and_never_loses_a_race() {
    let outcome = simulation::run(small("staircase"));
    assert!(outcome.admitted() > 1_500, "{outcome:?}");
    assert!(outcome.refused() > 500, "{outcome:?}");
    for goal in goals::of_tenants(&outcome) {
        assert!(goal.is_met(), "{}", goal.line());
    }
}

#[test]
fn a_tenant_above_its_share_leaves_the_pools_to_those_within() {
    let outcome = simulation::run(Scenario { model: Some(load::two_pools(10, 90)), ..small("pools") });
    assert!(outcome.overflowed_share(Kind::Hot) > 0.1, "{outcome:?}");
    for goal in goals::of_pools(&outcome) {
        assert!(goal.is_met(), "{}", goal.line());
    }
}

#[test]
fn the_measure_sees_the_retries_of_compare_and_swap() {
    let outcome = simulation::run(Scenario { encoding: Encoding::CompareAndSwap, ..small("swap") });
    assert!(outcome.retries_per_offered() > 0.1, "{outcome:?}");
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let figures = || format!("{:?}", simulation::run(Scenario { seconds: 5, ..small("twice") }));
    assert_eq!(figures(), figures());
}
