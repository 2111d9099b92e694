//! Capacity: when requests of one size will fit an item, one after the other.

use super::{Attribute, Charge, Image, Policy, Refusal, Reservation, Unit, Verdict, explain, free, reserve};
use crate::units::{Millis, UnixMs};

/// Time after which running requests may have given back a part of what they reserved.
const SETTLING_PAUSE: Millis = Millis::from_s(3);

/// Room for requests of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Time until each further request fits, the soonest first.
    pub waits: Vec<Millis>,
    /// Refusal of the request after these; `None` if more requests may fit.
    pub refusal: Option<Refusal>,
    /// Time until that request fits.
    pub retry_after: Millis,
    /// Whether it may fit sooner, because running requests may cost less than they reserved.
    pub may_settle: bool,
}

/// Finds when requests of the size `sized` fit on top of `image`, from `at` until `until`, for up
/// to `max` requests, each of which still runs at `until`. Returns `None` if the item has seen
/// newer limits than `policy` has.
pub fn capacity(
    policy: &Policy,
    sized: &Charge,
    image: &Image,
    (at, until): (UnixMs, UnixMs),
    max: usize,
) -> Option<Capacity> {
    let (mut image, mut now, mut charge) = (image.clone(), at, *sized);
    let mut capacity = Capacity { waits: Vec::new(), refusal: None, retry_after: Millis::ZERO, may_settle: false };
    while capacity.waits.len() < max {
        let write = match explain(policy, &charge, &image, now) {
            Verdict::Stale => return None,
            Verdict::Refused(refusal) => {
                let fits_at = now + refusal.retry_after();
                let is_running = image.get(Attribute::InFlight) > 0;
                let may_settle =
                    is_running && refusal.limits.iter().any(|refused| refused.limit.unit() != Unit::Requests);
                if !may_settle && fits_at <= until {
                    (now, charge) = (fits_at, *sized);
                    continue;
                }
                let retry_after = if may_settle { (fits_at - at).min(SETTLING_PAUSE) } else { fits_at - at };
                return Some(Capacity { refusal: Some(refusal), retry_after, may_settle, ..capacity });
            }
            Verdict::Reap(slot, count) => free(slot, count),
            Verdict::InFull => {
                charge = policy.fit(&charge.in_full());
                continue;
            }
            Verdict::Retry => {
                capacity.waits.push(now - at);
                let charge = std::mem::replace(&mut charge, *sized);
                reserve(policy, &Reservation::new(policy, charge, now, until), None)
            }
        };
        image.apply(&write);
    }
    Some(capacity)
}

impl Capacity {
    /// Returns the room on this item and on another `shard` of the same account together.
    pub fn beside(self, shard: Self) -> Self {
        let mut waits = [self.waits, shard.waits].concat();
        waits.sort_unstable();
        Self {
            waits,
            refusal: self.refusal.zip(shard.refusal).map(|(refusal, _)| refusal),
            retry_after: self.retry_after.min(shard.retry_after),
            may_settle: self.may_settle || shard.may_settle,
        }
    }

    /// Returns the room for requests that this account and its `parent` must both admit.
    pub fn and(self, parent: Self) -> Self {
        let waits = self.waits.iter().zip(&parent.waits).map(|(own, parents)| *own.max(parents)).collect();
        let own = self.waits.len() < parent.waits.len()
            || (self.waits.len() == parent.waits.len() && self.retry_after >= parent.retry_after);
        Self { waits, ..if own { self } else { parent } }
    }

    /// Whether a budget is used up. A request over a budget fails and does not wait.
    pub fn is_over_budget(&self) -> bool {
        let mut refused = self.refusal.iter().flat_map(|refusal| &refusal.limits);
        self.waits.is_empty() && refused.any(|refused| refused.limit.unit() == Unit::Microusd)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::{Burst, Limit, Limits};

    const NOW: UnixMs = UnixMs::from_ms(1_800_000_002_000);

    fn policy(limits: Limits, burst_s: u64) -> Policy {
        let burst = Burst { requests_s: burst_s, tokens_s: burst_s, is_strict: false, carries_over: false };
        Policy { limits, version: 1, burst, share_percent: 100 }
    }

    fn charge(tokens: u64) -> Charge {
        Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, cost_microusd: tokens, ..Charge::ZERO }
    }

    fn admit(policy: &Policy, image: &mut Image, tokens: u64, at: UnixMs) -> bool {
        admit_sized(policy, image, charge(tokens), at)
    }

    /// Charges a request, in full if it must be, and frees dead slots if it needs their room.
    /// Returns whether it fits.
    fn admit_sized(policy: &Policy, image: &mut Image, mut charge: Charge, at: UnixMs) -> bool {
        while !image.apply(&reserve(policy, &Reservation::new(policy, charge, at, at + Millis::from_s(60)), None)) {
            match explain(policy, &charge, image, at) {
                Verdict::Reap(slot, count) => drop(image.apply(&free(slot, count))),
                Verdict::InFull => charge = policy.fit(&charge.in_full()),
                _ => return false,
            }
        }
        true
    }

