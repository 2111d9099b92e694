//! Table of the limits: [`SPECS`] has one row for each. All other code iterates over the table.
//!
//! A new limit needs a field of [`Limits`], a variant of [`Limit`] and a row of [`SPECS`]. If it is
//! counted in windows, it also needs an [`Attribute`] for its counters.

use std::{fmt, ops::Range};

use serde::{Deserialize, Serialize};

use super::{Allowance, Attribute, Charge, Period, slots::SLOTS_PER_REQUEST};
use crate::units::UnixMs;

/// Limits of a tenant or a pool; `None` means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests in any minute.
    pub requests_per_minute: Option<u64>,
    /// Quota tokens in any minute: input + output × burndown.
    pub tokens_per_minute: Option<u64>,
    /// Quota tokens in a UTC day.
    pub tokens_per_day: Option<u64>,
    /// Requests that run concurrently.
    pub in_flight: Option<u64>,
    /// Spend in a UTC calendar month, in micro-USD.
    pub microusd_per_month: Option<u64>,
}

/// Names of the limits, in the order in which callers and operators see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// [`Limits::requests_per_minute`].
    RequestsPerMinute,
    /// [`Limits::tokens_per_minute`].
    TokensPerMinute,
    /// [`Limits::tokens_per_day`].
    TokensPerDay,
    /// [`Limits::microusd_per_month`].
    MicrousdPerMonth,
    /// [`Limits::in_flight`].
    InFlight,
}

/// Unit that a limit counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Quota tokens.
    Tokens,
    /// Money, in micro-USD.
    Microusd,
    /// Requests while they run.
    ConcurrentRequests,
}

/// Everything that distinguishes one limit from another.
struct Spec {
    limit: Limit,
    /// Name in the registry, in headers and in errors.
    name: &'static str,
    /// Unit and period, as the command prints them after a number.
    label: &'static str,
    unit: Unit,
    /// `None` for requests in flight, which are counted in [`super::slots`].
    windows: Option<Windows>,
    /// Windows if unused tokens carry over; `None` if this limit does not carry over.
    carry_windows: Option<Windows>,
    /// Field of [`Limits`] that holds its value.
    field: fn(&mut Limits) -> &mut Option<u64>,
    /// Part of a charge that counts towards it; `None` for requests in flight, because every
    /// reservation holds one slot.
    charge: Option<fn(&mut Charge) -> &mut u64>,
    /// Number in the stored log of refusals. Numbers are never reused.
    log_number: u64,
}

/// Windows that a limit is counted in.
#[derive(Clone, Copy)]
struct Windows {
    period: Period,
    /// Returns the counter of the window with this number.
    counter: fn(u64) -> Attribute,
}

/// Specifications of the limits, in the order of [`Limit`].
const SPECS: [Spec; 5] = [
    Spec {
        limit: Limit::RequestsPerMinute,
        name: "requests_per_minute",
        label: "requests/min",
        unit: Unit::Requests,
        windows: Some(Windows { period: Period::Minute, counter: Attribute::Requests }),
        carry_windows: None,
        field: |limits| &mut limits.requests_per_minute,
        charge: Some(|charge| &mut charge.requests),
        log_number: 0,
    },
    Spec {
        limit: Limit::TokensPerMinute,
        name: "tokens_per_minute",
        label: "tokens/min",
        unit: Unit::Tokens,
        windows: Some(Windows { period: Period::Minute, counter: Attribute::Tokens }),
        carry_windows: Some(Windows { period: Period::FiveMinutes, counter: Attribute::CarriedTokens }),
        field: |limits| &mut limits.tokens_per_minute,
        charge: Some(|charge| &mut charge.minute_tokens),
        log_number: 1,
    },
    Spec {
        limit: Limit::TokensPerDay,
        name: "tokens_per_day",
        label: "tokens/day",
        unit: Unit::Tokens,
        windows: Some(Windows { period: Period::Day, counter: Attribute::Day }),
        carry_windows: None,
        field: |limits| &mut limits.tokens_per_day,
        charge: Some(|charge| &mut charge.day_tokens),
        log_number: 2,
    },
    Spec {
        limit: Limit::MicrousdPerMonth,
        name: "microusd_per_month",
        label: "micro-USD/month",
        unit: Unit::Microusd,
        windows: Some(Windows { period: Period::Month, counter: Attribute::Month }),
        carry_windows: None,
        field: |limits| &mut limits.microusd_per_month,
        charge: Some(|charge| &mut charge.cost_microusd),
        log_number: 4,
    },
    Spec {
        limit: Limit::InFlight,
        name: "in_flight",
        label: "in flight",
        unit: Unit::ConcurrentRequests,
        windows: None,
        carry_windows: None,
        field: |limits| &mut limits.in_flight,
        charge: None,
        log_number: 3,
    },
];

/// Number of [`LimitName::ModelCapacity`] in the stored log of refusals. New limits get higher
/// numbers.
const MODEL_CAPACITY_LOG_NUMBER: u64 = 5;

// `Limit::spec` finds the row of a limit by its position.
const _: () = {
    let mut row = 0;
    while row < SPECS.len() {
        assert!(SPECS[row].limit as usize == row, "SPECS has the order of Limit");
        row += 1;
    }
};

impl Limits {
    /// Returns whether no limit is set, so that nothing needs counting.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the value of `limit`, if it is set.
    pub fn get(mut self, limit: Limit) -> Option<u64> {
        *self.get_mut(limit)
    }

    /// Returns a mutable reference to the value of `limit`.
    pub fn get_mut(&mut self, limit: Limit) -> &mut Option<u64> {
        (limit.spec().field)(self)
    }

