//! What is simulated: who calls, who serves, and how the counters are written.

use spillway::pool::Model;

use super::{encoding::Encoding, fleet::Fleet, load::Caller};

/// One scenario; each becomes one column of a table.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The head of its column.
    pub name: &'static str,
    /// Who calls.
    pub callers: Vec<Caller>,
    /// Whose pools answer; without one there are no pools to reserve on.
    pub model: Option<Model>,
    /// Who serves.
    pub fleet: Fleet,
    /// How rate limits are counted.
    pub encoding: Encoding,
    /// Whether refusals are remembered.
    pub remembers_denials: bool,
    /// Whether those that wait in one process for one item share a write.
    pub batches: bool,
    /// Over how many items the hot tenant is spread, where not over as many as the product says.
    pub hot_shards: Option<u64>,
    /// How long it lasts, in virtual seconds. The first third is not measured.
    pub seconds: u64,
    /// What chance begins with.
    pub seed: u64,
}

impl Scenario {
    /// The product as it is shipped, on one request per instance and without pools.
    pub fn new(name: &'static str, callers: Vec<Caller>, seconds: u64, seed: u64) -> Self {
        Self {
            name,
            callers,
            model: None,
            fleet: Fleet::NewestInstance,
            encoding: Encoding::Staircase,
            remembers_denials: true,
            batches: true,
            hot_shards: None,
            seconds,
            seed,
        }
    }

    /// When measuring begins, in microseconds.
    pub fn warm_us(&self) -> u64 {
        self.seconds * 1_000_000 / 3
    }

    /// When it ends, in microseconds.
    pub fn end_us(&self) -> u64 {
        self.seconds * 1_000_000
    }
}
