//! Goals of the simulation.

use super::{load::Kind, simulation::Outcome};
use crate::goal::Goal;

/// Goals for the product without pools.
pub fn for_tenants(product: &Outcome) -> Vec<Goal> {
    vec![
        Goal::at_most("writes per admitted request, without refusals", product.writes_without_refusals(), 2.05),
        Goal::at_most("writes per admitted request, with refusals", product.writes_per_admitted(), 2.35),
        Goal::at_most("retries from contention", product.tally.contended as f64, 0.0),
        Goal::at_most("settlements without a slot, or given up", lost_settlements(product), 0.0),
        Goal::at_least("use of the hot tenant's limit", product.hot.utilisation, 0.995),
        Goal::at_most("worst true minute of any tenant / (limit + cap(1))", product.worst_of_bound, 1.0),
    ]
}

/// Goals for the product with pools, where tenants above their committed share leave room.
pub fn for_pools(product: &Outcome) -> Vec<Goal> {
    let overflowed = |kind| product.tally.overflowed[kind as usize] as f64;
    vec![
        Goal::at_most("with pools: sparse tenants' requests without a pool", overflowed(Kind::Sparse), 0.0),
        Goal::at_most("with pools: medium tenants' requests without a pool", overflowed(Kind::Medium), 0.0),
        Goal::at_most("with pools: retries from contention", product.tally.contended as f64, 0.0),
        Goal::at_most("with pools: worst true minute / its bound", product.worst_of_bound, 1.0),
    ]
}

/// Goals for right-sizing: an `ordinary` tenant beside one without right-sizing (`off`), and an
/// `adversary`.
pub fn for_right_sizing(off: &Outcome, ordinary: &Outcome, adversary: &Outcome) -> Vec<Goal> {
    let gained = ordinary.admitted() as f64 / off.admitted() as f64;
    vec![
        Goal::at_least("right-sizing: requests that it admits / without it", gained, 1.5),
        Goal::at_most("right-sizing: worst window of an adversary / limit", adversary.token_limited.worst_window, 2.0),
    ]
}

fn lost_settlements(outcome: &Outcome) -> f64 {
    (outcome.tally.unsettled + outcome.tally.without_slot) as f64
}
