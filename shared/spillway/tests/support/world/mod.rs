//! A small world in memory: three processes with separate clocks, an account of up to four items,
//! an operator that changes its limits, and a list of all charges to judge the items by.
//!
//! The writes are the product's (`quota::reserve`, `settle`, `settle_reaped`, `Write::then`). The
//! driver uses them as `store::ledger` does. A [`Mutant`] corrupts the writes or the driver, to
//! show that the judge detects it.
//!
//! Times are plain milliseconds here, because clock skews are signed.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod choice;
mod driver;
mod invariant;
mod judge;
mod mutant;
mod program;

use spillway::quota::{EPOCH, EPOCHS};

pub use driver::{Traced, World};
pub use invariant::Invariant;
pub use judge::{cap, carry_cap};
pub use mutant::Mutant;
pub use program::{Plan, Program, START_MS, plan, program};

/// Length of an epoch in milliseconds.
pub const EPOCH_MS: u64 = EPOCH.as_ms();

/// The minute of "per minute" in milliseconds.
pub const MINUTE_MS: u64 = EPOCHS * EPOCH_MS;

/// Runs `program` to the end.
pub fn run(program: &Program, mutant: Option<Mutant>) -> World {
    let mut world = World::new(program, mutant);
    for step in &program.steps {
        world.take(step);
    }
    world
}
