//! What must hold.

use super::{load::Kind, simulation::Outcome};

/// One goal and what was measured.
#[derive(Debug)]
pub struct Goal {
    name: &'static str,
    measured: f64,
    limit: f64,
    is_least: bool,
}

impl Goal {
    fn at_most(name: &'static str, measured: f64, limit: f64) -> Self {
        Self { name, measured, limit, is_least: false }
    }

    fn at_least(name: &'static str, measured: f64, limit: f64) -> Self {
        Self { name, measured, limit, is_least: true }
    }

    /// Whether it is met.
    pub fn is_met(&self) -> bool {
        if self.is_least { self.measured >= self.limit } else { self.measured <= self.limit }
    }

    /// One line that says so.
    pub fn line(&self) -> String {
        let Self { name, measured, limit, is_least } = self;
        let (sign, verdict) = (if *is_least { "≥" } else { "≤" }, if self.is_met() { "ok" } else { "missed" });
        format!("{name:<66} {measured:>8.4}  {sign} {limit:<7} {verdict}")
    }
}

/// The goals of the product without pools.
pub fn of_tenants(shipped: &Outcome) -> Vec<Goal> {
    vec![
        Goal::at_most("writes per admitted request, beside refusals", shipped.writes_beside_refusals(), 2.05),
        Goal::at_most("writes per admitted request, with refusals", shipped.writes_per_admitted(), 2.35),
        Goal::at_most("retries from contention", shipped.tally.contended as f64, 0.0),
        Goal::at_most("settlements that found no slot or no room", lost_settlements(shipped), 0.0),
        Goal::at_least("use of the hot tenant's limit", shipped.hot.utilisation, 0.995),
        Goal::at_most("worst true minute of any tenant, of limit + cap(1)", shipped.worst_of_bound, 1.0),
    ]
}

/// The goals of the product with pools, where those above their share leave room.
pub fn of_pools(shipped: &Outcome) -> Vec<Goal> {
    let overflowed = |kind| shipped.tally.overflowed[kind as usize] as f64;
    vec![
        Goal::at_most("with pools: sparse tenants' requests without a pool", overflowed(Kind::Sparse), 0.0),
        Goal::at_most("with pools: medium tenants' requests without a pool", overflowed(Kind::Medium), 0.0),
        Goal::at_most("with pools: retries from contention", shipped.tally.contended as f64, 0.0),
        Goal::at_most("with pools: worst true minute, of limit + cap(1)", shipped.worst_of_bound, 1.0),
    ]
}

fn lost_settlements(outcome: &Outcome) -> f64 {
    (outcome.tally.unsettled + outcome.tally.slotless) as f64
}
