//! One item in memory, for one caller.

use proptest::prelude::*;
use spillway::quota::{
    Burst, Charge, EPOCH_MS, Image, Limit, Limits, Policy, Reservation, Settled, Verdict, explain, free, reserve,
    settle, settle_reaped,
};

use crate::world::START_MS;

/// Limits of which `burst_epochs` epochs' worth may come at once.
pub fn policy(limits: Limits, burst_epochs: u64) -> Policy {
    let burst_s = burst_epochs * EPOCH_MS / 1_000;
    let burst = Burst { requests_s: burst_s, tokens_s: burst_s, is_strict: false };
    Policy { limits, version: 1, burst, share_percent: 100 }
}

/// One request that costs as much of everything.
pub fn charge(tokens: u64) -> Charge {
    Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, cost_microusd: tokens }
}

/// One item in memory, driven as `store::ledger` drives the real one.
pub struct Item {
    pub policy: Policy,
    pub image: Image,
    pub now_ms: u64,
}

pub enum Answer {
    Admitted(Reservation),
    Refused(Vec<(Limit, u64)>, u64),
}

impl Item {
    pub fn new(policy: Policy) -> Self {
        Self { policy, image: Image::default(), now_ms: START_MS }
    }

    pub fn reserve(&mut self, charge: Charge, lives_ms: u64) -> Answer {
        let mut reap = None;
        for _ in 0..100 {
            let mut reservation = Reservation::new(charge, self.now_ms, self.now_ms + lives_ms);
            let before = self.image.clone();
            if self.image.apply(&reserve(&self.policy, &reservation, reap)) {
                reservation.note_stale(&self.image);
                return Answer::Admitted(reservation);
            }
            assert_eq!(self.image, before, "a refusal changes nothing");
            match explain(&self.policy, &charge, &self.image, self.now_ms) {
                Verdict::Refused(refusal) => {
                    let limits = refusal.limits.iter().map(|refused| (refused.limit, refused.cap)).collect();
                    return Answer::Refused(limits, refusal.retry_after_ms());
                }
                Verdict::Reap(slot, count) => reap = self.free_unless_enough(charge, slot, count),
                verdict => panic!("{verdict:?} with no one else writing"),
            }
        }
        panic!("reaping did not end");
    }

    /// The slot to free along with a reservation of `charge`, where that makes room; else frees it at once.
    fn free_unless_enough(&mut self, charge: Charge, slot: u64, count: u64) -> Option<(u64, u64)> {
        let reservation = Reservation::new(charge, self.now_ms, self.now_ms);
        if self.image.admits(&reserve(&self.policy, &reservation, Some((slot, count)))) {
            return Some((slot, count));
        }
        assert!(self.image.apply(&free(slot, count)), "nobody else writes");
        None
    }

    pub fn admit(&mut self, tokens: u64) -> Reservation {
        match self.reserve(charge(tokens), 60_000) {
            Answer::Admitted(reservation) => reservation,
            Answer::Refused(limits, wait_ms) => panic!("refused by {limits:?} for {wait_ms} ms"),
        }
    }

    pub fn settle(&mut self, reservation: &Reservation, actual: Charge) -> bool {
        let settled = Settled { charge: actual, ..Settled::default() };
        self.image.apply(&settle(reservation, &settled, self.now_ms)) || {
            reservation.is_dead(self.now_ms) && self.image.apply(&settle_reaped(reservation, &settled, self.now_ms))
        }
    }
}

/// Charges of one request, of less than `most` each.
pub fn charges(most: u64) -> impl Strategy<Value = Charge> {
    (0..most, 0..most, 0..most).prop_map(|(minute_tokens, day_tokens, cost_microusd)| Charge {
        requests: 1,
        minute_tokens,
        day_tokens,
        cost_microusd,
    })
}
