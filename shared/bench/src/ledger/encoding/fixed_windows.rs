//! Fixed windows: a counter for each limit and minute of the clock.

use spillway::quota::{
    Attribute, Charge, Condition, Image, Limit, Policy, RefusedLimit, Reservation, Settled, Update, Write,
};

use super::{Rate, difference, rates};

const MINUTE_MS: u64 = 60_000;

pub fn reserve(policy: &Policy, reservation: &Reservation) -> Write {
    let mut write = Write::default();
    for rate in rates(policy, &reservation.charge) {
        let minute = reservation.at.as_ms() / MINUTE_MS;
        let counter = attribute(rate.limit, minute);
        write.conditions.push(Condition::AtMost(counter, rate.per_minute.saturating_sub(rate.amount)));
        write.updates.push(Update::Add(counter, rate.amount as i64));
        write.updates.push(Update::Remove(attribute(rate.limit, minute - 2)));
    }
    write
}

pub fn refused(policy: &Policy, charge: &Charge, image: &Image, at_ms: u64) -> Vec<RefusedLimit> {
    let held = |rate: &Rate| image.get(attribute(rate.limit, at_ms / MINUTE_MS));
    let is_over = |rate: &Rate| held(rate) + rate.amount > rate.per_minute;
    let refused = |rate: Rate| rate.refused(MINUTE_MS - at_ms % MINUTE_MS);
    rates(policy, charge).filter(is_over).map(refused).collect()
}

pub fn settle(reservation: &Reservation, settled: &Settled) -> Write {
    let minute = reservation.at.as_ms() / MINUTE_MS;
    let more = difference(reservation, settled).into_iter().filter(|(_, amount)| *amount != 0);
    let updates = more.map(|(limit, amount)| Update::Add(attribute(limit, minute), amount)).collect();
    Write { updates, ..Write::default() }
}

fn attribute(limit: Limit, minute: u64) -> Attribute {
    if limit == Limit::RequestsPerMinute { Attribute::Requests(minute) } else { Attribute::Tokens(minute) }
}
