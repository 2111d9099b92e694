//! The write that replaces an estimate by what really happened.

use super::{
    Attribute, Charge, Condition, Reservation, Update, Write,
    reserve::{day, epoch, month, signed, windows},
    slots,
};
use crate::usage::Usage;

/// What really happened, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// What the request cost in the end. It may exceed the reserve: what is owed is charged without asking.
    pub charge: Charge,
    /// The tokens that the model reported, for the lifetime account; `None` when it reported none.
    pub usage: Option<Usage>,
    /// Output tokens that were asked for and not reserved, for the lifetime account.
    pub regained_tokens: u64,
}

impl Settled {
    /// Nothing happened: the whole reservation is given back, its request included.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Nobody knows what happened: the reserve stays charged, since the model may have been billed.
    pub fn unknown(reservation: &Reservation) -> Self {
        Self { charge: reservation.charge, ..Self::default() }
    }
}

/// The write that settles `reservation`. It takes effect at most once: its condition is the reservation's own slot.
pub fn settle(reservation: &Reservation, settled: &Settled, now_ms: u64) -> Write {
    let mut write = settle_reaped(reservation, settled, now_ms);
    let running = signed(reservation.charge.requests);
    write.conditions.push(Condition::AtLeast(Attribute::Slot(reservation.slot), reservation.charge.requests));
    write.updates.push(Update::Add(Attribute::InFlight, -running));
    write.updates.push(Update::Add(Attribute::Slot(reservation.slot), -running));
    write
}

/// The same without the slot, for a reservation whose slot was reaped in the meantime.
pub fn settle_reaped(reservation: &Reservation, settled: &Settled, now_ms: u64) -> Write {
    let (reserved, actual) = (reservation.charge, settled.charge);
    let requests = signed(actual.requests) - signed(reserved.requests);
    let minute_tokens = signed(actual.minute_tokens) - signed(reserved.minute_tokens);
    let day_tokens = signed(actual.day_tokens) - signed(reserved.day_tokens);
    let cost_microusd = signed(actual.cost_microusd) - signed(reserved.cost_microusd);
    let mut write = Write::default();
    let mut add = |attribute, by| {
        if by != 0 {
            write.updates.push(Update::Add(attribute, by));
        }
    };
    // A window that has gone out of use may have been removed: a refund would leave it negative.
    let oldest_alive = *windows(epoch(now_ms)).start();
    for start in windows(epoch(reservation.at_ms)).filter(|start| *start >= oldest_alive) {
        add(Attribute::Requests(start), requests);
        add(Attribute::Tokens(start), minute_tokens);
    }
    if day(reservation.at_ms) + 1 >= day(now_ms) {
        add(Attribute::Day(day(reservation.at_ms)), day_tokens);
    }
    if month(reservation.at_ms) + 1 >= month(now_ms) {
        add(Attribute::Month(month(reservation.at_ms)), cost_microusd);
    }
    if let Some(usage) = settled.usage {
        add(Attribute::SettledRequests, 1);
        add(Attribute::SettledInput, signed(usage.all_input_tokens()));
        add(Attribute::SettledOutput, signed(usage.output_tokens));
        add(Attribute::SettledCost, signed(actual.cost_microusd));
        add(Attribute::Regained, signed(settled.regained_tokens));
    }
    write.updates.extend(reservation.stale.iter().map(|stale| Update::Remove(*stale)));
    write
}

impl Reservation {
    /// Whether its slot may have been reaped at `now_ms`. If not, a settle that finds no slot has already happened.
    pub fn is_dead(&self, now_ms: u64) -> bool {
        slots::is_dead(self.slot, now_ms)
    }
}
