//! Encodings of an item's counters: the product's encoding and the alternatives.
//!
//! All encodings use conditional writes, shards and a memory of refusals, and count requests in
//! flight in the product's ring. They differ in how they count requests and tokens per minute.

mod fixed_windows;
mod gcra;
mod ring;
mod swap;

use spillway::{
    quota::{self, Charge, Image, Limit, Policy, Refusal, RefusedLimit, Reservation, Settled, Verdict, Write},
    units::{Millis, UnixMs},
};

/// Encoding of an item's rate limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The product's encoding: overlapping windows, named after their time.
    Staircase,
    /// A timestamp for each limit. The writer predicts the right one of two updates from the last
    /// known image of the item.
    Gcra,
    /// A counter for each minute of the clock.
    FixedWindows,
    /// A token bucket that is read, computed, and written back unless another writer has written.
    CompareAndSwap,
}

/// Image of an item, with the time of the writer's clock when it was read.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    pub image: &'a Image,
    pub at_ms: u64,
}

impl Encoding {
    /// Returns the write for `reservation`. `known` is the last image of the item that the writer
    /// knows.
    pub fn reserve(
        self,
        policy: &Policy,
        reservation: &Reservation,
        known: Option<Snapshot<'_>>,
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

    /// Explains why the item refuses the charge.
    pub fn explain(self, policy: &Policy, charge: &Charge, image: &Image, at_ms: u64) -> Verdict {
        let mut limits = match self {
            Self::Staircase => return quota::explain(policy, charge, image, UnixMs::from_ms(at_ms)),
            Self::Gcra => gcra::refused(policy, charge, image, at_ms),
            Self::FixedWindows => fixed_windows::refused(policy, charge, image, at_ms),
            Self::CompareAndSwap => swap::refused(policy, charge, image, at_ms),
        };
        if let Some(refused) = ring::refused(policy, image) {
            if limits.is_empty()
                && let Some((slot, count)) = quota::reapable(image, UnixMs::from_ms(at_ms))
            {
                return Verdict::Reap(slot, count);
            }
            limits.push(refused);
        }
        if limits.is_empty() { Verdict::Retry } else { Verdict::Refused(Refusal { limits }) }
    }

    /// Returns the write that settles `reservation`.
    pub fn settle(self, policy: &Policy, reservation: &Reservation, settled: &Settled, now_ms: u64) -> Write {
        let mut write = match self {
            Self::Staircase => return quota::settle(reservation, settled, UnixMs::from_ms(now_ms)),
            Self::Gcra => gcra::settle(policy, reservation, settled),
            Self::FixedWindows => fixed_windows::settle(reservation, settled),
            Self::CompareAndSwap => swap::settle(reservation, settled),
        };
        ring::settle(&mut write, reservation);
        write
    }

    /// Whether a writer must read an unknown item before it can write.
    pub fn reads_first(self) -> bool {
        self == Self::CompareAndSwap
    }

    /// Whether a writer benefits from remembering the last image of an item.
    pub fn remembers(self) -> bool {
        matches!(self, Self::Gcra | Self::CompareAndSwap)
    }
}

/// Returns the limits per minute of `policy`, each with the cost of `charge`.
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

/// A limit per minute, and the cost of a request.
struct Rate {
    limit: Limit,
    per_minute: u64,
    amount: u64,
}

impl Rate {
    fn refused(&self, retry_after_ms: u64) -> RefusedLimit {
        RefusedLimit { limit: self.limit, cap: self.per_minute, retry_after: Millis::from_ms(retry_after_ms) }
    }
}

/// Returns the cost of `settled` beyond `reservation`, in requests and in tokens per minute.
fn difference(reservation: &Reservation, settled: &Settled) -> [(Limit, i64); 2] {
    let (reserved, actual) = (reservation.charge, settled.charge);
    let more = |actual: u64, reserved: u64| actual as i64 - reserved as i64;
    [
        (Limit::RequestsPerMinute, more(actual.requests, reserved.requests)),
        (Limit::TokensPerMinute, more(actual.minute_tokens, reserved.minute_tokens)),
    ]
}
