//! Why a reservation was refused and when it fits, read from the item that refused it.

use super::{
    Attribute, Charge, EPOCH_MS, EPOCHS, Image, Limit, Limits, Policy,
    caps::room,
    reserve::{bounds, day, month_end_ms},
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
    let live = slots::live(image, at_ms);
    policy.limits.in_flight.is_none_or(|limit| live + charge.requests <= policy.in_flight_cap(limit))
}

fn refused_limits(policy: &Policy, charge: &Charge, image: &Image, at_ms: u64) -> Vec<RefusedLimit> {
    let mut limits: Vec<RefusedLimit> = Vec::new();
    for (attribute, bound) in bounds(policy, charge, at_ms) {
        let held = image.get(attribute);
        if held <= bound {
            continue;
        }
        let Some(refused) = refuse(policy, charge, attribute, held, at_ms) else { continue };
        match limits.iter_mut().find(|known| known.limit == refused.limit) {
            Some(known) => known.retry_after_ms = known.retry_after_ms.max(refused.retry_after_ms),
            None => limits.push(refused),
        }
    }
    limits
}

fn refuse(policy: &Policy, charge: &Charge, attribute: Attribute, held: u64, at_ms: u64) -> Option<RefusedLimit> {
    let Limits { requests_per_minute, tokens_per_minute, tokens_per_day, in_flight, microusd_per_month } =
        policy.limits;
    let window = |start, amount, cap: &dyn Fn(u64) -> u64| frees_at_ms(start, held, amount, cap).saturating_sub(at_ms);
    let (limit, cap, retry_after_ms) = match attribute {
        Attribute::Requests(start) => {
            let cap = requests_per_minute?;
            (Limit::RequestsPerMinute, cap, window(start, charge.requests, &|age| policy.requests_cap(cap, age)))
        }
        Attribute::Tokens(start) => {
            let cap = tokens_per_minute?;
            (Limit::TokensPerMinute, cap, window(start, charge.minute_tokens, &|age| policy.tokens_cap(cap, age)))
        }
        Attribute::Day(_) => (Limit::TokensPerDay, tokens_per_day?, (day(at_ms) + 1) * 86_400_000 - at_ms),
        Attribute::Month(_) => (Limit::MicrousdPerMonth, microusd_per_month?, month_end_ms(at_ms) - at_ms),
        Attribute::InFlight => (Limit::InFlight, in_flight?, (TYPICAL_CALL_MS / in_flight?.max(1)).max(200)),
        _ => return None,
    };
    Some(RefusedLimit { limit, cap, retry_after_ms })
}

/// When the window from `start`, which holds `held`, has room for `amount` under `cap`, by age: it may hold more the older
/// it gets, and it is gone after `EPOCHS`.
fn frees_at_ms(start: u64, held: u64, amount: u64, cap: &dyn Fn(u64) -> u64) -> u64 {
    let age = (1..=EPOCHS).find(|age| room(cap(*age), amount) >= held).unwrap_or(EPOCHS + 1);
    (start + age - 1) * EPOCH_MS
}
