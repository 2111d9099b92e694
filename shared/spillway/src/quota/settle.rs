//! Settlement: the write that replaces a reservation's estimate by the actual usage.

use super::{
    Attribute, Charge, Condition, Limit, Reservation, Update, Write,
    reserve::signed,
    slots::{self, SLOTS_PER_REQUEST},
    unreserved,
};
use crate::{outage::Outage, units::UnixMs, usage::Usage};

/// Actual cost of a request, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Final charge. It may exceed the reserve: the excess is charged without a condition.
    pub charge: Charge,
    /// Tokens that the model reported, for the lifetime totals; `None` if it reported none.
    pub usage: Option<Usage>,
    /// Requested output tokens that were not reserved, for the lifetime totals.
    pub regained_tokens: u64,
    /// The outage of a pool that the request has met, and the pool's number. The item passes it on
    /// to other processes.
    pub outage: Option<(u64, Outage)>,
}

impl Settled {
    /// Refunds the whole reservation, its request included, because the model was not called.
    pub fn refund() -> Self {
        Self::default()
    }

    /// Charges the most that `calls` calls can cost, because they may have been billed for an
    /// unknown amount.
    pub fn unknown(reservation: &Reservation, calls: u64) -> Self {
        Self { charge: Charge::ZERO.with_calls(reservation.charge.in_full(), calls), ..Self::default() }
    }
}

/// Returns the write that settles `reservation`. It takes effect at most once, because its
/// condition is the reservation's own slot.
pub fn settle(reservation: &Reservation, settled: &Settled, now: UnixMs) -> Write {
    let mut write = settle_reaped(reservation, settled, now);
    let held = signed(SLOTS_PER_REQUEST);
    write.conditions.push(Condition::AtLeast(Attribute::Slot(reservation.slot), SLOTS_PER_REQUEST));
    write.updates.push(Update::Add(Attribute::InFlight, -held));
    write.updates.push(Update::Add(Attribute::Slot(reservation.slot), -held));
    write
}

/// Returns the write that settles a `reservation` whose slot has been reaped.
pub fn settle_reaped(reservation: &Reservation, settled: &Settled, now: UnixMs) -> Write {
    let mut write = Write::default();
    for limit in Limit::iter() {
        let correction = signed(settled.charge.get(limit)) - signed(reservation.charge.get(limit));
        let period = limit.windows_period(reservation.carries_over);
        let Some(period) = period.filter(|_| correction != 0) else { continue };
        let oldest = period.oldest_corrected(now);
        let corrected = limit.windows(reservation.carries_over, reservation.at).filter(|(window, _)| *window >= oldest);
        write.updates.extend(corrected.map(|(_, counter)| Update::Add(counter, correction)));
    }
    write.updates.extend(unreserved::release(reservation, now));
    let outage = settled.outage.map(|(pool, outage)| Update::Set(Attribute::Outage(pool), outage.to_number()));
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
    let is_set = |stale: &Attribute| outage.is_some_and(|update| update.attribute() == *stale);
    let stale = reservation.stale.iter().filter(|stale| !is_set(stale));
    write.updates.extend(stale.map(|stale| Update::Remove(*stale)));
    write.updates.extend(outage);
    write
}

impl Reservation {
    /// Returns whether the slot may have been reaped at `now`. As long as it cannot have been, a
    /// settlement that does not find the slot has already taken effect.
    pub fn is_dead(&self, now: UnixMs) -> bool {
        slots::is_dead(self.slot, now)
    }
}
