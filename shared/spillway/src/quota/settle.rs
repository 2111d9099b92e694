//! The write that replaces an estimate by what really happened.

use super::{Attribute, Charge, Condition, Limit, Reservation, Update, Write, reserve::signed, slots};
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
    let mut write = Write::default();
    for limit in Limit::iter() {
        let correction = signed(settled.charge.get(limit)) - signed(reservation.charge.get(limit));
        let Some(period) = limit.period().filter(|_| correction != 0) else { continue };
        let oldest = period.oldest_corrected(now_ms);
        let corrected = limit.windows(reservation.at_ms).filter(|(window, _)| *window >= oldest);
        write.updates.extend(corrected.map(|(_, counter)| Update::Add(counter, correction)));
    }
    if let Some(usage) = settled.usage {
        let totals = [
            (Attribute::SettledRequests, 1),
            (Attribute::SettledInput, usage.all_input_tokens()),
            (Attribute::SettledOutput, usage.output_tokens),
            (Attribute::SettledCost, settled.charge.cost_microusd),
            (Attribute::Regained, settled.regained_tokens),
        ];
        let added = totals.into_iter().filter(|(_, amount)| *amount > 0);
        write.updates.extend(added.map(|(total, amount)| Update::Add(total, signed(amount))));
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
