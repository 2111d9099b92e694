//! Ring of in-flight slots: running requests, counted by the epoch in which their reservations
//! expire.

use super::{Attribute, Condition, Image, Update, Write, reserve::signed};
use crate::units::{Millis, UnixMs};

/// Slots that a reservation holds: however many calls of Bedrock a request makes, it is one request
/// in flight.
pub(super) const SLOTS_PER_REQUEST: u64 = 1;

/// Length of a slot's epoch.
const SLOT: Millis = Millis::from_s(15);

/// Time after the end of a slot until it counts as dead: twice [`MAX_CLOCK_SKEW`].
pub const REAP_MARGIN: Millis = Millis::from_ms(2 * MAX_CLOCK_SKEW.as_ms());

/// Maximum clock skew of a process that charges anything. The clock is compared with a time in
/// whole seconds, and may differ from it by one second.
pub const MAX_CLOCK_SKEW: Millis = Millis::from_s(2);

/// Time after its end until an empty slot may be removed.
const FORGET_AFTER: Millis = Millis::from_s(60);

/// Returns the slot of a reservation that expires at `expires_at`.
pub(super) fn slot_at(expires_at: UnixMs) -> u64 {
    expires_at / SLOT
}

/// Returns when `slot` ends.
fn ends_at(slot: u64) -> UnixMs {
    UnixMs::default() + SLOT * (slot + 1)
}

/// Returns whether the reservations of a slot are dead at `now`.
pub(super) fn is_dead(slot: u64, now: UnixMs) -> bool {
    ends_at(slot) + REAP_MARGIN <= now
}

/// Returns the dead slot with the most reservations, and their number.
pub fn reapable(image: &Image, now: UnixMs) -> Option<(u64, u64)> {
    dead_slots(image, now).max_by_key(|(_, count)| *count)
}

/// Returns the write that frees a dead slot that holds `count` reservations, and does nothing else.
pub fn free(slot: u64, count: u64) -> Write {
    Write {
        conditions: vec![Condition::Equals(Attribute::Slot(slot), count)],
        updates: vec![Update::Add(Attribute::InFlight, -signed(count)), Update::Remove(Attribute::Slot(slot))],
    }
}

/// Returns the number of requests that are in flight and not dead.
pub(super) fn live(image: &Image, now: UnixMs) -> u64 {
    let dead: u64 = dead_slots(image, now).map(|(_, count)| count).sum();
    image.get(Attribute::InFlight).saturating_sub(dead)
}

/// Returns whether a slot that holds `count` is empty and ended long ago.
pub(super) fn is_forgettable(slot: u64, count: i64, now: UnixMs) -> bool {
    count == 0 && ends_at(slot) + FORGET_AFTER <= now
}

/// Returns the time from `now` until the last live slot ends.
pub(super) fn resets_in(image: &Image, now: UnixMs) -> Millis {
    image
        .iter()
        .filter_map(|(attribute, value)| match attribute {
            Attribute::Slot(slot) if value > 0 => Some(ends_at(slot) - now),
            _ => None,
        })
        .max()
        .unwrap_or_default()
}

fn dead_slots(image: &Image, now: UnixMs) -> impl Iterator<Item = (u64, u64)> + '_ {
    image.iter().filter_map(move |(attribute, value)| match attribute {
        Attribute::Slot(slot) if value > 0 && is_dead(slot, now) => {
            u64::try_from(value).ok().map(|count| (slot, count))
        }
        _ => None,
    })
}
