//! A small world in memory: three processes with clocks of their own, an account over up to four items, an operator who
//! changes its limits, and a list of what was charged to judge the items by.
//!
//! The writes are the product's own (`quota::reserve`, `settle`, `settle_reaped`, `Write::then`); the driver does with them
//! what `store::ledger` does. A [`Mutant`] spoils one of the two, to show that the judge would notice.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of it")]

mod choice;
mod driver;
mod invariant;
mod judge;
mod mutant;
mod program;

use spillway::quota::{EPOCH_MS, EPOCHS};

pub use driver::{Traced, World};
pub use invariant::Invariant;
pub use judge::cap;
pub use mutant::Mutant;
pub use program::{Plan, Program, START_MS, plan, program};

/// The minute of "per minute".
pub const MINUTE_MS: u64 = EPOCHS * EPOCH_MS;

/// Runs `program` to its end.
pub fn run(program: &Program, mutant: Option<Mutant>) -> World {
    let mut world = World::new(program, mutant);
    for step in &program.steps {
        world.take(step);
    }
    world
}
