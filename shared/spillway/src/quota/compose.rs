//! Composition of two writes into one, so that concurrent reservations on one item share a write.

use super::{Condition, Update, Write};

impl Write {
    /// Returns the write that has the effect of this write followed by `next`. If an item refuses
    /// it, the item would have refused one of the two as well. Returns `None` if no single write
    /// has that effect.
    pub fn then(&self, next: &Self) -> Option<Self> {
        let mut composed = self.clone();
        for condition in &next.conditions {
            composed.require(self.before(*condition)?)?;
        }
        for update in &next.updates {
            composed.extend(*update)?;
        }
        Some(composed)
    }

    /// Returns the condition that must hold before this write so that `condition` holds after it:
    /// `Some(None)` if it always holds then, `None` if no condition expresses that.
    fn before(&self, condition: Condition) -> Option<Option<Condition>> {
        let attribute = condition.attribute();
        let update = self.updates.iter().find(|update| update.attribute() == attribute);
        let added = match update {
            None => return Some(Some(condition)),
            Some(Update::Remove(_)) => return None,
            Some(Update::Set(_, to)) => return condition.holds_for(i128::from(*to)).then_some(None),
            Some(Update::Add(_, by)) => i128::from(*by),
        };
        let shifted = |bound: u64| i128::from(bound) - added;
        match condition {
            // A bound below zero would still admit an absent attribute.
            Condition::AtMost(_, bound) => {
                let bound = u64::try_from(shifted(bound)).ok()?;
                Some(Some(Condition::AtMost(attribute, bound)))
            }
            Condition::AtLeast(_, bound) if shifted(bound) <= 0 => Some(None),
            Condition::AtLeast(_, bound) => {
                let bound = u64::try_from(shifted(bound)).ok()?;
                Some(Some(Condition::AtLeast(attribute, bound)))
            }
            Condition::Equals(..) => None,
        }
    }

    fn require(&mut self, condition: Option<Condition>) -> Option<()> {
        let Some(condition) = condition else { return Some(()) };
        for known in &mut self.conditions {
            match (known, condition) {
                (Condition::AtMost(name, bound), Condition::AtMost(next, next_bound)) if *name == next => {
                    *bound = (*bound).min(next_bound);
                    return Some(());
                }
                (Condition::AtLeast(name, bound), Condition::AtLeast(next, next_bound)) if *name == next => {
                    *bound = (*bound).max(next_bound);
                    return Some(());
                }
                _ => {}
            }
        }
        self.conditions.push(condition);
        Some(())
    }

    fn extend(&mut self, update: Update) -> Option<()> {
        let Some(known) = self.updates.iter_mut().find(|known| known.attribute() == update.attribute()) else {
            self.updates.push(update);
            return Some(());
        };
        match (known, update) {
            (Update::Add(_, sum), Update::Add(_, by)) => *sum = sum.checked_add(by)?,
            (Update::Set(_, to), Update::Set(_, next)) => *to = next,
            (Update::Remove(_), Update::Remove(_)) => {}
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::{Attribute, Image};

    fn attribute() -> impl Strategy<Value = Attribute> {
        prop_oneof![
            Just(Attribute::InFlight),
            (0u64..3).prop_map(Attribute::Tokens),
            (0u64..2).prop_map(Attribute::Slot)
        ]
    }

    fn write() -> impl Strategy<Value = Write> {
        let condition = prop_oneof![
            (attribute(), 0u64..12).prop_map(|(name, bound)| Condition::AtMost(name, bound)),
            (attribute(), 0u64..4).prop_map(|(name, bound)| Condition::AtLeast(name, bound)),
        ];
        let update = prop_oneof![
            4 => (attribute(), 0i64..6).prop_map(|(name, by)| Update::Add(name, by)),
            1 => (0u64..4).prop_map(|to| Update::Set(Attribute::Version, to)),
            1 => attribute().prop_map(Update::Remove),
        ];
        (proptest::collection::vec(condition, 0..4), proptest::collection::vec(update, 0..4)).prop_map(
            |(conditions, mut updates)| {
                updates.sort_by_key(Update::attribute);
                updates.dedup_by_key(|update| update.attribute());
                Write { conditions, updates }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        #[test]
        fn a_composed_write_has_the_effect_of_its_two_parts(
            first in write(), second in write(),
            held in proptest::collection::vec((attribute(), 0i64..10), 0..6),
        ) {
            let Some(both) = first.then(&second) else { return Ok(()) };
            let image: Image = held.into_iter().collect();
            let (mut together, mut in_turn) = (image.clone(), image);
            let applied_together = together.apply(&both);
            let applied_in_turn = in_turn.apply(&first) && in_turn.apply(&second);
            prop_assert!(applied_in_turn || !applied_together, "admitted together, refused in turn");
            if applied_together {
                prop_assert_eq!(together, in_turn);
            }
        }
    }

    #[test]
    fn writes_that_do_not_fit_together_are_not_composed() {
        let six = Write {
            conditions: vec![Condition::AtMost(Attribute::Tokens(1), 4)],
            updates: vec![Update::Add(Attribute::Tokens(1), 6)],
        };
        assert_eq!(six.then(&six), None, "an absent window would admit both");
    }

    #[test]
    fn two_settlements_of_a_slot_require_two_requests_in_it() {
        let settle = Write {
            conditions: vec![Condition::AtLeast(Attribute::Slot(1), 1)],
            updates: vec![Update::Add(Attribute::Slot(1), -1)],
        };
        let both = settle.then(&settle).expect("composed");
        assert_eq!(both.conditions, [Condition::AtLeast(Attribute::Slot(1), 2)]);
        assert_eq!(both.updates, [Update::Add(Attribute::Slot(1), -2)]);
    }
}
