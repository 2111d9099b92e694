//! Scenarios: the load, the fleet and the encoding of the counters.

use spillway::pool::Model;

use super::{encoding::Encoding, fleet::Fleet, load::Caller};

/// A scenario, which becomes a column of a table.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Header of its column.
    pub name: &'static str,
    /// Tenants that send requests.
    pub callers: Vec<Caller>,
    /// Model whose pools are reserved; `None` for no pools.
    pub model: Option<Model>,
    /// Processes that serve requests.
    pub fleet: Fleet,
    /// Encoding of the rate limits.
    pub encoding: Encoding,
    /// Whether refusals are remembered.
    pub remembers_refusals: bool,
    /// Whether requests that wait in a process for the same item share a write.
    pub batches: bool,
    /// Number of items of the hot tenant; `None` for the product's number.
    pub hot_shards: Option<u64>,
    /// Length in virtual seconds. The first third is not measured.
    pub seconds: u64,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Scenario {
    /// Creates a scenario of the product with one request per instance and without pools.
    pub fn new(name: &'static str, callers: Vec<Caller>, seconds: u64, seed: u64) -> Self {
        Self {
            name,
            callers,
            model: None,
            fleet: Fleet::NewestInstance,
            encoding: Encoding::Staircase,
            remembers_refusals: true,
            batches: true,
            hot_shards: None,
            seconds,
            seed,
        }
    }

    /// Start of the measurement, in microseconds.
    pub fn warm_us(&self) -> u64 {
        self.seconds * 1_000_000 / 3
    }

    /// End of the scenario, in microseconds.
    pub fn end_us(&self) -> u64 {
        self.seconds * 1_000_000
    }
}
