//! The ring of in-flight slots: who is running, by the epoch in which the reservation expires.

use super::{Attribute, Condition, Image, Update, Write, reserve::signed};

/// Length of a slot epoch in milliseconds.
const SLOT_MS: u64 = 15_000;

/// How long after its end a slot counts as dead, in milliseconds: twice as long as the clock of a writer can be off
/// ([`MOST_SKEW_MS`]).
pub const REAP_MARGIN_MS: u64 = 2 * MOST_SKEW_MS;

/// How far the clock of a process that charges anything can be off, in milliseconds: it is compared with a time in whole
/// seconds, and allowed one.
pub const MOST_SKEW_MS: u64 = 2_000;

/// How long after its end an empty slot may be forgotten.
const FORGET_MS: u64 = 60_000;

/// The slot of a reservation that expires at `expires_ms`.
pub(super) fn slot_of(expires_ms: u64) -> u64 {
    expires_ms / SLOT_MS
}

/// Whether a slot's reservations are dead at `now_ms`.
pub(super) fn is_dead(slot: u64, now_ms: u64) -> bool {
    (slot + 1) * SLOT_MS + REAP_MARGIN_MS <= now_ms
}

/// The dead slot with the most reservations and how many those are, if any.
pub fn reapable(image: &Image, now_ms: u64) -> Option<(u64, u64)> {
    dead_slots(image, now_ms).max_by_key(|(_, count)| *count)
}

/// The write that frees a dead slot in which `count` reservations were seen, and does nothing else.
pub fn free(slot: u64, count: u64) -> Write {
    Write {
        conditions: vec![Condition::Equals(Attribute::Slot(slot), count)],
        updates: vec![Update::Add(Attribute::InFlight, -signed(count)), Update::Remove(Attribute::Slot(slot))],
    }
}

/// Requests really in flight: the count without what died.
pub(super) fn live(image: &Image, now_ms: u64) -> u64 {
    let dead: u64 = dead_slots(image, now_ms).map(|(_, count)| count).sum();
    image.get(Attribute::InFlight).saturating_sub(dead)
}

/// Whether a slot that holds `count` is empty and ended long ago.
pub(super) fn is_forgettable(slot: u64, count: i64, now_ms: u64) -> bool {
    count == 0 && (slot + 1) * SLOT_MS + FORGET_MS <= now_ms
}

/// When the last live slot ends, in milliseconds from now.
pub(super) fn reset_ms(image: &Image, now_ms: u64) -> u64 {
    image
        .iter()
        .filter_map(|(attribute, value)| match attribute {
            Attribute::Slot(slot) if value > 0 => Some(((slot + 1) * SLOT_MS).saturating_sub(now_ms)),
            _ => None,
        })
        .max()
        .unwrap_or(0)
}

fn dead_slots(image: &Image, now_ms: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    image.iter().filter_map(move |(attribute, value)| match attribute {
        Attribute::Slot(slot) if value > 0 && is_dead(slot, now_ms) => {
            u64::try_from(value).ok().map(|count| (slot, count))
        }
        _ => None,
    })
}
