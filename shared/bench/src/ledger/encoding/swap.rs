//! Compare and swap: a token bucket with a version, which is read, computed, and written unless the
//! version has changed. Levels are in millionths of a token, so that the refill of a millisecond is
//! not lost.

use spillway::quota::{
    Attribute, Charge, Condition, Image, Limit, Policy, RefusedLimit, Reservation, Settled, Update, Write,
};

use super::{Rate, Snapshot, difference, gcra::BURST_US, rates};

const UNIT: u64 = 1_000_000;

/// Time when the levels were last computed, in milliseconds.
const AT_MS: Attribute = Attribute::Requests(1);

pub fn reserve(policy: &Policy, reservation: &Reservation, known: Option<Snapshot<'_>>) -> Write {
    let empty = Image::default();
    let image = known.map_or(&empty, |snapshot| snapshot.image);
    let version = image.get(Attribute::Version);
    let mut write = Write::default();
    write.conditions.push(match version {
        0 => Condition::AtMost(Attribute::Version, 0),
        version => Condition::Equals(Attribute::Version, version),
    });
    write.updates.push(Update::Set(Attribute::Version, version + 1));
    write.updates.push(Update::Set(AT_MS, reservation.at.as_ms().max(image.get(AT_MS))));
    for rate in rates(policy, &reservation.charge) {
        let left = level(&rate, image, reservation.at.as_ms()).saturating_sub(rate.amount * UNIT);
        write.updates.push(Update::Set(attribute(rate.limit), left));
    }
    write
}

pub fn refused(policy: &Policy, charge: &Charge, image: &Image, at_ms: u64) -> Vec<RefusedLimit> {
    let missing = |rate: &Rate| (rate.amount * UNIT).saturating_sub(level(rate, image, at_ms));
    let refused = |rate: Rate| {
        let wait_ms = missing(&rate) * 60_000 / (rate.per_minute * UNIT);
        (missing(&rate) > 0).then(|| rate.refused(wait_ms))
    };
    rates(policy, charge).filter_map(refused).collect()
}

/// Settles a reservation. A settlement has no condition on the levels, so it adds to them at any
/// version. It must change the version, or else a writer that has read earlier would overwrite the
/// addition.
pub fn settle(reservation: &Reservation, settled: &Settled) -> Write {
    let mut updates = vec![Update::Add(Attribute::Version, 1)];
    let more = difference(reservation, settled).into_iter().filter(|(_, amount)| *amount != 0);
    updates.extend(more.map(|(limit, amount)| Update::Add(attribute(limit), -amount * UNIT as i64)));
    Write { updates, ..Write::default() }
}

/// Returns the level of the bucket at `at_ms`, in millionths.
fn level(rate: &Rate, image: &Image, at_ms: u64) -> u64 {
    let full = rate.per_minute * BURST_US / 60;
    if image.get(Attribute::Version) == 0 {
        return full;
    }
    let refill = at_ms.saturating_sub(image.get(AT_MS)) * rate.per_minute * UNIT / 60_000;
    (image.get(attribute(rate.limit)) + refill).min(full)
}

fn attribute(limit: Limit) -> Attribute {
    if limit == Limit::RequestsPerMinute { Attribute::Requests(0) } else { Attribute::Tokens(0) }
}
