//! The product's count of requests in flight, for the alternative encodings.

use spillway::{
    quota::{Attribute, Condition, Image, Limit, Policy, RefusedLimit, Reservation, Update, Write},
    units::Millis,
};

pub fn reserve(write: &mut Write, policy: &Policy, reservation: &Reservation, reap: Option<(u64, u64)>) {
    let reaped = reap.map_or(0, |(_, count)| count);
    if let Some(limit) = policy.limits.in_flight {
        write.conditions.push(Condition::AtMost(Attribute::InFlight, limit - 1 + reaped));
    }
    write.updates.push(Update::Add(Attribute::InFlight, 1 - reaped as i64));
    write.updates.push(Update::Add(Attribute::Slot(reservation.slot), 1));
    if let Some((slot, count)) = reap {
        write.conditions.push(Condition::Equals(Attribute::Slot(slot), count));
        write.updates.push(Update::Remove(Attribute::Slot(slot)));
    }
}

pub fn refused(policy: &Policy, image: &Image) -> Option<RefusedLimit> {
    let cap = policy.limits.in_flight?;
    let is_full = image.get(Attribute::InFlight) >= cap;
    is_full.then_some(RefusedLimit { limit: Limit::InFlight, cap, retry_after: Millis::from_ms(200) })
}

pub fn settle(write: &mut Write, reservation: &Reservation) {
    write.conditions.push(Condition::AtLeast(Attribute::Slot(reservation.slot), 1));
    write.updates.push(Update::Add(Attribute::InFlight, -1));
    write.updates.push(Update::Add(Attribute::Slot(reservation.slot), -1));
    write.updates.extend(reservation.stale.iter().map(|stale| Update::Remove(*stale)));
}
