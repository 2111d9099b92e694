//! The write that charges all limits at once.

use super::{Attribute, Charge, Condition, EPOCHS, Image, Limit, Policy, Update, Write, caps::room, slots};

/// A charge that was made before the call. It is settled once, or its slot expires by itself.
#[must_use = "a reservation holds capacity until it is settled or expires"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// What was charged.
    pub charge: Charge,
    /// When it was charged: names the windows to settle.
    pub at_ms: u64,
    /// Its slot in the ring.
    pub slot: u64,
    /// Attributes that went out of use long ago; the settle removes them.
    pub stale: Vec<Attribute>,
}

impl Reservation {
    /// A reservation of `charge` at `now_ms` that expires by itself at `expires_ms`.
    pub fn new(charge: Charge, now_ms: u64, expires_ms: u64) -> Self {
        Self { charge, at_ms: now_ms, slot: slots::slot_of(expires_ms), stale: Vec::new() }
    }

    /// Notes what `image` carries that no window in use needs any more, for the settle to remove. A gap in traffic
    /// leaves such attributes behind, since [`reserve`] only removes the ones that it can name.
    pub fn note_stale(&mut self, image: &Image) {
        let is_stale = |(attribute, value): &(Attribute, i64)| match *attribute {
            Attribute::Slot(slot) => slots::is_forgettable(slot, *value, self.at_ms),
            attribute => attribute.period().is_some_and(|(period, window)| period.is_stale(window, self.at_ms)),
        };
        self.stale = image.iter().filter(is_stale).map(|(attribute, _)| attribute).collect();
    }
}

/// The write that makes `reservation` under `policy`. With `reap`, a dead slot and the count that was seen in it, the
/// same write also frees that slot.
///
/// The caller has refused charges that are [`too_large`](super::too_large).
pub fn reserve(policy: &Policy, reservation: &Reservation, reap: Option<(u64, u64)>) -> Write {
    let Reservation { charge, at_ms, slot, .. } = reservation;
    let reaped = reap.map_or(0, |(_, count)| count);
    let mut write = Write {
        conditions: Vec::with_capacity(2 * EPOCHS as usize + 5),
        updates: Vec::with_capacity(4 * EPOCHS as usize + 6),
    };
    write.conditions.push(Condition::AtMost(Attribute::Version, policy.version));
    bounds(policy, charge, *at_ms).for_each(|Bound { attribute, at_most, .. }| {
        let freed = if attribute == Attribute::InFlight { reaped } else { 0 };
        write.conditions.push(Condition::AtMost(attribute, at_most + freed));
    });

    write.updates.push(Update::Set(Attribute::Version, policy.version));
    write.updates.push(Update::Add(Attribute::InFlight, signed(charge.requests) - signed(reaped)));
    write.updates.push(Update::Add(Attribute::Slot(*slot), signed(charge.requests)));
    if let Some((dead, count)) = reap {
        write.conditions.push(Condition::Equals(Attribute::Slot(dead), count));
        write.updates.push(Update::Remove(Attribute::Slot(dead)));
    }
    for limit in Limit::iter() {
        let amount = signed(charge.get(limit));
        write.updates.extend(limit.windows(*at_ms).map(|(_, counter)| Update::Add(counter, amount)));
        write.updates.extend(limit.ended(*at_ms).map(Update::Remove));
    }
    write
}

/// What an attribute may hold already so that a charge is admitted.
pub(super) struct Bound {
    pub limit: Limit,
    /// The value of the limit.
    pub value: u64,
    /// The number of the window; 0 for requests in flight.
    pub window: u64,
    pub attribute: Attribute,
    pub at_most: u64,
}

/// The bounds of all attributes that a limit of `policy` watches, for a charge at `at_ms`.
pub(super) fn bounds(policy: &Policy, charge: &Charge, at_ms: u64) -> impl Iterator<Item = Bound> {
    policy.limits.iter().flat_map(move |(limit, value)| {
        let amount = charge.get(limit);
        let bound = move |(window, attribute)| {
            let at_most = room(policy.cap(limit, value, window, at_ms), amount);
            Bound { limit, value, window, attribute, at_most }
        };
        let in_flight = limit.period().is_none().then_some((0, Attribute::InFlight));
        limit.windows(at_ms).chain(in_flight).map(bound)
    })
}

/// An amount as a counter takes it.
pub(super) fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
