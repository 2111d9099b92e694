//! GCRA (generic cell rate algorithm) on conditional writes. For each limit, the item holds the
//! time up to which its credit is used. A write must set the time of a full bucket, but add to the
//! time of any other bucket, and an expression cannot choose the later of two times. So the writer
//! predicts the state of the bucket from the last known image of the item. A wrong prediction costs
//! a write, and its failure returns the current image.

use spillway::quota::{
    Attribute, Charge, Condition, Image, Limit, Policy, RefusedLimit, Reservation, Settled, Update, Write,
};

use super::{Rate, Snapshot, difference, rates};

/// Length of a full bucket.
pub const BURST_US: u64 = 10_000_000;

/// Extra time for which an idle bucket may be added to: twice the clock skew.
const SLACK_US: u64 = 200_000;

pub fn reserve(policy: &Policy, reservation: &Reservation, known: Option<Snapshot<'_>>) -> Write {
    let now_us = reservation.at.as_ms() * 1_000;
    let mut write = Write::default();
    for rate in rates(policy, &reservation.charge) {
        let used_until = attribute(rate.limit);
        let cost_us = cost_us(rate.per_minute, rate.amount);
        if known.is_none_or(|snapshot| is_full(snapshot, used_until, now_us)) {
            write.conditions.push(Condition::AtMost(used_until, now_us - BURST_US));
            write.updates.push(Update::Set(used_until, now_us - BURST_US + cost_us));
        } else {
            write.conditions.push(Condition::AtLeast(used_until, now_us - BURST_US - SLACK_US));
            write.conditions.push(Condition::AtMost(used_until, now_us - cost_us));
            write.updates.push(Update::Add(used_until, cost_us as i64));
        }
    }
    write
}

/// Whether the bucket is probably full now: it has had the time to fill, and at most half of it was
/// used in the snapshot. A bucket with more use has probably been used since.
fn is_full(snapshot: Snapshot<'_>, used_until: Attribute, now_us: u64) -> bool {
    let used_until_us = snapshot.image.get(used_until);
    used_until_us <= now_us - BURST_US && used_until_us <= snapshot.at_ms * 1_000 - BURST_US / 2
}

pub fn refused(policy: &Policy, charge: &Charge, image: &Image, at_ms: u64) -> Vec<RefusedLimit> {
    let late_us = |rate: &Rate| {
        let used_us = image.get(attribute(rate.limit)) + cost_us(rate.per_minute, rate.amount);
        used_us.saturating_sub(at_ms * 1_000)
    };
    let refused = |rate: Rate| Some(late_us(&rate)).filter(|late| *late > 0).map(|late| rate.refused(late / 1_000));
    rates(policy, charge).filter_map(refused).collect()
}

pub fn settle(policy: &Policy, reservation: &Reservation, settled: &Settled) -> Write {
    let more = difference(reservation, settled);
    let mut write = Write::default();
    for rate in rates(policy, &reservation.charge) {
        let amount = more.iter().find(|(limit, _)| *limit == rate.limit).map_or(0, |(_, amount)| *amount);
        let by = cost_us(rate.per_minute, amount.unsigned_abs()) as i64 * amount.signum();
        if by != 0 {
            write.updates.push(Update::Add(attribute(rate.limit), by));
        }
    }
    write
}

fn attribute(limit: Limit) -> Attribute {
    if limit == Limit::RequestsPerMinute { Attribute::Requests(0) } else { Attribute::Tokens(0) }
}

fn cost_us(per_minute: u64, amount: u64) -> u64 {
    amount * 60_000_000 / per_minute
}