    #[test]
    fn a_limit_on_tokens_may_have_room_as_soon_as_running_requests_are_settled() {
        let tokens = policy(Limits { tokens_per_minute: Some(100), ..Limits::default() }, 60);
        let mut image = Image::default();
        assert!(admit(&tokens, &mut image, 90, NOW));
        let room = capacity(&tokens, &charge(90), &image, (NOW, NOW), 10).expect("room");
        assert_eq!((room.waits, room.retry_after), (vec![], SETTLING_PAUSE));
        let requests = policy(Limits { requests_per_minute: Some(1), ..Limits::default() }, 60);
        let room = capacity(&requests, &charge(1), &image, (NOW, NOW), 10).expect("room");
        assert_eq!((room.waits, room.retry_after), (vec![], Millis::from_s(58)), "a settlement gives no request back");
    }

    #[test]
    fn the_parent_and_all_shards_count() {
        let room = |limit| {
            let policy = policy(Limits { requests_per_minute: Some(limit), ..Limits::default() }, 60);
            capacity(&policy, &charge(1), &Image::default(), (NOW, NOW), 100).expect("room")
        };
        assert_eq!(room(3).beside(room(4)).waits.len(), 7);
        assert_eq!(room(3).beside(room(200)).refusal, None, "the second shard may have more room");
        assert_eq!((room(3).and(room(4)).waits.len(), room(4).and(room(3)).waits.len()), (3, 3));
    }

    #[test]
    fn a_used_up_budget_is_no_reason_to_wait() {
        let budget = policy(Limits { microusd_per_month: Some(10), ..Limits::default() }, 60);
        let mut image = Image::default();
        assert!(admit(&budget, &mut image, 5, NOW));
        let room = |tokens| capacity(&budget, &charge(tokens), &image, (NOW, NOW), 5).expect("room");
        assert!(!room(5).is_over_budget() && room(6).is_over_budget());
    }

    #[test]
    fn a_request_that_fits_runs_until_the_period_ends() {
        let limits = Limits { requests_per_minute: Some(2), in_flight: Some(3), ..Limits::default() };
        let until = NOW + Millis::from_s(60);
        let room = capacity(&policy(limits, 55), &charge(1), &Image::default(), (NOW, until), 20).expect("room");
        assert_eq!(room.waits.len(), 3, "a fourth one would need the slot of the first");
        let refusal = room.refusal.expect("a refusal");
        assert!(refusal.limits.iter().any(|refused| refused.limit == Limit::InFlight), "{refusal:?}");
    }

    #[test]
    fn newer_limits_are_noticed() {
        let newer = Policy { version: 7, ..policy(Limits::default(), 60) };
        let mut image = Image::default();
        assert!(admit(&newer, &mut image, 1, NOW));
        assert_eq!(capacity(&policy(Limits::default(), 60), &charge(1), &image, (NOW, NOW), 5), None);
    }

    proptest! {
        /// Requests are admitted when they are expected to fit, and not before.
        #[test]
        fn capacity_is_what_admission_admits(
            requests_per_minute in proptest::option::of(1..40_u64),
            tokens_per_minute in proptest::option::of(20..400_u64),
            in_flight in proptest::option::of(1..30_u64),
            burst_s in 0..=60_u64,
            earlier in proptest::collection::vec((0..60_000_u64, 1..20_u64), 0..20),
            tokens in 1..20_u64,
            unreserved_tokens in prop_oneof![Just(0), 0..60_u64],
            horizon_s in 0..30_u64,
        ) {
            let limits = Limits { requests_per_minute, tokens_per_minute, in_flight, ..Limits::default() };
            let policy = policy(limits, burst_s);
            let mut image = Image::default();
            let mut times = earlier;
            times.sort_unstable();
            for (before_ms, tokens) in times.into_iter().rev() {
                admit(&policy, &mut image, tokens, NOW - Millis::from_ms(before_ms));
            }
            let until = NOW + Millis::from_s(horizon_s);
            let sized = policy.fit(&Charge { unreserved_tokens, ..charge(tokens) });
            let room = capacity(&policy, &sized, &image, (NOW, until), 50).expect("room");
            prop_assert!(room.waits.is_sorted() && room.waits.iter().all(|wait| NOW + *wait <= until));
            let mut before = Millis::ZERO;
            for wait in &room.waits {
                if *wait > before {
                    prop_assert!(!admit_sized(&policy, &mut image.clone(), sized, NOW + before));
                }
                prop_assert!(admit_sized(&policy, &mut image, sized, NOW + *wait));
                before = *wait;
            }
            if room.refusal.is_some() {
                prop_assert!(!admit_sized(&policy, &mut image.clone(), sized, NOW + before));
                if !room.may_settle {
                    prop_assert!(admit_sized(&policy, &mut image, sized, NOW + room.retry_after));
                }
            } else {
                prop_assert_eq!(room.waits.len(), 50);
            }
        }
    }
}
