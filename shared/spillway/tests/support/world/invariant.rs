//! Invariants of the ledger.

use std::fmt;

/// An invariant that a program could violate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At an admission, no window holds more than its cap, except that a single request may be
    /// larger.
    WindowWithinCap,
    /// No 60 seconds, aligned or not, hold more than the bound that [`super::judge`] states.
    MinuteWithinBound,
    /// The reservations of a UTC day or month never exceed its limit.
    TotalWithinLimit,
    /// Whatever the running requests use, no window of a limit on tokens will hold more than the
    /// limit and the bound on unreserved tokens, which is never more than the limit.
    UseWithinTwiceLimit,
    /// No counter is below zero.
    NothingNegative,
    /// The requests in flight never exceed the limit, on any item and under any version of the
    /// limits.
    LiveWithinLimit,
    /// The requests in flight of an item are the sum of its slots.
    CountIsSlots,
    /// A refused write changes nothing.
    RefusalChangesNothing,
    /// An item admits nothing under limits older than it has seen.
    NoStaleAdmission,
    /// The counters are the sums of the list of charges.
    CountersAreTheList,
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}
