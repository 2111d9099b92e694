//! The staircase algorithm compared with a plain list of charges, in memory.

#[path = "../support/world/mod.rs"]
mod world;

mod carry_over;
mod composed;
mod examples;
mod item;
mod mutants;
mod programs;
mod remembered;
mod right_sizing;
mod ring;
mod slices;
mod waiting;

use proptest::test_runner::{Config, RngAlgorithm};

/// Returns a configuration with this number of cases. The faster generator is random enough: the
/// default one takes half of the time in a debug build.
fn cases(cases: u32) -> Config {
    Config { cases, rng_algorithm: RngAlgorithm::XorShift, ..Config::default() }
}
