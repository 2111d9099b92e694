//! Reservation: the write that charges all limits together.

use super::{
    Attribute, Charge, Condition, EPOCHS, Image, Limit, Policy, Update, Write,
    slots::{self, SLOTS_PER_REQUEST},
    unreserved,
};
use crate::{
    outage::Outage,
    units::{Millis, UnixMs},
};

/// A charge made before the call. It is settled once, or its slot expires.
#[must_use = "a reservation holds capacity until it is settled or expires"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Amounts that are reserved.
    pub charge: Charge,
    /// Time of the charge. It names the windows to settle.
    pub at: UnixMs,
    /// Slot in the ring.
    pub slot: u64,
    /// [`Burst::carries_over`](super::Burst::carries_over) of the policy, which determines the
    /// windows to settle.
    pub carries_over: bool,
    /// Attributes that have been out of use for long. The settlement removes them.
    pub stale: Vec<Attribute>,
}

impl Reservation {
    /// Creates a reservation of `charge` under `policy` at `now` that expires at `expires_at`.
    pub fn new(policy: &Policy, charge: Charge, now: UnixMs, expires_at: UnixMs) -> Self {
        let carries_over = policy.burst.carries_over;
        Self { charge, at: now, slot: slots::slot_at(expires_at), carries_over, stale: Vec::new() }
    }

    /// Notes the attributes of `image` that no window in use needs, for the settlement to remove. A
    /// gap in traffic leaves such attributes behind, because [`reserve`] removes only attributes
    /// that it can name.
    pub fn note_stale(&mut self, image: &Image) {
        let is_stale = |(attribute, value): &(Attribute, i64)| match *attribute {
            Attribute::Slot(slot) => slots::is_forgettable(slot, *value, self.at),
            Attribute::Unreserved(span) => unreserved::is_stale(span, self.at),
            Attribute::Outage(_) => Outage::end_in_number(value.unsigned_abs()) + FORGET_OUTAGE_AFTER < self.at,
            attribute => attribute.period().is_some_and(|(period, window)| period.is_stale(window, self.at)),
        };
        self.stale = image.iter().filter(is_stale).map(|(attribute, _)| attribute).collect();
    }
}

/// Time after its end for which an outage stays in an item.
const FORGET_OUTAGE_AFTER: Millis = Millis::from_s(600);

/// Returns the write that makes `reservation` under `policy`. With `reap`, a dead slot and its
/// count, the same write also frees that slot.
///
/// The caller has refused charges that are [`too_large`](super::too_large).
pub fn reserve(policy: &Policy, reservation: &Reservation, reap: Option<(u64, u64)>) -> Write {
    let Reservation { charge, at, slot, carries_over, .. } = reservation;
    let reaped = reap.map_or(0, |(_, count)| count);
    let mut write = Write {
        conditions: Vec::with_capacity(2 * EPOCHS as usize + 7),
        updates: Vec::with_capacity(4 * EPOCHS as usize + 8),
    };
    write.conditions.push(Condition::AtMost(Attribute::Version, policy.version));
    bounds(policy, charge, *at).for_each(|Bound { attribute, at_most, .. }| {
        let freed = if attribute == Attribute::InFlight { reaped } else { 0 };
        write.conditions.push(Condition::AtMost(attribute, at_most + freed));
    });

    write.updates.push(Update::Set(Attribute::Version, policy.version));
    write.updates.push(Update::Add(Attribute::InFlight, signed(SLOTS_PER_REQUEST) - signed(reaped)));
    write.updates.push(Update::Add(Attribute::Slot(*slot), signed(SLOTS_PER_REQUEST)));
    if let Some((dead, count)) = reap {
        write.conditions.push(Condition::Equals(Attribute::Slot(dead), count));
        write.updates.push(Update::Remove(Attribute::Slot(dead)));
    }
    for limit in Limit::iter() {
        let amount = signed(charge.get(limit));
        write.updates.extend(limit.windows(*carries_over, *at).map(|(_, counter)| Update::Add(counter, amount)));
        write.updates.extend(limit.ended(*carries_over, *at).map(Update::Remove));
    }
    for (condition, update) in unreserved::count(policy, charge, *at) {
        write.conditions.push(condition);
        write.updates.push(update);
    }
    write
}

/// Upper bound on an attribute for a charge to be admitted.
pub(super) struct Bound {
    pub limit: Limit,
    /// Value of the limit.
    pub value: u64,
    /// Number of the window; 0 for requests in flight.
    pub window: u64,
    pub attribute: Attribute,
    /// Amount that the attribute may already hold.
    pub at_most: u64,
}

/// Returns the bounds on all attributes that a limit of `policy` watches, for a charge at `at`.
///
/// Consume them with `for_each`: a `for` loop over this nested iterator takes twice the
/// instructions.
pub(super) fn bounds(policy: &Policy, charge: &Charge, at: UnixMs) -> impl Iterator<Item = Bound> {
    policy.limits.iter().flat_map(move |(limit, value)| {
        let amount = charge.get(limit);
        let bound = move |(window, attribute)| {
            let at_most = policy.room(limit, value, window, at, amount);
            Bound { limit, value, window, attribute, at_most }
        };
        let in_flight = limit.period().is_none().then_some((0, Attribute::InFlight));
        limit.windows(policy.burst.carries_over, at).chain(in_flight).map(bound)
    })
}

/// Converts an amount to the type of the counters.
pub(super) fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
