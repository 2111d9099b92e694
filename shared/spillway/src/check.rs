//! What names, counts and prices may be. Each check adds what is wrong to a list, so that all of it is told at once.

use std::{fmt::Display, ops::RangeInclusive};

use crate::{
    price::Prices,
    quota::{BurstSettings, LONGEST_BURST_S, Limits},
};

/// The most of anything that can be asked for, allowed or charged: larger numbers are typing errors, and sums of
/// these stay far from overflow.
pub(crate) const MOST: u64 = 1_000_000_000_000;

/// Whether a setting is as it is when absent. Such are not written, so that functions which do not know them yet can still
/// read the entry.
pub(crate) fn is_default<T: Default + PartialEq>(setting: &T) -> bool {
    *setting == T::default()
}

/// Checks that `name` has 1 to `longest` characters, each an ASCII letter, a digit or one of `others`.
pub(crate) fn name(field: &str, name: &str, longest: usize, others: &str, wrong: &mut Vec<String>) {
    let allowed = |char: char| char.is_ascii_alphanumeric() || others.contains(char);
    if name.is_empty() || name.len() > longest || !name.chars().all(allowed) {
        let others: Vec<String> = others.chars().map(String::from).collect();
        let others = others.join(" ");
        wrong.push(format!("{field}: {name:?} must be 1 to {longest} of a-z A-Z 0-9 {others}"));
    }
}

/// Checks that `value` is within `range`.
pub(crate) fn range<T: PartialOrd + Display>(
    field: impl Display,
    value: T,
    range: RangeInclusive<T>,
    wrong: &mut Vec<String>,
) {
    if !range.contains(&value) {
        wrong.push(format!("{field}: {value} must be {} to {}", range.start(), range.end()));
    }
}

/// Checks that every limit that is set can admit something.
pub(crate) fn limits(field: &str, limits: &Limits, wrong: &mut Vec<String>) {
    for (limit, value) in limits.iter() {
        let limit = limit.name();
        match value {
            0 => wrong.push(format!("{field}.{limit}: 0 admits nothing; leave it out for no limit")),
            value => range(format_args!("{field}.{limit}"), value, 1..=MOST, wrong),
        }
    }
}

/// Checks that no more than a minute's worth of a limit comes at once.
pub(crate) fn burst(field: &str, burst: &BurstSettings, wrong: &mut Vec<String>) {
    for (name, seconds) in [("requests_s", burst.requests_s), ("tokens_s", burst.tokens_s)] {
        if let Some(seconds) = seconds {
            range(format_args!("{field}.{name}"), seconds, 0..=LONGEST_BURST_S, wrong);
        }
    }
}

/// Checks that every price is a number of USD per million tokens that somebody could mean.
pub(crate) fn prices(field: &str, prices: &Prices, wrong: &mut Vec<String>) {
    let Prices { input, output, cache_read, cache_write, cache_write_1h } = *prices;
    for (price, value) in [
        ("input", input),
        ("output", output),
        ("cache_read", cache_read),
        ("cache_write", cache_write),
        ("cache_write_1h", cache_write_1h.unwrap_or_default()),
    ] {
        // A NaN is in no range.
        range(format_args!("{field}.{price}"), value, 0.0..=1_000_000.0, wrong);
    }
}
