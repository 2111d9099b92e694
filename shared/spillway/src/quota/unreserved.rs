//! Unreserved tokens: tokens that a request may use and that right-sizing does not reserve.
//!
//! Right-sizing reserves what recent answers took. A tenant chooses its requests, so it can bring
//! its answers to any length first. Therefore the unreserved tokens of requests in flight are
//! counted too, and their sum is bounded. A request beyond the bound is reserved in full.
//!
//! They are counted in overlapping spans of two minutes, one of which begins each minute, so any 60
//! seconds lie in one span. A settlement takes them out of the spans that are in use. If a request
//! dies, they stay until its spans have ended, so the clock alone frees them.
//!
//! **No window of a limit on tokens holds more than twice the limit.** When the last request of a
//! window is admitted, the window holds at most the limit. After that, its running requests can add
//! their unreserved tokens, and no more. In a window of a minute, these requests are all in one
//! span, which holds at most [`Policy::max_unreserved`]: never more than the limit. On a day, they
//! were all admitted within [`MINUTES`], and that many times the maximum is never more than the
//! limit.

use std::ops::Range;

use super::{Attribute, Charge, Condition, Image, Policy, Reservation, Update, caps::room, reserve::signed};
use crate::units::{Millis, UnixMs};

/// Time between the beginnings of two spans.
const STEP: Millis = Millis::from_s(60);

/// Spans that contain a moment.
const SPANS: u64 = 2;

/// Minutes within which all running requests were admitted: the longest call, and a minute for
/// clock skew and the settlement.
const MINUTES: u64 = 16;

/// Maximum duration of a call for which the bound on a day holds.
pub const MAX_CALL: Millis = Millis::from_s((MINUTES - 1) * 60);

impl Policy {
    /// Returns the maximum of the unreserved tokens in a span; `None` if no tokens are limited, so
    /// that nothing needs a bound.
    fn max_unreserved(&self) -> Option<u64> {
        let of_day = self.limits.tokens_per_day.map(|limit| limit / MINUTES);
        [self.limits.tokens_per_minute, of_day].into_iter().flatten().min()
    }

    /// Returns `charge` with no more unreserved tokens than fit the bound: as it is, or in full.
    pub(super) fn bound_unreserved(&self, charge: &Charge) -> Charge {
        match self.max_unreserved() {
            Some(max) if charge.unreserved_tokens <= max => *charge,
            Some(_) => charge.in_full(),
            None => Charge { unreserved_tokens: 0, ..*charge },
        }
    }

    /// Returns the amount that a span may already hold so that the unreserved tokens of `charge`
    /// fit.
    fn unreserved_room(&self, charge: &Charge) -> u64 {
        room(self.max_unreserved().unwrap_or(u64::MAX), charge.unreserved_tokens)
    }
}

/// Returns the conditions and the updates that add the unreserved tokens of a charge. A request
/// that is reserved in full has none.
pub(super) fn count(policy: &Policy, charge: &Charge, at: UnixMs) -> impl Iterator<Item = (Condition, Update)> {
    let (at_most, amount) = (policy.unreserved_room(charge), signed(charge.unreserved_tokens));
    let spans = if charge.unreserved_tokens > 0 { spans(at) } else { 0..0 };
    spans.map(Attribute::Unreserved).map(move |span| (Condition::AtMost(span, at_most), Update::Add(span, amount)))
}

/// Returns the updates that take the unreserved tokens of `reservation` out at `now`.
pub(super) fn release(reservation: &Reservation, now: UnixMs) -> impl Iterator<Item = Update> {
    let amount = signed(reservation.charge.unreserved_tokens);
    let oldest = spans(now).start;
    let in_use = spans(reservation.at).filter(move |span| amount > 0 && *span >= oldest);
    in_use.map(move |span| Update::Add(Attribute::Unreserved(span), -amount))
}

/// Returns the time from `at` until the unreserved tokens of `charge` fit, if no running request
/// ends before; `None` if they fit `image` now.
pub(super) fn frees_after(policy: &Policy, charge: &Charge, image: &Image, at: UnixMs) -> Option<Millis> {
    if charge.unreserved_tokens == 0 {
        return None;
    }
    let at_most = policy.unreserved_room(charge);
    let last_full = spans(at).rev().find(|span| image.get(Attribute::Unreserved(*span)) > at_most)?;
    Some(UnixMs::default() + STEP * (last_full + SPANS) - at)
}

/// Returns whether `span` is out of use at `now` for every process, even with the maximum clock
/// skew.
pub(super) fn is_stale(span: u64, now: UnixMs) -> bool {
    span + 1 < spans(now).start
}

/// Returns the spans that contain `at`, the oldest first. A span is named after the minute in which
/// it begins.
fn spans(at: UnixMs) -> Range<u64> {
    let newest = at / STEP;
    (newest + 1).saturating_sub(SPANS)..newest + 1
}
