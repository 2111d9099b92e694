//! An item in memory, for one caller.

use proptest::prelude::*;
use spillway::{
    quota::{
        Burst, Charge, EPOCH, Image, Limit, Limits, Policy, Reservation, Settled, Verdict, explain, free, reserve,
        settle, settle_reaped,
    },
    units::{Millis, UnixMs},
};

use crate::world::START_MS;

/// Returns a policy with a burst of `burst_epochs` epochs.
pub fn policy(limits: Limits, burst_epochs: u64) -> Policy {
    let burst_s = (EPOCH * burst_epochs).as_ms() / 1_000;
    let burst = Burst { requests_s: burst_s, tokens_s: burst_s, is_strict: false, carries_over: false };
    Policy { limits, version: 1, burst, share_percent: 100 }
}

/// Returns the charge of one request that costs the same amount of tokens and money.
pub fn charge(tokens: u64) -> Charge {
    Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, cost_microusd: tokens, ..Charge::ZERO }
}

/// An item in memory, driven as `store::ledger` drives an item in DynamoDB.
pub struct Item {
    pub policy: Policy,
    pub image: Image,
    pub now: UnixMs,
}

pub enum Answer {
    Admitted(Reservation),
    /// The limits, and the time until the request fits.
    Refused(Vec<(Limit, u64)>, Millis),
}

impl Item {
    pub fn new(policy: Policy) -> Self {
        Self { policy, image: Image::default(), now: UnixMs::from_ms(START_MS) }
    }

    pub fn reserve(&mut self, charge: Charge, lives_ms: u64) -> Answer {
        let (mut charge, mut reap) = (self.policy.fit(&charge), None);
        for _ in 0..100 {
            let mut reservation =
                Reservation::new(&self.policy, charge, self.now, self.now + Millis::from_ms(lives_ms));
            let before = self.image.clone();
            if self.image.apply(&reserve(&self.policy, &reservation, reap)) {
                reservation.note_stale(&self.image);
                return Answer::Admitted(reservation);
            }
            assert_eq!(self.image, before, "a refusal changes nothing");
            match explain(&self.policy, &charge, &self.image, self.now) {
                Verdict::Refused(refusal) => {
                    let limits = refusal.limits.iter().map(|refused| (refused.limit, refused.cap)).collect();
                    return Answer::Refused(limits, refusal.retry_after());
                }
                Verdict::InFull => charge = self.policy.fit(&charge.in_full()),
                Verdict::Reap(slot, count) => reap = self.free_unless_enough(charge, slot, count),
                verdict => panic!("{verdict:?} without another writer"),
            }
        }
        panic!("reaping did not end");
    }

    /// Returns the slot to free with a reservation of `charge`, if that makes room. Otherwise frees
    /// the slot immediately.
    fn free_unless_enough(&mut self, charge: Charge, slot: u64, count: u64) -> Option<(u64, u64)> {
        let reservation = Reservation::new(&self.policy, charge, self.now, self.now);
        if self.image.admits(&reserve(&self.policy, &reservation, Some((slot, count)))) {
            return Some((slot, count));
        }
        assert!(self.image.apply(&free(slot, count)), "no other writer");
        None
    }

    pub fn admit(&mut self, tokens: u64) -> Reservation {
        match self.reserve(charge(tokens), 60_000) {
            Answer::Admitted(reservation) => reservation,
            Answer::Refused(limits, wait) => panic!("refused by {limits:?} for {wait} ms"),
        }
    }

    pub fn settle(&mut self, reservation: &Reservation, actual: Charge) -> bool {
        let charge = Charge { unreserved_tokens: 0, ..actual };
        let settled = Settled { charge, ..Settled::default() };
        self.image.apply(&settle(reservation, &settled, self.now)) || {
            reservation.is_dead(self.now) && self.image.apply(&settle_reaped(reservation, &settled, self.now))
        }
    }
}

#[test]
fn a_request_of_many_calls_is_charged_for_each_and_holds_one_slot() {
    let limits = Limits { requests_per_minute: Some(10), in_flight: Some(1), ..Limits::default() };
    let mut item = Item::new(policy(limits, 12));
    let calls = |requests| Charge { requests, ..Charge::default() };
    let Answer::Admitted(first) = item.reserve(calls(7), 30_000) else { panic!("there is room") };
    let limits = |answer| match answer {
        Answer::Refused(limits, _) => limits,
        Answer::Admitted(_) => Vec::new(),
    };
    assert_eq!(limits(item.reserve(calls(3), 30_000)), [(Limit::InFlight, 1)]);
    assert!(item.settle(&first, calls(7)));
    assert_eq!(limits(item.reserve(calls(4), 30_000)), [(Limit::RequestsPerMinute, 10)]);
    assert!(matches!(item.reserve(calls(3), 30_000), Answer::Admitted(_)));
}

/// Generates charges of one request, each amount below `max`. Some have unreserved tokens.
pub fn charges(max: u64) -> impl Strategy<Value = Charge> {
    let unreserved_tokens = prop_oneof![Just(0), 0..max];
    (0..max, 0..max, 0..max, unreserved_tokens).prop_map(
        |(minute_tokens, day_tokens, cost_microusd, unreserved_tokens)| Charge {
            requests: 1,
            minute_tokens,
            day_tokens,
            cost_microusd,
            unreserved_tokens,
        },
    )
}
