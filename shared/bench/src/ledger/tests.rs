//! Goals at a tenth of the load, in a debug build.

use super::*;

/// 20 of these seconds are measured: a whole number of epochs.
const SECONDS: u64 = 30;

/// Returns a scenario with a tenth of the load. Its tenants cannot burst, so that they reach their
/// limits in the short time.
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
    for goal in goals::for_tenants(&outcome) {
        assert!(goal.is_met(), "{}", goal.line());
    }
}

#[test]
fn a_tenant_above_its_share_leaves_the_pools_to_tenants_within_their_share() {
    let outcome = simulation::run(Scenario { model: Some(load::two_pools(10, 90)), ..small("pools") });
    assert!(outcome.overflowed_share(Kind::Hot) > 0.1, "{outcome:?}");
    for goal in goals::for_pools(&outcome) {
        assert!(goal.is_met(), "{}", goal.line());
    }
}

#[test]
fn right_sizing_admits_more_and_an_adversary_uses_at_most_twice_its_limit() {
    let args = Args { seed: 1, seconds: 180 };
    let outcomes: Vec<Outcome> = right_sizing(&args).into_iter().map(simulation::run).collect();
    println!("{}", right_sizing_table(&outcomes));
    let [off, _, ordinary, unbounded, adversary] = &outcomes[..] else { panic!("five scenarios") };
    for goal in goals::for_right_sizing(off, ordinary, adversary) {
        assert!(goal.is_met(), "{}", goal.line());
    }
    assert!(unbounded.token_limited.worst_window > 5.0, "the bound makes the difference: {unbounded:?}");
}

#[test]
fn the_simulation_shows_the_retries_of_compare_and_swap() {
    let outcome = simulation::run(Scenario { encoding: Encoding::CompareAndSwap, ..small("swap") });
    assert!(outcome.retries_per_offered() > 0.1, "{outcome:?}");
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let figures = || format!("{:?}", simulation::run(Scenario { seconds: 5, ..small("repeated") }));
    assert_eq!(figures(), figures());
}
