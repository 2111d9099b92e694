//! How long a charge counts towards a limit, and the windows that it is counted in.

use std::ops::Range;

use super::{EPOCH_MS, EPOCHS};

/// Length of a UTC day in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// How long a charge counts towards a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// A minute, in overlapping windows: each starts with an epoch and is [`EPOCHS`] epochs long. A window is numbered
    /// by the epoch that it starts with.
    Minute,
    /// A UTC day. The days are numbered from 1970.
    Day,
    /// A UTC calendar month. The months are numbered from January of year 0.
    Month,
}

impl Period {
    /// The windows that contain the moment `at_ms`, the oldest first: a charge at that time adds to each of them.
    pub(super) fn windows(self, at_ms: u64) -> Range<u64> {
        let newest = match self {
            Self::Minute => return windows(epoch(at_ms)),
            Self::Day => at_ms / DAY_MS,
            Self::Month => month(at_ms),
        };
        newest..newest + 1
    }

    /// When window `window` begins, in milliseconds since 1970.
    pub(super) fn begins_ms(self, window: u64) -> u64 {
        match self {
            Self::Minute => window * EPOCH_MS,
            Self::Day => window * DAY_MS,
            Self::Month => month_begins_ms(window),
        }
    }

    /// When window `window` ends, in milliseconds since 1970.
    pub(super) fn ends_ms(self, window: u64) -> u64 {
        match self {
            Self::Minute => (window + EPOCHS) * EPOCH_MS,
            Self::Day | Self::Month => self.begins_ms(window + 1),
        }
    }

    /// The oldest window that a settlement at `now_ms` still corrects. A window of a minute that has ended may have been
    /// removed: a refund would leave it negative. Days and months are kept for one more.
    pub(super) fn oldest_corrected(self, now_ms: u64) -> u64 {
        let current = self.windows(now_ms).start;
        match self {
            Self::Minute => current,
            Self::Day | Self::Month => current.saturating_sub(1),
        }
    }

    /// Whether no process needs window `window` at `now_ms`, whatever its clock says.
    pub(super) fn is_stale(self, window: u64, now_ms: u64) -> bool {
        match self {
            Self::Minute => window < epoch(now_ms).saturating_sub(2 * EPOCHS),
            Self::Day | Self::Month => window < self.oldest_corrected(now_ms),
        }
    }

    /// Windows that have ended for every clock at `now_ms` and that traffic without a gap leaves behind. The last one that
    /// ended stays, for writers whose clocks are behind.
    pub(super) fn ended(self, now_ms: u64) -> Range<u64> {
        match self {
            Self::Minute => epoch(now_ms).saturating_sub(2 * EPOCHS)..epoch(now_ms).saturating_sub(EPOCHS),
            Self::Day | Self::Month => 0..0,
        }
    }

    /// The length of its windows in seconds, where all have the same.
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::Minute => Some(EPOCHS * EPOCH_MS / 1_000),
            Self::Day => Some(DAY_MS / 1_000),
            Self::Month => None,
        }
    }
}

/// The epoch of a moment.
pub(super) fn epoch(at_ms: u64) -> u64 {
    at_ms / EPOCH_MS
}

/// The UTC day of a moment, counted from 1970.
pub(super) fn day(at_ms: u64) -> u64 {
    at_ms / DAY_MS
}

/// Starts of the windows that contain the epoch `now`, oldest first.
fn windows(now: u64) -> Range<u64> {
    (now + 1).saturating_sub(EPOCHS)..now + 1
}

/// The UTC month of a moment, counted from January of year 0.
fn month(at_ms: u64) -> u64 {
    let seconds = i64::try_from(at_ms / 1_000).unwrap_or(i64::MAX);
    let date = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH).date();
    u64::try_from(date.year()).unwrap_or(0) * 12 + u64::from(u8::from(date.month())) - 1
}

fn month_begins_ms(month: u64) -> u64 {
    let year = i32::try_from(month / 12).unwrap_or(i32::MAX);
    let number = u8::try_from(month % 12 + 1).unwrap_or(1);
    let first = time::Month::try_from(number).and_then(|month| time::Date::from_calendar_date(year, month, 1));
    first.ok().and_then(|date| u64::try_from(date.midnight().assume_utc().unix_timestamp()).ok()).unwrap_or(0) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_contains_the_moments_from_its_beginning_to_its_end() {
        // 2026-02-28T23:59:59.999Z and the millisecond after it.
        for at_ms in [1_772_323_199_999, 1_772_323_200_000] {
            for period in [Period::Minute, Period::Day, Period::Month] {
                for window in period.windows(at_ms) {
                    assert!(period.begins_ms(window) <= at_ms && at_ms < period.ends_ms(window), "{period:?}");
                    assert!(window >= period.oldest_corrected(at_ms) && !period.is_stale(window, at_ms), "{period:?}");
                }
            }
        }
    }

    #[test]
    fn what_has_ended_is_not_corrected_any_more() {
        let at_ms = 1_772_323_200_000;
        let ended: Vec<u64> = Period::Minute.ended(at_ms).collect();
        assert_eq!(ended.len() as u64, EPOCHS);
        assert!(ended.iter().all(|window| Period::Minute.ends_ms(*window) < at_ms));
        assert!(ended.iter().all(|window| *window < Period::Minute.oldest_corrected(at_ms)));
    }
}
