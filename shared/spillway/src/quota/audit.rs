//! Counters recomputed from outcomes: what an account should hold, and where it does not.

use std::collections::{BTreeMap, BTreeSet};

use super::{Attribute, Charged, Image, Limit, reserve::signed};

/// The counters of one account as its outcomes make them.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    counters: BTreeMap<Attribute, i64>,
}

/// A counter that is not what the outcomes make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drift {
    /// Which counter.
    pub attribute: Attribute,
    /// What the ledger holds, over all shards.
    pub recorded: i64,
    /// What the outcomes add up to.
    pub recomputed: i64,
}

/// What an audit of one account found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// How many counters were compared.
    pub compared: usize,
    /// Those that differ.
    pub drifts: Vec<Drift>,
}

impl Audit {
    /// Adds what a request was `charged` in the end, with its input and output tokens if the model reported them.
    pub fn add(&mut self, charged: &Charged, usage: Option<(u64, u64)>) {
        let Charged { at_ms, charge } = *charged;
        for limit in Limit::iter() {
            for (_, counter) in limit.windows(at_ms) {
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

    /// Compares with `images`, the account's items at `now_ms`, all counters that are still in use and whose time began at
    /// `since_ms` or later, both in milliseconds since 1970: the outcomes from then on must all have been added.
    pub fn compare(&self, images: &[Image], since_ms: u64, now_ms: u64) -> Findings {
        let mut recorded: BTreeMap<Attribute, i64> = BTreeMap::new();
        for (attribute, value) in images.iter().flat_map(Image::iter) {
            *recorded.entry(attribute).or_default() += value;
        }
        let is_meant = |attribute: &Attribute| {
            begins_ms(attribute).is_some_and(|begins_ms| begins_ms >= since_ms) && is_in_use(attribute, now_ms)
        };
        let mut findings = Findings::default();
        let all: BTreeSet<_> = recorded.keys().chain(self.counters.keys()).copied().collect();
        for attribute in all.into_iter().filter(is_meant) {
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

/// When the time that a counter counts began, in milliseconds since 1970; 0 for those that count for ever, `None` for what
/// counts no outcomes.
fn begins_ms(attribute: &Attribute) -> Option<u64> {
    match *attribute {
        Attribute::SettledRequests | Attribute::SettledInput | Attribute::SettledOutput | Attribute::SettledCost => {
            Some(0)
        }
        attribute => attribute.period().map(|(period, window)| period.begins_ms(window)),
    }
}

/// Whether a counter is settled and not forgotten yet at `now_ms`.
fn is_in_use(attribute: &Attribute, now_ms: u64) -> bool {
    attribute.period().is_none_or(|(period, window)| window >= period.oldest_corrected(now_ms))
}

/// What no sequence of writes can leave behind, in words: a negative counter, or requests in flight that no slot accounts
/// for.
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
    use crate::quota::{Burst, Charge, Limits, Policy, Reservation, Settled, reserve, settle};

    const NOW_MS: u64 = 1_764_000_000_000;

    fn charge(tokens: u64) -> Charge {
        Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, cost_microusd: 2 * tokens }
    }

    /// An account after requests that reserved and used these tokens, this long after each other, with its audit.
    fn account(requests: &[(u64, u64, u64)]) -> (Image, Audit, u64) {
        let burst = Burst { requests_s: 60, tokens_s: 60, is_strict: false };
        let policy = Policy { limits: Limits::default(), version: 1, burst, share_percent: 100 };
        let (mut image, mut audit, mut now_ms) = (Image::default(), Audit::default(), NOW_MS);
        for (reserved, used, wait_ms) in requests {
            now_ms += wait_ms;
            let mut reservation = Reservation::new(charge(*reserved), now_ms, now_ms + 30_000);
            assert!(image.apply(&reserve(&policy, &reservation, None)));
            reservation.note_stale(&image);
            let settled = Settled { charge: charge(*used), ..Settled::default() };
            assert!(image.apply(&settle(&reservation, &settled, now_ms + 10)));
            audit.add(&Charged { at_ms: now_ms, charge: charge(*used) }, None);
        }
        (image, audit, now_ms + 10)
    }

    proptest! {
        #[test]
        fn the_counters_of_settled_requests_are_what_their_outcomes_make_them(
            requests in proptest::collection::vec((1u64..500, 0u64..900, 0u64..40_000_000), 1..30),
        ) {
            let (image, audit, now_ms) = account(&requests);
            let findings = audit.compare(std::slice::from_ref(&image), 0, now_ms);
            prop_assert_eq!(&findings.drifts, &[]);
            prop_assert!(findings.compared >= 24, "{}", findings.compared);
            prop_assert_eq!(flaws(&image), Vec::<String>::new());
        }
    }

    #[test]
    fn a_charge_without_an_outcome_is_a_drift_of_every_counter_that_it_went_to() {
        let (image, _, now_ms) = account(&[(10, 10, 0), (7, 5, 1_000)]);
        let (_, audit, _) = account(&[(10, 10, 0)]);
        let drifts = audit.compare(&[image], 0, now_ms).drifts;
        assert_eq!(drifts.len(), 2 * 12 + 2);
        assert!(drifts.iter().all(|drift| drift.recorded > drift.recomputed));
    }

    #[test]
    fn what_began_before_the_outcomes_is_not_compared() {
        let (image, _, now_ms) = account(&[(10, 10, 0)]);
        assert_eq!(Audit::default().compare(&[image], NOW_MS + 60_000, now_ms), Findings::default());
    }

    #[test]
    fn a_slot_that_is_missing_is_a_flaw() {
        let image: Image =
            [(Attribute::InFlight, 2), (Attribute::Slot(7), 1), (Attribute::Day(3), -4)].into_iter().collect();
        assert_eq!(flaws(&image).len(), 2, "{:?}", flaws(&image));
    }
}
