//! Validation of names, amounts and prices. Each check adds its errors to a list, so that all
//! errors are reported together.

use std::{fmt::Display, ops::RangeInclusive};

use crate::{
    price::{LongContext, Prices},
    quota::{BurstSettings, Limits, MAX_BURST_S},
};

/// Maximum of any amount that can be requested, allowed or charged. Larger numbers are typing
/// errors, and sums of smaller numbers cannot overflow.
pub(crate) const MAX_AMOUNT: u64 = 1_000_000_000_000;

/// Maximum of any price in USD. Higher prices are typing errors.
pub(crate) const MAX_PRICE: f64 = 1_000_000.0;

/// Returns whether a setting has its default value. Defaults are not written, so that functions of
/// an older version can still read the entry.
pub(crate) fn is_default<T: Default + PartialEq>(setting: &T) -> bool {
    *setting == T::default()
}

/// Checks that `name` has 1 to `max_length` characters, each an ASCII letter, a digit or one of
/// `signs`.
pub(crate) fn name(field: &str, name: &str, max_length: usize, signs: &str, wrong: &mut Vec<String>) {
    let allowed = |char: char| char.is_ascii_alphanumeric() || signs.contains(char);
    if name.is_empty() || name.len() > max_length || !name.chars().all(allowed) {
        let signs: Vec<String> = signs.chars().map(String::from).collect();
        let signs = signs.join(" ");
        wrong.push(format!("{field}: {name:?} must be 1 to {max_length} of a-z A-Z 0-9 {signs}"));
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

/// Checks that every limit admits something.
pub(crate) fn limits(field: &str, limits: &Limits, wrong: &mut Vec<String>) {
    for (limit, value) in limits.iter() {
        let limit = limit.name();
        match value {
            0 => wrong.push(format!("{field}.{limit}: 0 admits nothing; leave it out for no limit")),
            value => range(format_args!("{field}.{limit}"), value, 1..=MAX_AMOUNT, wrong),
        }
    }
}

/// Checks that a burst is at most a minute's worth of a limit.
pub(crate) fn burst(field: &str, burst: &BurstSettings, wrong: &mut Vec<String>) {
    for (name, seconds) in [("requests_s", burst.requests_s), ("tokens_s", burst.tokens_s)] {
        if let Some(seconds) = seconds {
            range(format_args!("{field}.{name}"), seconds, 0..=MAX_BURST_S, wrong);
        }
    }
}

/// Checks that every price is a plausible number of USD per million tokens.
pub(crate) fn prices(field: &str, prices: &Prices, wrong: &mut Vec<String>) {
    let Prices { input, output, cache_read, cache_write, cache_write_1h, long_context } = *prices;
    for (price, value) in [
        ("input", input),
        ("output", output),
        ("cache_read", cache_read),
        ("cache_write", cache_write),
        ("cache_write_1h", cache_write_1h.unwrap_or_default()),
    ] {
        // A NaN is in no range.
        range(format_args!("{field}.{price}"), value, 0.0..=MAX_PRICE, wrong);
    }
    let Some(LongContext { input_factor, output_factor, .. }) = long_context else { return };
    for (factor, value) in [("input_factor", input_factor), ("output_factor", output_factor)] {
        range(format_args!("{field}.long_context.{factor}"), value, 1.0..=100.0, wrong);
    }
}
