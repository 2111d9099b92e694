//! Audit: recomputes the counters of an account from the outcomes of its requests.

use std::collections::{BTreeMap, BTreeSet};

use super::{Attribute, Charged, Image, Limit, reserve::signed};
use crate::units::UnixMs;

/// Counters of one account, recomputed from outcomes.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    counters: BTreeMap<Attribute, i64>,
}

/// A counter that differs from its recomputed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drift {
    /// The counter.
    pub attribute: Attribute,
    /// Value in the ledger, summed over all shards.
    pub recorded: i64,
    /// Sum of the outcomes.
    pub recomputed: i64,
}

/// Findings of an audit of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Number of counters that were compared.
    pub compared: usize,
    /// Counters that differ.
    pub drifts: Vec<Drift>,
}

impl Audit {
    /// Adds the final charge of a request, with its input and output tokens if the model reported
    /// them.
    pub fn add(&mut self, charged: &Charged, usage: Option<(u64, u64)>) {
        let Charged { at, charge, carries_over } = *charged;
        for limit in Limit::iter() {
            for (_, counter) in limit.windows(carries_over, at) {
                self.count(counter, charge.get(limit));
            }
        }
        if let Some((input_tokens, output_tokens)) = usage {
            self.count(Attribute::SettledRequests, 1);
            self.count(Attribute::SettledInput, input_tokens);
            self.count(Attribute::SettledOutput, output_tokens);
            self.count(Attribute::SettledCost, charge.cost_microusd);
        }
    }

    fn count(&mut self, attribute: Attribute, amount: u64) {
        *self.counters.entry(attribute).or_default() += signed(amount);
    }

    /// Compares the recomputed counters with `images`, the account's items at `now`. It covers all
    /// counters that are in use and whose window began at `since` or later. All outcomes since then
    /// must have been added.
    pub fn compare(&self, images: &[Image], since: UnixMs, now: UnixMs) -> Findings {
        let mut recorded: BTreeMap<Attribute, i64> = BTreeMap::new();
        for (attribute, value) in images.iter().flat_map(Image::iter) {
            *recorded.entry(attribute).or_default() += value;
        }
        let is_compared = |attribute: &Attribute| {
            begins_at(attribute).is_some_and(|begins_at| begins_at >= since) && is_in_use(attribute, now)
        };
        let mut findings = Findings::default();
        let attributes: BTreeSet<_> = recorded.keys().chain(self.counters.keys()).copied().collect();
        for attribute in attributes.into_iter().filter(is_compared) {
            let value = |counters: &BTreeMap<_, _>| counters.get(&attribute).copied().unwrap_or_default();
            let (recorded, recomputed) = (value(&recorded), value(&self.counters));
            findings.compared += 1;
            if recorded != recomputed {
                findings.drifts.push(Drift { attribute, recorded, recomputed });
            }
        }
        findings
    }
}

/// Returns when a counter began to count; 1970 for lifetime totals, `None` for attributes that do
/// not count outcomes.
fn begins_at(attribute: &Attribute) -> Option<UnixMs> {
    match *attribute {
        Attribute::SettledRequests | Attribute::SettledInput | Attribute::SettledOutput | Attribute::SettledCost => {
            Some(UnixMs::default())
        }
        attribute => attribute.period().map(|(period, window)| period.begins_at(window)),
    }
}

/// Returns whether settlements still correct a counter at `now`.
fn is_in_use(attribute: &Attribute, now: UnixMs) -> bool {
    attribute.period().is_none_or(|(period, window)| window >= period.oldest_corrected(now))
}

/// Describes states that no sequence of writes can produce: a negative counter, or requests in
/// flight that no slot accounts for.
pub fn flaws(image: &Image) -> Vec<String> {
    let negative = image.iter().filter(|(_, value)| *value < 0);
    let mut flaws: Vec<String> =
        negative.map(|(attribute, value)| format!("{} is {value}", attribute.name())).collect();
    let is_slot = |attribute| matches!(attribute, Attribute::Slot(_));
    let slots: i64 = image.iter().filter(|(attribute, _)| is_slot(*attribute)).map(|(_, value)| value).sum();
    let in_flight = signed(image.get(Attribute::InFlight));
    if in_flight != slots {
        flaws.push(format!("{in_flight} requests are in flight, but their slots hold {slots}"));
    }
    flaws
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        quota::{Burst, Charge, Limits, Policy, Reservation, Settled, reserve, settle},
        units::Millis,
    };

    const NOW: UnixMs = UnixMs::from_ms(1_764_000_000_000);

    fn charge(tokens: u64) -> Charge {
        Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, cost_microusd: 2 * tokens, ..Charge::ZERO }
    }

    /// Runs requests on a new account, and audits it. Each request waits for the third number of
    /// milliseconds, reserves the first number of tokens and uses the second.
    fn account(requests: &[(u64, u64, u64)]) -> (Image, Audit, UnixMs) {
        let burst = Burst { requests_s: 60, tokens_s: 60, is_strict: false, carries_over: false };
        let policy = Policy { limits: Limits::default(), version: 1, burst, share_percent: 100 };
        let (mut image, mut audit, mut now) = (Image::default(), Audit::default(), NOW);
        for (reserved, used, wait_ms) in requests {
            now += Millis::from_ms(*wait_ms);
            let mut reservation = Reservation::new(&policy, charge(*reserved), now, now + Millis::from_s(30));
            assert!(image.apply(&reserve(&policy, &reservation, None)));
            reservation.note_stale(&image);
            let settled = Settled { charge: charge(*used), ..Settled::default() };
            assert!(image.apply(&settle(&reservation, &settled, now + Millis::from_ms(10))));
            audit.add(&Charged { at: now, charge: charge(*used), carries_over: policy.burst.carries_over }, None);
        }
        (image, audit, now + Millis::from_ms(10))
    }

    proptest! {
        #[test]
        fn the_counters_of_settled_requests_equal_their_recomputed_values(
            requests in proptest::collection::vec((1u64..500, 0u64..900, 0u64..40_000_000), 1..30),
        ) {
            let (image, audit, now) = account(&requests);
            let findings = audit.compare(std::slice::from_ref(&image), UnixMs::default(), now);
            prop_assert_eq!(&findings.drifts, &[]);
            prop_assert!(findings.compared >= 24, "{}", findings.compared);
            prop_assert_eq!(flaws(&image), Vec::<String>::new());
        }
    }

    #[test]
    fn a_charge_without_an_outcome_is_a_drift_of_each_of_its_counters() {
        let (image, _, now) = account(&[(10, 10, 0), (7, 5, 1_000)]);
        let (_, audit, _) = account(&[(10, 10, 0)]);
        let drifts = audit.compare(&[image], UnixMs::default(), now).drifts;
        let counters: usize = Limit::iter().map(|limit| limit.windows(false, NOW).count()).sum();
        assert_eq!(drifts.len(), counters);
        assert!(drifts.iter().all(|drift| drift.recorded > drift.recomputed));
    }

    #[test]
    fn counters_that_began_before_the_outcomes_are_not_compared() {
        let (image, _, now) = account(&[(10, 10, 0)]);
        assert_eq!(Audit::default().compare(&[image], NOW + Millis::from_s(60), now), Findings::default());
    }

    #[test]
    fn a_missing_slot_is_a_flaw() {
        let image: Image =
            [(Attribute::InFlight, 2), (Attribute::Slot(7), 1), (Attribute::Day(3), -4)].into_iter().collect();
        assert_eq!(flaws(&image).len(), 2, "{:?}", flaws(&image));
    }
}
