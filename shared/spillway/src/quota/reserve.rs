//! The write that charges all limits at once.

use super::{Attribute, Charge, Condition, EPOCH_MS, EPOCHS, Image, Limits, Policy, Update, Write, caps::room, slots};

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
        let oldest_epoch = epoch(self.at_ms).saturating_sub(2 * EPOCHS);
        let (oldest_day, oldest_month) = (day(self.at_ms).saturating_sub(1), month(self.at_ms).saturating_sub(1));
        let is_stale = |(attribute, value): &(Attribute, i64)| match *attribute {
            Attribute::Requests(start) | Attribute::Tokens(start) => start < oldest_epoch,
            Attribute::Day(at) => at < oldest_day,
            Attribute::Month(at) => at < oldest_month,
            slot => slots::forgettable(slot, *value, self.at_ms),
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
    let now = epoch(*at_ms);
    let reaped = reap.map_or(0, |(_, count)| count);
    let mut write = Write {
        conditions: Vec::with_capacity(2 * EPOCHS as usize + 5),
        updates: Vec::with_capacity(4 * EPOCHS as usize + 6),
    };
    conditions(policy, charge, *at_ms, reaped, &mut write.conditions);

    write.updates.push(Update::Set(Attribute::Version, policy.version));
    write.updates.push(Update::Add(Attribute::InFlight, signed(charge.requests) - signed(reaped)));
    write.updates.push(Update::Add(Attribute::Slot(*slot), signed(charge.requests)));
    if let Some((dead, count)) = reap {
        write.conditions.push(Condition::Equals(Attribute::Slot(dead), count));
        write.updates.push(Update::Remove(Attribute::Slot(dead)));
    }
    for start in windows(now) {
        write.updates.push(Update::Add(Attribute::Requests(start), signed(charge.requests)));
        write.updates.push(Update::Add(Attribute::Tokens(start), signed(charge.minute_tokens)));
    }
    write.updates.push(Update::Add(Attribute::Day(day(*at_ms)), signed(charge.day_tokens)));
    write.updates.push(Update::Add(Attribute::Month(month(*at_ms)), signed(charge.cost_microusd)));
    // One expired epoch stays, for writers whose clocks are behind.
    for start in now.saturating_sub(2 * EPOCHS)..now.saturating_sub(EPOCHS) {
        write.updates.push(Update::Remove(Attribute::Requests(start)));
        write.updates.push(Update::Remove(Attribute::Tokens(start)));
    }
    write
}

fn conditions(policy: &Policy, charge: &Charge, at_ms: u64, reaped: u64, conditions: &mut Vec<Condition>) {
    conditions.push(Condition::AtMost(Attribute::Version, policy.version));
    for (attribute, bound) in bounds(policy, charge, at_ms) {
        let bound = if attribute == Attribute::InFlight { bound + reaped } else { bound };
        conditions.push(Condition::AtMost(attribute, bound));
    }
}

/// For each attribute that a limit watches, what it may hold already so that `charge` is admitted.
pub(super) fn bounds(policy: &Policy, charge: &Charge, at_ms: u64) -> Vec<(Attribute, u64)> {
    let Limits { requests_per_minute, tokens_per_minute, tokens_per_day, in_flight, microusd_per_month } =
        policy.limits;
    let now = epoch(at_ms);
    let mut bounds = Vec::with_capacity(2 * EPOCHS as usize + 3);
    if let Some(limit) = in_flight {
        bounds.push((Attribute::InFlight, policy.in_flight_cap(limit).saturating_sub(charge.requests)));
    }
    for start in windows(now) {
        let age = now - start + 1;
        if let Some(limit) = requests_per_minute {
            bounds.push((Attribute::Requests(start), room(policy.requests_cap(limit, age), charge.requests)));
        }
        if let Some(limit) = tokens_per_minute {
            bounds.push((Attribute::Tokens(start), room(policy.tokens_cap(limit, age), charge.minute_tokens)));
        }
    }
    if let Some(limit) = tokens_per_day {
        bounds.push((Attribute::Day(day(at_ms)), room(policy.total_cap(limit), charge.day_tokens)));
    }
    if let Some(limit) = microusd_per_month {
        bounds.push((Attribute::Month(month(at_ms)), room(policy.total_cap(limit), charge.cost_microusd)));
    }
    bounds
}

/// The epoch of a moment.
pub(super) fn epoch(at_ms: u64) -> u64 {
    at_ms / EPOCH_MS
}

/// Starts of the windows that contain the epoch `now`, oldest first.
pub(super) fn windows(now: u64) -> std::ops::RangeInclusive<u64> {
    (now + 1).saturating_sub(EPOCHS)..=now
}

/// The UTC day of a moment, counted from 1970.
pub(super) fn day(at_ms: u64) -> u64 {
    at_ms / 86_400_000
}

/// The UTC month of a moment, counted from January of year 0.
pub(super) fn month(at_ms: u64) -> u64 {
    let date = date(at_ms);
    u64::try_from(date.year()).unwrap_or(0) * 12 + u64::from(u8::from(date.month())) - 1
}

/// The first millisecond after the month of `at_ms`.
pub(super) fn month_end_ms(at_ms: u64) -> u64 {
    let date = date(at_ms);
    let days_left = u64::from(date.month().length(date.year()) - date.day()) + 1;
    (day(at_ms) + days_left) * 86_400_000
}

fn date(at_ms: u64) -> time::Date {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH).date()
}

pub(super) fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
