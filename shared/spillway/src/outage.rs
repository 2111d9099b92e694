//! Outages of pools: why a pool is not called, and until when.

use crate::units::{Millis, UnixMs};

/// Reason why a pool is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageCause {
    /// The quota of tokens per day is used up.
    DailyQuota,
    /// Bedrock does not let the broker use the model, or the model does not exist.
    Denied,
    /// No connection: the name is unknown, or the connection is refused or not made in time.
    Unreachable,
    /// Bedrock answered with a server error.
    Error,
    /// No byte of an answer came in time.
    Silent,
    /// A connection broke, or answers could not be used.
    Broken,
}

impl OutageCause {
    const ALL: [Self; 6] = [Self::DailyQuota, Self::Denied, Self::Unreachable, Self::Error, Self::Silent, Self::Broken];

    /// Name in events, headers and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::DailyQuota => "daily_quota",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::Error => "error",
            Self::Silent => "silent",
            Self::Broken => "broken",
        }
    }

    /// Whether a call to a pool with this outage costs its caller much time, or may be billed. Such
    /// a pool is probed by a call that no caller waits for.
    pub fn is_expensive(self) -> bool {
        matches!(self, Self::Unreachable | Self::Silent | Self::Broken)
    }

    /// Whether a pool with this outage may be called if there is no other pool: the call may
    /// succeed, and a failure costs little time.
    pub fn is_last_resort(self) -> bool {
        matches!(self, Self::Denied | Self::Error | Self::Broken)
    }

    /// Length of the first outage in a row.
    fn first_length(self) -> Millis {
        match self {
            Self::DailyQuota => DAILY_QUOTA_OUTAGE,
            Self::Error | Self::Broken => Millis::from_s(1),
            Self::Unreachable => Millis::from_s(2),
            Self::Denied | Self::Silent => Millis::from_s(5),
        }
    }

    fn number(self) -> u64 {
        (0..).zip(Self::ALL).find_map(|(number, cause)| (cause == self).then_some(number)).unwrap_or_default()
    }

    fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// What the failure of a call says about the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolFault {
    /// Nothing: the failure is the request's.
    None,
    /// The pool has no room for the call. It may have room for the next one.
    Throttled,
    /// The pool answered, but the answer cannot be used. That can be the fault of the request.
    Doubtful,
    /// The pool does not work, for this reason.
    Certain(OutageCause),
}

/// Length of the outage after a call that exceeds the quota of a day. Bedrock does not report when
/// that quota frees, so one call per outage finds out. A refused call costs nothing.
pub const DAILY_QUOTA_OUTAGE: Millis = Millis::from_s(300);

/// Maximum length of other outages, so that a pool that works again is used within half a minute.
pub const MAX_OUTAGE: Millis = Millis::from_s(20);

/// Number of doublings after which an outage has its maximum length, whatever the cause.
const MAX_STREAK: u64 = 7;

/// A time in which a pool is not called. When it ends, one call probes the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Reason.
    pub cause: OutageCause,
    /// Number of outages in a row, this one included: at least 1.
    pub streak: u64,
    /// End of the outage.
    pub until: UnixMs,
}

impl Outage {
    /// The outage that begins at `now`, after `earlier` outages in a row. Each lasts twice as long
    /// as the one before. `jitter_percent` makes it longer, so that the processes do not all probe
    /// the pool at the same time.
    pub fn after(earlier: u64, cause: OutageCause, now: UnixMs, jitter_percent: u64) -> Self {
        let doublings = earlier.min(MAX_STREAK);
        let first = cause.first_length();
        let length = (first * (1 << doublings)).min(MAX_OUTAGE.max(first));
        // Only one call of a process asks whether a daily quota is free again.
        let jitter_percent = if cause == OutageCause::DailyQuota { 0 } else { jitter_percent };
        Self { cause, streak: doublings + 1, until: now + length + length * jitter_percent / 100 }
    }

    /// Returns the outage as a number for a ledger item. A later end is a larger number.
    pub fn to_number(self) -> u64 {
        self.until.as_ms() * SCALE + self.streak.min(STREAKS - 1) * CAUSES + self.cause.number()
    }

    /// Returns the outage with this number; `None` if it has none.
    pub fn from_number(number: u64) -> Option<Self> {
        let cause = OutageCause::from_number(number % CAUSES)?;
        let streak = number % SCALE / CAUSES;
        (streak > 0).then_some(Self { cause, streak, until: UnixMs::from_ms(number / SCALE) })
    }

    /// Returns when an outage with this number ends, in milliseconds since 1970.
    pub fn end_in_number(number: u64) -> UnixMs {
        UnixMs::from_ms(number / SCALE)
    }
}

/// Decimal places of the cause and of the streak in the number of an outage.
const CAUSES: u64 = 10;
const STREAKS: u64 = 10;
const SCALE: u64 = CAUSES * STREAKS;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_000);

    fn cause() -> impl Strategy<Value = OutageCause> {
        proptest::sample::select(OutageCause::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn an_outage_survives_its_number(cause in cause(), earlier in 0_u64..100, jitter in 0_u64..=25) {
            let outage = Outage::after(earlier, cause, NOW, jitter);
            prop_assert_eq!(Outage::from_number(outage.to_number()), Some(outage));
            prop_assert_eq!(Outage::end_in_number(outage.to_number()), outage.until);
        }

        #[test]
        fn any_number_is_an_outage_or_none(number: u64) {
            let read = Outage::from_number(number);
            prop_assert!(read.is_none_or(|outage| outage.to_number() == number));
        }

        #[test]
        fn a_pool_that_works_again_is_probed_within_half_a_minute(
            cause in cause(), earlier in 0_u64..100, jitter in 0_u64..=25,
        ) {
            let length = Outage::after(earlier, cause, NOW, jitter).until - NOW;
            prop_assert!(cause == OutageCause::DailyQuota || length <= Millis::from_s(25), "{}", length);
        }
    }

    #[test]
    fn each_outage_in_a_row_lasts_twice_as_long_up_to_the_maximum() {
        let lengths_s = |cause| {
            [0, 1, 2, 3, 4, 5, 6, 90].map(|earlier| (Outage::after(earlier, cause, NOW, 0).until - NOW).as_ms() / 1_000)
        };
        assert_eq!(lengths_s(OutageCause::Error), [1, 2, 4, 8, 16, 20, 20, 20]);
        assert_eq!(lengths_s(OutageCause::Unreachable), [2, 4, 8, 16, 20, 20, 20, 20]);
        assert_eq!(lengths_s(OutageCause::Silent), [5, 10, 20, 20, 20, 20, 20, 20]);
        assert_eq!(lengths_s(OutageCause::DailyQuota), [300; 8]);
    }
}