    /// Returns the limits that are set, with their values.
    pub fn iter(self) -> impl Iterator<Item = (Limit, u64)> {
        Limit::iter().filter_map(move |limit| Some((limit, self.get(limit)?)))
    }
}

impl Limit {
    /// Returns all limits.
    pub fn iter() -> impl Iterator<Item = Self> {
        SPECS.iter().map(|spec| spec.limit)
    }

    fn spec(self) -> &'static Spec {
        &SPECS[self as usize]
    }

    /// Returns the name that callers and operators see, which is also the name in the registry.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// Returns the unit and the period, such as `tokens/min`.
    pub fn label(self) -> &'static str {
        self.spec().label
    }

    /// Returns the unit that it counts in.
    pub fn unit(self) -> Unit {
        self.spec().unit
    }

    /// Returns how long a charge counts towards it; `None` if it counts while the request runs.
    pub fn period(self) -> Option<Period> {
        self.spec().windows.map(|windows| windows.period)
    }

    /// Returns the period of the windows that it is counted in; `None` for requests in flight.
    pub(super) fn windows_period(self, carries_over: bool) -> Option<Period> {
        self.counted_in(carries_over).map(|windows| windows.period)
    }

    fn counted_in(self, carries_over: bool) -> Option<Windows> {
        let spec = self.spec();
        spec.carry_windows.filter(|_| carries_over).or(spec.windows)
    }

    /// Returns the windows that a charge at `at` adds to, the oldest first, each with its counter.
    /// Requests in flight have none.
    pub(super) fn windows(self, carries_over: bool, at: UnixMs) -> impl Iterator<Item = (u64, Attribute)> {
        self.counters(carries_over, Period::windows, at)
    }

    /// Returns the counters of windows that ended before `at`. A charge at that time removes them.
    pub(super) fn ended(self, carries_over: bool, at: UnixMs) -> impl Iterator<Item = Attribute> {
        self.counters(carries_over, Period::ended, at).map(|(_, counter)| counter)
    }

    /// Maps one flat range: a nested iterator would triple the instructions of planning a write.
    fn counters(
        self,
        carries_over: bool,
        windows: fn(Period, UnixMs) -> Range<u64>,
        at: UnixMs,
    ) -> impl Iterator<Item = (u64, Attribute)> {
        let (range, counter) = match self.counted_in(carries_over) {
            Some(Windows { period, counter }) => (windows(period, at), counter),
            None => (0..0, Attribute::Slot as fn(u64) -> Attribute),
        };
        range.map(move |window| (window, counter(window)))
    }
}

impl Charge {
    /// Returns the amount that counts towards `limit`.
    pub fn get(mut self, limit: Limit) -> u64 {
        limit.spec().charge.map_or(SLOTS_PER_REQUEST, |part| *part(&mut self))
    }

    /// Lowers the amount that counts towards `limit` to `max`. A slot is not divisible.
    pub(super) fn lower(&mut self, limit: Limit, max: u64) {
        if let Some(part) = limit.spec().charge {
            let amount = part(self);
            *amount = max.min(*amount);
        }
    }
}

/// Name of a limit that refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitName {
    /// Limit of the tenant or of its organisation.
    Account(Limit),
    /// Limit of the tenant for what calls no model.
    Allowance(Allowance),
    /// Capacity of the model: all of its pools are full.
    ModelCapacity,
}

impl LimitName {
    /// Returns all names.
    pub fn iter() -> impl Iterator<Item = Self> {
        let allowances = Allowance::ALL.into_iter().map(Self::Allowance);
        Limit::iter().map(Self::Account).chain(allowances).chain([Self::ModelCapacity])
    }

    /// Returns the name that callers and operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account(limit) => limit.name(),
            Self::Allowance(allowance) => allowance.name(),
            Self::ModelCapacity => "model_capacity",
        }
    }

    /// Returns the number in the stored log of refusals.
    pub(crate) fn log_number(self) -> u64 {
        match self {
            Self::Account(limit) => limit.spec().log_number,
            Self::Allowance(allowance) => allowance.log_number(),
            Self::ModelCapacity => MODEL_CAPACITY_LOG_NUMBER,
        }
    }

    /// Joins the names with `separator`.
    pub fn join(names: &[Self], separator: &str) -> String {
        names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(separator)
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_field_of_the_limits_has_a_specification_of_the_same_name() {
        let fields = serde_json::to_value(Limits::default()).expect("a map of the fields");
        let fields: BTreeSet<&str> = fields.as_object().expect("a map").keys().map(String::as_str).collect();
        assert_eq!(fields, Limit::iter().map(Limit::name).collect());
        for limit in Limit::iter() {
            let mut limits = Limits::default();
            *limits.get_mut(limit) = Some(7);
            assert_eq!(serde_json::to_value(limits).expect("a map")[limit.name()], 7);
            assert_eq!(serde_json::to_value(limit).expect("a name"), limit.name());
            assert_eq!(limits.iter().collect::<Vec<_>>(), [(limit, 7)]);
        }
    }

    #[test]
    fn no_two_names_share_a_number_in_the_log_of_refusals() {
        let numbers: BTreeSet<u64> = LimitName::iter().map(LimitName::log_number).collect();
        assert_eq!(numbers.len(), LimitName::iter().count());
    }

    #[test]
    fn every_counter_maps_back_to_its_limit_and_window() {
        for (limit, carries_over) in Limit::iter().flat_map(|limit| [(limit, false), (limit, true)]) {
            for (window, counter) in limit.windows(carries_over, UnixMs::from_ms(1_764_000_002_500)) {
                assert_eq!(counter.window(), Some((limit, window)));
                assert_eq!(counter.period().map(|(period, _)| period), limit.windows_period(carries_over));
            }
        }
    }
}
