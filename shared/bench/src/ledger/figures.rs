//! The figures that are printed and that the goals are about.

use super::{
    load::{KINDS, Kind},
    simulation::Outcome,
};

impl Outcome {
    /// Writes for each admitted request, without those that found no room.
    pub fn writes_beside_refusals(&self) -> f64 {
        ratio(self.tally.writes - self.tally.refusing_writes, self.admitted())
    }

    /// Writes for each admitted request.
    pub fn writes_per_admitted(&self) -> f64 {
        ratio(self.tally.writes, self.admitted())
    }

    /// Writes that were tried again because of others, for each request that came.
    pub fn retries_per_offered(&self) -> f64 {
        ratio(self.tally.contended, self.offered())
    }

    /// `count` for each second.
    pub fn per_s(&self, count: u64) -> f64 {
        count as f64 / self.measured_s
    }

    /// Requests that came.
    pub fn offered(&self) -> u64 {
        self.tally.offered.iter().sum()
    }

    /// Requests that were admitted.
    pub fn admitted(&self) -> u64 {
        self.tally.admitted.iter().sum()
    }

    /// Requests that their tenant's limits refused.
    pub fn refused(&self) -> u64 {
        self.tally.refused.iter().sum()
    }

    /// The part of all refusals that cost no write.
    pub fn remembered_share(&self) -> f64 {
        ratio(self.tally.from_memory, self.refused())
    }

    /// How long admission took that `quantile` of the admitted did not exceed, in milliseconds.
    pub fn admit_ms(&self, quantile: f64) -> f64 {
        self.tally.admit_us.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The part of a kind's requests that found no pool.
    pub fn overflowed_share(&self, kind: Kind) -> f64 {
        self.share(&self.tally.overflowed, kind)
    }

    /// The part of a kind's requests that were admitted.
    pub fn admitted_share(&self, kind: Kind) -> f64 {
        self.share(&self.tally.admitted, kind)
    }

    /// The part of the sparse and medium tenants' requests that found no pool before measuring began: while the hot tenant,
    /// which had used nothing, was within its share.
    pub fn overflowed_at_first_share(&self) -> f64 {
        let of_both = |counts: &[u64; KINDS]| counts[Kind::Sparse as usize] + counts[Kind::Medium as usize];
        ratio(of_both(&self.warm_up.overflowed), of_both(&self.warm_up.offered))
    }

    fn share(&self, counts: &[u64; KINDS], kind: Kind) -> f64 {
        ratio(counts[kind as usize], self.tally.offered[kind as usize])
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
