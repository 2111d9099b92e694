//! Counts of a running scenario.

use hdrhistogram::Histogram;
use spillway::quota::Verdict;

use super::{item::WriteResult, load::KINDS};

/// Counts of a span of time. Arrays are indexed by [`Kind`](super::load::Kind).
#[derive(Debug)]
pub struct Tally {
    /// Requests.
    pub offered: [u64; KINDS],
    /// Admitted requests. With pools, a pool has admitted them too.
    pub admitted: [u64; KINDS],
    /// Requests that their tenant's limits refused.
    pub refused: [u64; KINDS],
    /// Requests that found no pool.
    pub overflowed: [u64; KINDS],
    /// Requests refused because their tenant's items were too busy.
    pub busy: u64,
    /// Refusals that cost no write.
    pub from_memory: u64,
    /// Billed writes: successful or refused, but not throttled.
    pub writes: u64,
    /// Writes that a full limit refused.
    pub refusing_writes: u64,
    /// Writes that failed although the limits had room: a wrong prediction, a lost race, a
    /// conflict.
    pub contended: u64,
    /// Writes repeated because a new epoch had begun meanwhile.
    pub epoch_retries: u64,
    /// Writes that failed because of a slot of a dead request, which the next write frees, or
    /// because of a slot that another write had just freed.
    pub reaping: u64,
    /// Writes that the bound on unreserved tokens refused. The next write reserves in full.
    pub in_full: u64,
    /// Throttled writes.
    pub throttled: u64,
    /// Reads.
    pub reads: u64,
    /// Settlements given up because the item stayed busy.
    pub unsettled: u64,
    /// Settlements that found no slot.
    pub without_slot: u64,
    /// Time from arrival to admission, in microseconds.
    pub admit_us: Histogram<u64>,
    /// Time for which each dead request held its slot, in microseconds.
    pub held_us: Vec<u64>,
    /// Sum of the times for which dead requests held slots, in microseconds.
    pub dead_slot_us: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            offered: [0; KINDS],
            admitted: [0; KINDS],
            refused: [0; KINDS],
            overflowed: [0; KINDS],
            busy: 0,
            from_memory: 0,
            writes: 0,
            refusing_writes: 0,
            contended: 0,
            epoch_retries: 0,
            reaping: 0,
            in_full: 0,
            throttled: 0,
            reads: 0,
            unsettled: 0,
            without_slot: 0,
            admit_us: Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("valid bounds"),
            held_us: Vec::new(),
            dead_slot_us: 0,
        }
    }
}

impl Tally {
    /// Counts a write. `verdict` explains a refused write.
    pub fn write(&mut self, result: WriteResult, verdict: Option<&Verdict>, is_reap: bool) {
        match result {
            WriteResult::Throttled => self.throttled += 1,
            WriteResult::Done | WriteResult::Refused => self.writes += 1,
        }
        match verdict {
            Some(Verdict::Refused(_)) => self.refusing_writes += 1,
            Some(Verdict::Reap(..)) => self.reaping += 1,
            Some(Verdict::InFull) => self.in_full += 1,
            Some(Verdict::Retry) if is_reap => self.reaping += 1,
            Some(Verdict::Retry | Verdict::Stale) => self.contended += 1,
            None => {}
        }
    }
}
