//! Choice of the requests for the next write to an item, as the product's ledger makes it.

use spillway::{
    quota::{Charge, Image, Policy, Reservation, Verdict, Write, explain, free, reserve},
    units::UnixMs,
};

use super::{
    World,
    driver::{expires_ms, index},
    program::Ask,
};

/// The next write, and the requests that it admits.
#[derive(Default)]
pub(super) struct Choice {
    pub write: Write,
    pub chosen: Vec<(Ask, Policy, Reservation)>,
    pub rest: Vec<Ask>,
    pub refused: Vec<Ask>,
    pub stale: Vec<Ask>,
    /// Dead slot that the write frees.
    pub reap: Option<(u64, u64)>,
    /// The write only frees the slot. The chosen requests must be chosen again.
    pub only_frees: bool,
}

impl World {
    pub(super) fn choose(
        &self,
        process: usize,
        shard: usize,
        waiting: Vec<Ask>,
        seen: Option<&Image>,
        reap: Option<(u64, u64)>,
    ) -> Choice {
        let mut choice = Choice { reap, ..Choice::default() };
        let now_ms = self.clock(process);
        let mut predicted = seen.cloned();
        for ask in waiting {
            if shard >= index(self.plan(process).shards) {
                // The process has read newer limits, under which the shard does not exist.
                choice.refused.push(ask);
                continue;
            }
            let policy = self.policy(process, shard, ask.share_percent);
            let charge = self.sized(&policy, policy.fit(&ask.charge), seen.zip(predicted.as_ref()), now_ms);
            let expires_at = UnixMs::from_ms(expires_ms(&ask, now_ms));
            let reservation = Reservation::new(&policy, charge, UnixMs::from_ms(now_ms), expires_at);
            let mut write = self.reserve_write(&policy, &reservation, choice.reap);
            let is_first = choice.chosen.is_empty();
            if let (Some(image), Some(predicted)) = (seen, &predicted)
                && !predicted.admits(&write)
            {
                match self.judged(&policy, &reservation.charge, image, now_ms) {
                    Verdict::Refused(_) => {
                        choice.refused.push(ask);
                        continue;
                    }
                    Verdict::Stale => {
                        choice.stale.push(ask);
                        continue;
                    }
                    Verdict::Reap(slot, count) if is_first => {
                        choice.reap = Some((slot, count));
                        write = self.reserve_write(&policy, &reservation, choice.reap);
                        choice.only_frees = !image.admits(&write);
                        if choice.only_frees {
                            write = self.free_write(slot, count);
                        }
                    }
                    Verdict::Retry if is_first => {}
                    Verdict::Reap(..) | Verdict::InFull | Verdict::Retry => {
                        choice.rest.push(ask);
                        continue;
                    }
                }
            }
            if is_first {
                choice.write = write.clone();
            } else if !self.joins(&mut choice, &policy, &write) {
                choice.rest.push(ask);
                continue;
            }
            if let Some(predicted) = &mut predicted {
                predicted.apply(&write);
            }
            choice.chosen.push((ask, policy, reservation));
        }
        choice
    }

    /// Returns `charge`, in full if its unreserved tokens do not fit their bound.
    fn sized(&self, policy: &Policy, charge: Charge, images: Option<(&Image, &Image)>, now_ms: u64) -> Charge {
        let Some((seen, predicted)) = images else { return charge };
        let judged = |image| self.judged(policy, &charge, image, now_ms);
        let is_beyond = match judged(seen) {
            Verdict::Retry => judged(predicted) == Verdict::InFull,
            verdict => verdict == Verdict::InFull,
        };
        if is_beyond { policy.fit(&charge.in_full()) } else { charge }
    }

    fn joins(&self, choice: &mut Choice, policy: &Policy, write: &Write) -> bool {
        let is_alike = choice.chosen.first().is_some_and(|(_, first, _)| first == policy);
        if !is_alike || choice.reap.is_some() {
            return false;
        }
        let both = choice.write.then(write);
        let both = match self.mutant {
            Some(mutant) => mutant.spoil_composed(both, &choice.write, write),
            None => both,
        };
        let can = both.is_some();
        choice.write = both.unwrap_or_else(|| std::mem::take(&mut choice.write));
        can
    }

    fn policy(&self, process: usize, shard: usize, share_percent: u64) -> Policy {
        let plan = self.plan(process);
        let whole = plan.policy(self.known[process], share_percent);
        let policy = whole.slice(shard as u64, plan.shards);
        self.mutant.map_or(policy, |mutant| mutant.spoil_policy(policy, &whole))
    }

    fn reserve_write(&self, policy: &Policy, reservation: &Reservation, reap: Option<(u64, u64)>) -> Write {
        let write = reserve(policy, reservation, reap);
        match self.mutant {
            Some(mutant) => mutant.spoil_reserve(write, policy, reservation),
            None => write,
        }
    }

    fn free_write(&self, slot: u64, count: u64) -> Write {
        let write = free(slot, count);
        self.mutant.map_or(write.clone(), |mutant| mutant.spoil_free(write))
    }

    fn judged(&self, policy: &Policy, charge: &Charge, image: &Image, now_ms: u64) -> Verdict {
        let verdict = explain(policy, charge, image, UnixMs::from_ms(now_ms));
        match self.mutant {
            Some(mutant) => mutant.spoil_verdict(verdict, image, now_ms),
            None => verdict,
        }
    }
}
