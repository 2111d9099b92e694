//! What must never happen, by name.

use std::fmt;

/// A promise of the ledger that a program can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At an admission no window holds more than its cap, except that one request alone may be larger than it.
    WindowWithinCap,
    /// No 60 seconds, wherever they begin, hold more than the bound that [`super::judge`] states.
    MinuteWithinBound,
    /// A UTC day and a month are never exceeded by what was reserved.
    TotalWithinLimit,
    /// No counter is below zero.
    NothingNegative,
    /// No more requests run at once than may, on any item and under any version of the limits.
    LiveWithinLimit,
    /// The requests in flight of an item are the sum of its slots.
    CountIsSlots,
    /// A refused write changes nothing.
    RefusalChangesNothing,
    /// What an item knows to be old limits admits nothing.
    NoStaleAdmission,
    /// The counters are what the list of charges adds up to.
    CountersAreTheList,
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}
