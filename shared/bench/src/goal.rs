//! Goals of the simulations.

/// A goal and its measured figure.
#[derive(Debug)]
pub struct Goal {
    name: &'static str,
    measured: f64,
    limit: f64,
    is_minimum: bool,
}

impl Goal {
    /// A figure that must be at most `limit`.
    pub fn at_most(name: &'static str, measured: f64, limit: f64) -> Self {
        Self { name, measured, limit, is_minimum: false }
    }

    /// A figure that must be at least `limit`.
    pub fn at_least(name: &'static str, measured: f64, limit: f64) -> Self {
        Self { name, measured, limit, is_minimum: true }
    }

    /// Whether the goal is met.
    pub fn is_met(&self) -> bool {
        if self.is_minimum { self.measured >= self.limit } else { self.measured <= self.limit }
    }

    /// Returns a line with the figure, the limit and the verdict.
    pub fn line(&self) -> String {
        let Self { name, measured, limit, is_minimum } = self;
        let (sign, verdict) = (if *is_minimum { "≥" } else { "≤" }, if self.is_met() { "ok" } else { "missed" });
        format!("{name:<66} {measured:>8.4}  {sign} {limit:<7} {verdict}")
    }
}

/// Prints `goals`.
///
/// # Errors
/// Returns an error if one of them is missed.
pub fn check(goals: &[Goal]) -> anyhow::Result<()> {
    goals.iter().for_each(|goal| println!("{}", goal.line()));
    let missed = goals.iter().filter(|goal| !goal.is_met()).count();
    anyhow::ensure!(missed == 0, "{missed} of {} goals missed", goals.len());
    Ok(())
}
