//! GCRA on conditional writes. For each limit the item holds the moment up to which its credit is used. A bucket that is
//! full must be set and any other added to, and no expression can say "whichever is later": so the writer predicts which
//! it is from what it last saw of the item, and a wrong guess costs a write, whose failure tells the truth.

use spillway::quota::{
    Attribute, Charge, Condition, Image, Limit, Policy, RefusedLimit, Reservation, Settled, Update, Write,
};

use super::{Rate, Sight, difference, rates};

/// The length of a full bucket.
pub const BURST_US: u64 = 10_000_000;

/// How much longer an idle bucket may still be added to: twice the skew of the clocks.
const SLACK_US: u64 = 200_000;

pub fn reserve(policy: &Policy, reservation: &Reservation, known: Option<Sight<'_>>) -> Write {
    let now_us = reservation.at_ms * 1_000;
    let mut write = Write::default();
    for rate in rates(policy, &reservation.charge) {
        let used_until = attribute(rate.limit);
        let cost_us = cost_us(rate.per_minute, rate.amount);
        if known.is_none_or(|sight| is_full(sight, used_until, now_us)) {
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

/// Whether the bucket is full now, as far as `sight` tells: it has had the time to fill, and was not more than half used
/// when it was seen. One that was will have been used since.
fn is_full(sight: Sight<'_>, used_until: Attribute, now_us: u64) -> bool {
    let used_until_us = sight.image.get(used_until);
    used_until_us <= now_us - BURST_US && used_until_us <= sight.at_ms * 1_000 - BURST_US / 2
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
