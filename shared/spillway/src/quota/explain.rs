//! Why a reservation was refused and when it fits, read from the item that refused it.

use super::{
    Attribute, Charge, EPOCH_MS, EPOCHS, Image, Limit, Period, Policy,
    caps::room,
    reserve::{Bound, bounds},
    slots,
};

/// What to do after a failed write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The item knows newer limits than we do: read them and try again.
    Stale,
    /// No room.
    Refused(Refusal),
    /// Only requests in flight stand in the way, and it fits once the dead among them are gone: free that slot and try
    /// again. Where the dead are in several slots, that may have to be done for each.
    Reap(u64, u64),
    /// Nothing stands in the way any more.
    Retry,
}

/// "Not now": every limit that stands in the way, and when the request will fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The limits, the one that frees last first.
    pub limits: Vec<RefusedLimit>,
}

/// One limit that stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedLimit {
    /// Which limit.
    pub limit: Limit,
    /// Its cap.
    pub cap: u64,
    /// When it has room if nothing else happens, in milliseconds from the refusal. Exact for all limits but
    /// [`Limit::InFlight`], where it is an estimate.
    pub retry_after_ms: u64,
}

impl Refusal {
    /// When the request fits all limits, in milliseconds from the refusal.
    pub fn retry_after_ms(&self) -> u64 {
        self.limits.first().map_or(0, |limit| limit.retry_after_ms)
    }
}

/// How long a model call typically takes, for estimating when a slot frees.
const TYPICAL_CALL_MS: u64 = 3_000;

/// Judges `image`, the old item that a failed [`reserve`](super::reserve) returned. `at_ms` is the clock used in that
/// write: a later one could find nothing wrong and retry in a loop.
pub fn explain(policy: &Policy, charge: &Charge, image: &Image, at_ms: u64) -> Verdict {
    if image.get(Attribute::Version) > policy.version {
        return Verdict::Stale;
    }
    let mut limits = refused_limits(policy, charge, image, at_ms);
    let only_in_flight = limits.iter().all(|refused| refused.limit == Limit::InFlight);
    if limits.is_empty() {
        return Verdict::Retry;
    }
    if only_in_flight
        && fits_the_living(policy, charge, image, at_ms)
        && let Some((slot, count)) = slots::reapable(image, at_ms)
    {
        return Verdict::Reap(slot, count);
    }
    limits.sort_by_key(|refused| std::cmp::Reverse(refused.retry_after_ms));
    Verdict::Refused(Refusal { limits })
}

/// Whether `charge` fits beside those in flight that are not dead.
fn fits_the_living(policy: &Policy, charge: &Charge, image: &Image, at_ms: u64) -> bool {
    let cap = policy.limits.in_flight.map(|value| policy.cap(Limit::InFlight, value, 0, at_ms));
    cap.is_none_or(|cap| slots::live(image, at_ms) + charge.requests <= cap)
}

fn refused_limits(policy: &Policy, charge: &Charge, image: &Image, at_ms: u64) -> Vec<RefusedLimit> {
    let mut limits: Vec<RefusedLimit> = Vec::new();
    bounds(policy, charge, at_ms).for_each(|bound| {
        let held = image.get(bound.attribute);
        if held <= bound.at_most {
            return;
        }
        let retry_after_ms = frees_after_ms(policy, charge, &bound, held, at_ms);
        match limits.iter_mut().find(|known| known.limit == bound.limit) {
            Some(known) => known.retry_after_ms = known.retry_after_ms.max(retry_after_ms),
            None => limits.push(RefusedLimit { limit: bound.limit, cap: bound.value, retry_after_ms }),
        }
    });
    limits
}

/// When an attribute that holds `held`, which is over its bound, has room for `charge`, in milliseconds from `at_ms`.
fn frees_after_ms(policy: &Policy, charge: &Charge, bound: &Bound, held: u64, at_ms: u64) -> u64 {
    let Bound { limit, value, window, .. } = *bound;
    match limit.period() {
        // It may hold more the older it gets, and is gone after `EPOCHS`.
        Some(Period::Minute) => {
            let amount = charge.get(limit);
            let has_room = |age: &u64| room(policy.minute_cap(limit, value, *age), amount) >= held;
            let age = (1..=EPOCHS).find(has_room).unwrap_or(EPOCHS + 1);
            ((window + age - 1) * EPOCH_MS).saturating_sub(at_ms)
        }
        Some(period @ (Period::Day | Period::Month)) => period.ends_ms(window).saturating_sub(at_ms),
        None => (TYPICAL_CALL_MS / value.max(1)).max(200),
    }
}
