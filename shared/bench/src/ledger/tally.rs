//! What is counted while a scenario runs.

use hdrhistogram::Histogram;
use spillway::quota::Verdict;

use super::{item::Landed, load::KINDS};

/// Counts of one span of time. Arrays are by [`Kind`](super::load::Kind).
#[derive(Debug)]
pub struct Tally {
    /// Requests that came.
    pub offered: [u64; KINDS],
    /// Those that were admitted, by their pool as well if there are any.
    pub admitted: [u64; KINDS],
    /// Those that their tenant's limits refused.
    pub refused: [u64; KINDS],
    /// Those that found no pool.
    pub overflowed: [u64; KINDS],
    /// Those whose tenant's items were too busy.
    pub busy: u64,
    /// Refusals that cost no write.
    pub from_memory: u64,
    /// Writes that were billed: done or refused, not throttled.
    pub writes: u64,
    /// Writes that found no room.
    pub refusing_writes: u64,
    /// Writes that failed although there was room: a wrong guess, a lost race, a conflict.
    pub contended: u64,
    /// Writes that were tried again because a new epoch had begun meanwhile.
    pub turned: u64,
    /// Writes that failed on a slot that is dead, so that the next one frees it, or on one that another had just freed.
    pub reaping: u64,
    /// Writes that were throttled.
    pub throttled: u64,
    /// Reads.
    pub reads: u64,
    /// Settlements that were given up because the item stayed busy.
    pub unsettled: u64,
    /// Settlements that found no slot.
    pub slotless: u64,
    /// From arrival to admission, in microseconds.
    pub admit_us: Histogram<u64>,
    /// How long each dead request held its slot, in microseconds.
    pub held_us: Vec<u64>,
    /// The slots that dead requests held, times how long, in microseconds.
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
            turned: 0,
            reaping: 0,
            throttled: 0,
            reads: 0,
            unsettled: 0,
            slotless: 0,
            admit_us: Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds that make sense"),
            held_us: Vec::new(),
            dead_slot_us: 0,
        }
    }
}

impl Tally {
    /// A write landed; if it was refused, `verdict` says why.
    pub fn write(&mut self, landed: Landed, verdict: Option<&Verdict>, is_reap: bool) {
        match landed {
            Landed::Throttled => self.throttled += 1,
            Landed::Done | Landed::Refused => self.writes += 1,
        }
        match verdict {
            Some(Verdict::Refused(_)) => self.refusing_writes += 1,
            Some(Verdict::Reap(..)) => self.reaping += 1,
            Some(Verdict::Retry) if is_reap => self.reaping += 1,
            Some(Verdict::Retry | Verdict::Stale) => self.contended += 1,
            None => {}
        }
    }
}
