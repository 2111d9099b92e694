//! Points in time and lengths of time, both in whole milliseconds.
//!
//! Arithmetic saturates: a sum beyond the largest value means "never", and a time that has passed
//! is zero milliseconds away.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Div, Mul, Rem, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, without leap seconds (POSIX.1-2024,
/// "Seconds Since the Epoch").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(u64);

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(u64);

impl UnixMs {
    /// A time that never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// The time that is `ms` milliseconds after the start of 1970.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the start of 1970.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the start of 1970.
    pub const fn as_s(self) -> u64 {
        self.0 / 1_000
    }
}

impl Millis {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// Longer than any length.
    pub const MAX: Self = Self(u64::MAX);

    /// A length of `ms` milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// A length of `s` seconds.
    pub const fn from_s(s: u64) -> Self {
        Self(s.saturating_mul(1_000))
    }

    /// The number of milliseconds.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The number of seconds, rounded up: a caller that waits for this time does not return too
    /// early.
    pub const fn as_s_rounded_up(self) -> u64 {
        self.0.div_ceil(1_000)
    }

    /// Whether it is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Add<Millis> for UnixMs {
    type Output = Self;

    fn add(self, length: Millis) -> Self {
        Self(self.0.saturating_add(length.0))
    }
}

impl AddAssign<Millis> for UnixMs {
    fn add_assign(&mut self, length: Millis) {
        *self = *self + length;
    }
}

impl Sub<Millis> for UnixMs {
    type Output = Self;

    fn sub(self, length: Millis) -> Self {
        Self(self.0.saturating_sub(length.0))
    }
}

/// The time from `earlier` to `self`; zero if `earlier` is later.
impl Sub for UnixMs {
    type Output = Millis;

    fn sub(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Self;

    fn add(self, length: Self) -> Self {
        Self(self.0.saturating_add(length.0))
    }
}

impl AddAssign for Millis {
    fn add_assign(&mut self, length: Self) {
        *self = *self + length;
    }
}

impl Sub for Millis {
    type Output = Self;

    fn sub(self, length: Self) -> Self {
        Self(self.0.saturating_sub(length.0))
    }
}

impl Mul<u64> for Millis {
    type Output = Self;

    fn mul(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

impl Div<u64> for Millis {
    type Output = Self;

    fn div(self, divisor: u64) -> Self {
        Self(self.0 / divisor)
    }
}

/// Number of the epoch, if epochs of the length `period` are counted from 1970.
impl Div<Millis> for UnixMs {
    type Output = u64;

    fn div(self, period: Millis) -> u64 {
        self.0 / period.0
    }
}

/// The time since the current period of that length began.
impl Rem<Millis> for UnixMs {
    type Output = Millis;

    fn rem(self, period: Millis) -> Millis {
        Millis(self.0 % period.0)
    }
}

impl Sum for Millis {
    fn sum<I: Iterator<Item = Self>>(lengths: I) -> Self {
        lengths.fold(Self::ZERO, Add::add)
    }
}

impl From<Millis> for Duration {
    fn from(length: Millis) -> Self {
        Self::from_millis(length.0)
    }
}

impl From<Duration> for Millis {
    fn from(length: Duration) -> Self {
        Self(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for UnixMs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_passed_is_zero_milliseconds_away() {
        assert_eq!(UnixMs::from_ms(5) - UnixMs::from_ms(7), Millis::ZERO);
        assert_eq!(UnixMs::from_ms(7) - UnixMs::from_ms(5), Millis::from_ms(2));
    }

    #[test]
    fn a_sum_beyond_the_largest_value_never_comes() {
        assert_eq!(UnixMs::from_ms(1) + Millis::MAX, UnixMs::MAX);
        assert_eq!(Millis::from_s(u64::MAX), Millis::MAX);
        assert_eq!(Millis::MAX * 2, Millis::MAX);
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(Millis::from_ms(1_001).as_s_rounded_up(), 2);
        assert_eq!(Millis::from_ms(1_000).as_s_rounded_up(), 1);
    }
}
