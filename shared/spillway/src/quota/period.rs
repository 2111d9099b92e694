//! Periods of limits, and the windows that charges are counted in.

use std::ops::Range;

use super::{CARRY_EPOCH, EPOCH, EPOCHS};
use crate::units::{Millis, UnixMs};

/// Length of a UTC day.
const DAY: Millis = Millis::from_s(24 * 60 * 60);

/// Time for which a charge counts towards a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// A minute, in overlapping windows. Each window starts with an epoch and is [`EPOCHS`] epochs
    /// long. Its number is that of its first epoch.
    Minute,
    /// Five minutes, in overlapping windows. Each window is [`EPOCHS`] epochs of [`CARRY_EPOCH`]
    /// long. Its number is that of its first epoch.
    FiveMinutes,
    /// A UTC day. Days are numbered from 1970.
    Day,
    /// A UTC calendar month. Months are numbered from January of year 0.
    Month,
}

impl Period {
    /// Returns the windows that contain `at`, the oldest first. A charge at that time adds to each
    /// of them.
    pub(super) fn windows(self, at: UnixMs) -> Range<u64> {
        let current = match self {
            Self::Minute => return overlapping(at / EPOCH),
            Self::FiveMinutes => return overlapping(at / CARRY_EPOCH),
            Self::Day => day(at),
            Self::Month => month(at),
        };
        current..current + 1
    }

    /// Returns when window `window` begins.
    pub(super) fn begins_at(self, window: u64) -> UnixMs {
        match self {
            Self::Minute => UnixMs::default() + EPOCH * window,
            Self::FiveMinutes => UnixMs::default() + CARRY_EPOCH * window,
            Self::Day => UnixMs::default() + DAY * window,
            Self::Month => month_begins_at(window),
        }
    }

    /// Returns when window `window` ends.
    pub(super) fn ends_at(self, window: u64) -> UnixMs {
        match self {
            Self::Minute | Self::FiveMinutes => self.begins_at(window + EPOCHS),
            Self::Day | Self::Month => self.begins_at(window + 1),
        }
    }

    /// Returns the oldest window that a settlement at `now` still corrects. Days and months are
    /// kept for one more period. An overlapping window that has ended may have been removed, and a
    /// refund would leave it negative.
    pub(super) fn oldest_corrected(self, now: UnixMs) -> u64 {
        let current = self.windows(now).start;
        match self {
            Self::Minute | Self::FiveMinutes => current,
            Self::Day | Self::Month => current.saturating_sub(1),
        }
    }

    /// Returns whether window `window` is out of use at `now` for every process, even with the
    /// maximum clock skew.
    pub(super) fn is_stale(self, window: u64, now: UnixMs) -> bool {
        match self {
            Self::Minute | Self::FiveMinutes => window < self.ended(now).start,
            Self::Day | Self::Month => window < self.oldest_corrected(now),
        }
    }

    /// Returns the windows that a charge at `now` removes because they have ended. The last window
    /// that ended stays, for writers whose clocks are behind.
    pub(super) fn ended(self, now: UnixMs) -> Range<u64> {
        match self {
            Self::Minute => ended(now / EPOCH),
            Self::FiveMinutes => ended(now / CARRY_EPOCH),
            Self::Day | Self::Month => 0..0,
        }
    }

    /// Returns the length of a window in seconds; `None` if windows differ in length.
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::Minute => Some((EPOCH * EPOCHS).as_s_rounded_up()),
            Self::FiveMinutes => Some((CARRY_EPOCH * EPOCHS).as_s_rounded_up()),
            Self::Day => Some(DAY.as_s_rounded_up()),
            Self::Month => None,
        }
    }
}

/// Returns the windows in use during an epoch, the oldest first.
fn overlapping(epoch: u64) -> Range<u64> {
    (epoch + 1).saturating_sub(EPOCHS)..epoch + 1
}

/// Returns the windows that are removed during an epoch.
fn ended(epoch: u64) -> Range<u64> {
    epoch.saturating_sub(2 * EPOCHS)..epoch.saturating_sub(EPOCHS)
}

/// Returns the UTC day that contains `at`, counted from 1970.
pub(super) fn day(at: UnixMs) -> u64 {
    at / DAY
}

/// Returns the UTC month that contains `at`, counted from January of year 0.
fn month(at: UnixMs) -> u64 {
    let seconds = i64::try_from(at.as_s()).unwrap_or(i64::MAX);
    let date = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH).date();
    u64::try_from(date.year()).unwrap_or(0) * 12 + u64::from(u8::from(date.month())) - 1
}

fn month_begins_at(month: u64) -> UnixMs {
    let year = i32::try_from(month / 12).unwrap_or(i32::MAX);
    let number = u8::try_from(month % 12 + 1).unwrap_or(1);
    let first = time::Month::try_from(number).and_then(|month| time::Date::from_calendar_date(year, month, 1));
    let seconds = first.ok().and_then(|date| u64::try_from(date.midnight().assume_utc().unix_timestamp()).ok());
    UnixMs::default() + Millis::from_s(seconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-01T00:00:00Z.
    const MARCH: UnixMs = UnixMs::from_ms(1_772_323_200_000);

    #[test]
    fn the_windows_of_a_moment_contain_it() {
        for at in [MARCH - Millis::from_ms(1), MARCH] {
            for period in [Period::Minute, Period::FiveMinutes, Period::Day, Period::Month] {
                for window in period.windows(at) {
                    assert!(period.begins_at(window) <= at && at < period.ends_at(window), "{period:?}");
                    assert!(window >= period.oldest_corrected(at) && !period.is_stale(window, at), "{period:?}");
                }
            }
        }
    }

    #[test]
    fn an_overlapping_window_that_has_ended_is_not_corrected() {
        for period in [Period::Minute, Period::FiveMinutes] {
            let ended: Vec<u64> = period.ended(MARCH).collect();
            assert_eq!(ended.len() as u64, EPOCHS);
            assert!(ended.iter().all(|window| period.ends_at(*window) < MARCH));
            assert!(ended.iter().all(|window| *window < period.oldest_corrected(MARCH)));
        }
    }
}
