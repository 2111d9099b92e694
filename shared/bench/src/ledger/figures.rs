//! Figures of the tables and of the goals.

use super::{
    load::{KINDS, Kind},
    simulation::Outcome,
};

impl Outcome {
    /// Writes per admitted request, without refused writes.
    pub fn writes_without_refusals(&self) -> f64 {
        ratio(self.tally.writes - self.tally.refusing_writes, self.admitted())
    }

    /// Writes per admitted request.
    pub fn writes_per_admitted(&self) -> f64 {
        ratio(self.tally.writes, self.admitted())
    }

    /// Writes repeated because of contention, per request.
    pub fn retries_per_offered(&self) -> f64 {
        ratio(self.tally.contended, self.offered())
    }

    /// `count` per second.
    pub fn per_s(&self, count: u64) -> f64 {
        count as f64 / self.measured_s
    }

    /// Number of requests.
    pub fn offered(&self) -> u64 {
        self.tally.offered.iter().sum()
    }

    /// Number of admitted requests.
    pub fn admitted(&self) -> u64 {
        self.tally.admitted.iter().sum()
    }

    /// Number of requests that their tenant's limits refused.
    pub fn refused(&self) -> u64 {
        self.tally.refused.iter().sum()
    }

    /// Share of refusals that cost no write.
    pub fn remembered_share(&self) -> f64 {
        ratio(self.tally.from_memory, self.refused())
    }

    /// Quantile of the admission time of admitted requests, in milliseconds.
    pub fn admit_ms(&self, quantile: f64) -> f64 {
        self.tally.admit_us.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Share of a kind's requests that found no pool.
    pub fn overflowed_share(&self, kind: Kind) -> f64 {
        self.share(&self.tally.overflowed, kind)
    }

    /// Share of a kind's requests that were admitted.
    pub fn admitted_share(&self, kind: Kind) -> f64 {
        self.share(&self.tally.admitted, kind)
    }

    /// Share of the sparse and medium tenants' requests that found no pool during the warm-up,
    /// while the hot tenant had little recorded use and so was within its share.
    pub fn overflowed_at_first_share(&self) -> f64 {
        let count = |counts: &[u64; KINDS]| counts[Kind::Sparse as usize] + counts[Kind::Medium as usize];
        ratio(count(&self.warm_up.overflowed), count(&self.warm_up.offered))
    }

    fn share(&self, counts: &[u64; KINDS], kind: Kind) -> f64 {
        ratio(counts[kind as usize], self.tally.offered[kind as usize])
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
