//! How the counters of one item are written: ours, and the alternatives that it is measured against.
//!
//! All of them make the same kind of conditional write, are sharded, remember refusals and count requests in flight alike:
//! in our ring. What differs is how they count requests and tokens per minute.

mod fixed_windows;
mod gcra;
mod ring;
mod swap;

use spillway::quota::{
    self, Charge, Image, Limit, Policy, Refusal, RefusedLimit, Reservation, Settled, Verdict, Write,
};

/// How the rate limits of an item are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The product's own: windows that overlap, named after their time.
    Staircase,
    /// One timestamp for each limit; which of two updates is right is predicted from what was last seen of the item.
    Gcra,
    /// One counter for each minute of the clock.
    FixedWindows,
    /// A token bucket that is read, computed and written back if nobody else wrote.
    CompareAndSwap,
}

/// What a writer saw of an item, and when by its clock.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    pub image: &'a Image,
    pub at_ms: u64,
}

impl Encoding {
    /// The write that makes `reservation`. `known` is what its writer last saw of the item.
    pub fn reserve(
        self,
        policy: &Policy,
        reservation: &Reservation,
        known: Option<Sight<'_>>,
        reap: Option<(u64, u64)>,
    ) -> Write {
        let mut write = match self {
            Self::Staircase => return quota::reserve(policy, reservation, reap),
            Self::Gcra => gcra::reserve(policy, reservation, known),
            Self::FixedWindows => fixed_windows::reserve(policy, reservation),
            Self::CompareAndSwap => swap::reserve(policy, reservation, known),
        };
        ring::reserve(&mut write, policy, reservation, reap);
        write
    }

    /// Why the item would refuse, or did.
    pub fn explain(self, policy: &Policy, charge: &Charge, image: &Image, at_ms: u64) -> Verdict {
        let mut limits = match self {
            Self::Staircase => return quota::explain(policy, charge, image, at_ms),
            Self::Gcra => gcra::refused(policy, charge, image, at_ms),
            Self::FixedWindows => fixed_windows::refused(policy, charge, image, at_ms),
            Self::CompareAndSwap => swap::refused(policy, charge, image, at_ms),
        };
        if let Some(refused) = ring::refused(policy, image) {
            if limits.is_empty()
                && let Some((slot, count)) = quota::reapable(image, at_ms)
            {
                return Verdict::Reap(slot, count);
            }
            limits.push(refused);
        }
        if limits.is_empty() { Verdict::Retry } else { Verdict::Refused(Refusal { limits }) }
    }

    /// The write that settles `reservation`.
    pub fn settle(self, policy: &Policy, reservation: &Reservation, settled: &Settled, now_ms: u64) -> Write {
        let mut write = match self {
            Self::Staircase => return quota::settle(reservation, settled, now_ms),
            Self::Gcra => gcra::settle(policy, reservation, settled),
            Self::FixedWindows => fixed_windows::settle(reservation, settled),
            Self::CompareAndSwap => swap::settle(reservation, settled),
        };
        ring::settle(&mut write, reservation);
        write
    }

    /// Whether the item must be read before a writer that does not know it can write.
    pub fn reads_first(self) -> bool {
        self == Self::CompareAndSwap
    }

    /// Whether a writer does better if it remembers what it last saw of an item.
    pub fn remembers(self) -> bool {
        matches!(self, Self::Gcra | Self::CompareAndSwap)
    }
}

/// The limits per minute of `policy` with what `charge` costs them.
fn rates(policy: &Policy, charge: &Charge) -> impl Iterator<Item = Rate> {
    let requests = policy.limits.requests_per_minute.map(|per_minute| Rate {
        limit: Limit::RequestsPerMinute,
        per_minute,
        amount: charge.requests,
    });
    let tokens = policy.limits.tokens_per_minute.map(|per_minute| Rate {
        limit: Limit::TokensPerMinute,
        per_minute,
        amount: charge.minute_tokens,
    });
    requests.into_iter().chain(tokens)
}

/// One limit per minute and what a request costs it.
struct Rate {
    limit: Limit,
    per_minute: u64,
    amount: u64,
}

impl Rate {
    fn refused(&self, retry_after_ms: u64) -> RefusedLimit {
        RefusedLimit { limit: self.limit, cap: self.per_minute, retry_after_ms }
    }
}

/// How much more `settled` costs than `reservation`, in requests and in tokens per minute.
fn difference(reservation: &Reservation, settled: &Settled) -> [(Limit, i64); 2] {
    let (reserved, actual) = (reservation.charge, settled.charge);
    let more = |actual: u64, reserved: u64| actual as i64 - reserved as i64;
    [
        (Limit::RequestsPerMinute, more(actual.requests, reserved.requests)),
        (Limit::TokensPerMinute, more(actual.minute_tokens, reserved.minute_tokens)),
    ]
}
