//! Explanation of a refusal: the limits that refuse, and when the request will fit.

use super::{
    Attribute, Charge, EPOCH, EPOCHS, Image, Limit, Period, Policy,
    caps::room,
    reserve::{Bound, bounds},
    slots::{self, SLOTS_PER_REQUEST},
    unreserved,
};
use crate::units::{Millis, UnixMs};

/// Next step after a failed write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The item has seen newer limits: read them and try again.
    Stale,
    /// There is no room.
    Refused(Refusal),
    /// Only the limit of requests in flight refuses, and the request fits once dead slots are
    /// freed. Free this slot, which holds this count, and try again. Each dead slot takes one
    /// attempt.
    Reap(u64, u64),
    /// The request fits the limits, and its unreserved tokens do not fit their bound. It may fit if
    /// it is charged [in full](Charge::in_full).
    InFull,
    /// No limit refuses any more: try again.
    Retry,
}

/// "Not now": every limit that refuses, and when the request will fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Limits that refuse, sorted by `retry_after`, the longest first.
    pub limits: Vec<RefusedLimit>,
}

/// One limit that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedLimit {
    /// The limit.
    pub limit: Limit,
    /// Value of the limit.
    pub cap: u64,
    /// Time from the refusal until the limit has room, if no further request arrives. It is an
    /// estimate for [`Limit::InFlight`] and exact for all other limits.
    pub retry_after: Millis,
}

impl Refusal {
    /// Returns the time from the refusal until the request fits all limits.
    pub fn retry_after(&self) -> Millis {
        self.limits.first().map_or(Millis::ZERO, |limit| limit.retry_after)
    }
}

/// Typical duration of a model call, for estimating when a slot becomes free.
const TYPICAL_CALL: Millis = Millis::from_s(3);

/// Minimum estimate of the time until a slot becomes free.
const MIN_SLOT_WAIT: Millis = Millis::from_ms(200);

/// Judges `image`, the old item that a failed [`reserve`](super::reserve) returned. `at` is the
/// time of that write: at a later time the limits may no longer refuse, and the caller would retry
/// in a loop.
pub fn explain(policy: &Policy, charge: &Charge, image: &Image, at: UnixMs) -> Verdict {
    if image.get(Attribute::Version) > policy.version {
        return Verdict::Stale;
    }
    let mut limits = refused_limits(policy, charge, image, at);
    if let Some(frees_after) = unreserved::frees_after(policy, charge, image, at) {
        // It fits as it is from then on, if it does not fit in full before.
        let fits_after = limits.iter().map(|refused| refused.retry_after).fold(frees_after, Millis::max);
        limits = refused_limits(policy, &charge.in_full(), image, at);
        if is_only_in_flight(&limits) {
            return Verdict::InFull;
        }
        limits.iter_mut().for_each(|refused| refused.retry_after = refused.retry_after.min(fits_after));
    }
    if limits.is_empty() {
        return Verdict::Retry;
    }
    if is_only_in_flight(&limits)
        && fits_without_dead_slots(policy, image, at)
        && let Some((slot, count)) = slots::reapable(image, at)
    {
        return Verdict::Reap(slot, count);
    }
    limits.sort_by_key(|refused| std::cmp::Reverse(refused.retry_after));
    Verdict::Refused(Refusal { limits })
}

fn is_only_in_flight(limits: &[RefusedLimit]) -> bool {
    limits.iter().all(|refused| refused.limit == Limit::InFlight)
}

/// Returns whether one more request fits beside the requests in flight whose slots are not dead.
fn fits_without_dead_slots(policy: &Policy, image: &Image, at: UnixMs) -> bool {
    let cap = policy.limits.in_flight.map(|value| policy.cap(Limit::InFlight, value, 0, at));
    cap.is_none_or(|cap| slots::live(image, at) + SLOTS_PER_REQUEST <= cap)
}

fn refused_limits(policy: &Policy, charge: &Charge, image: &Image, at: UnixMs) -> Vec<RefusedLimit> {
    let mut limits: Vec<RefusedLimit> = Vec::new();
    bounds(policy, charge, at).for_each(|bound| {
        let held = image.get(bound.attribute);
        if held <= bound.at_most {
            return;
        }
        let retry_after = frees_after(policy, charge, &bound, held, at);
        match limits.iter_mut().find(|known| known.limit == bound.limit) {
            Some(known) => known.retry_after = known.retry_after.max(retry_after),
            None => limits.push(RefusedLimit { limit: bound.limit, cap: bound.value, retry_after }),
        }
    });
    limits
}

/// Returns the time from `at` until an attribute that holds `held`, which exceeds its bound, has
/// room for `charge`.
fn frees_after(policy: &Policy, charge: &Charge, bound: &Bound, held: u64, at: UnixMs) -> Millis {
    let Bound { limit, value, window, .. } = *bound;
    match limit.windows_period(policy.burst.carries_over) {
        // A window may hold more the older it gets, and it is gone after `EPOCHS`.
        Some(Period::Minute) => {
            let amount = charge.get(limit);
            let has_room = |age: &u64| room(policy.minute_cap(limit, value, *age), amount) >= held;
            let age = (1..=EPOCHS).find(has_room).unwrap_or(EPOCHS + 1);
            UnixMs::default() + EPOCH * (window + age - 1) - at
        }
        Some(period @ Period::FiveMinutes) => {
            let ends_at = period.ends_at(window);
            policy.carry_age(value, held).map_or(ends_at, |age| ends_at.min(period.begins_at(window) + age)) - at
        }
        Some(period @ (Period::Day | Period::Month)) => period.ends_at(window) - at,
        None => (TYPICAL_CALL / value.max(1)).max(MIN_SLOT_WAIT),
    }
}
