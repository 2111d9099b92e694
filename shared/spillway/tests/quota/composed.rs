//! A composed write has the effect of its parts, one after the other.

use proptest::{collection::vec, prelude::*};
use spillway::{
    quota::{Charge, Image, Limits, Policy, Reservation, Settled, Write, reserve, settle, settle_reaped},
    units::{Millis, UnixMs},
};

use crate::{
    item::{Answer, Item, charges},
    world::{START_MS, plan},
};

/// Returns an item with some traffic before.
fn used_item(policy: Policy, before: Vec<(Charge, u64, u64)>) -> Item {
    let mut item = Item::new(policy);
    for (charge, lives_ms, wait_ms) in before {
        let _ = item.reserve(policy.fit(&charge), lives_ms);
        item.now += Millis::from_ms(wait_ms);
    }
    item
}

/// Runs the writes in turn until one is refused. Returns the number of writes before it.
fn apply_in_turn(image: &mut Image, writes: &[Write]) -> usize {
    writes.iter().take_while(|write| image.apply(write)).count()
}

/// Composes as many of the first `writes` as possible. Returns the write and their number.
fn compose(writes: &[Write]) -> (Write, usize) {
    let (first, rest) = writes.split_first().expect("a write");
    let mut composed = first.clone();
    for (number, next) in rest.iter().enumerate() {
        let Some(both) = composed.then(next) else { return (composed, number + 1) };
        composed = both;
    }
    (composed, writes.len())
}

proptest! {
    #![proptest_config(crate::cases(2_000))]

    /// The group is admitted exactly if all of its reservations would be admitted in turn. A
    /// reservation that does not compose with the group would have been refused after it.
    #[test]
    fn reservations_in_a_composed_write_are_admitted_as_in_turn(
        plan in plan(),
        before in vec((charges(150), 1_000u64..30_000, 0u64..9_000), 0..12),
        asks in vec((charges(150), 1_000u64..40_000), 2..9),
    ) {
        let policy = plan.policy(1, 100);
        let item = used_item(policy, before);
        let write = |(charge, lives_ms): &(Charge, u64)| {
            let expires_at = item.now + Millis::from_ms(*lives_ms);
            reserve(&policy, &Reservation::new(&policy, policy.fit(charge), item.now, expires_at), None)
        };
        let writes: Vec<Write> = asks.iter().map(write).collect();
        let (composed, count) = compose(&writes);
        let (mut together, mut in_turn) = (item.image.clone(), item.image.clone());
        let is_done = together.apply(&composed);
        let done = apply_in_turn(&mut in_turn, &writes[..count]);
        prop_assert_eq!(is_done, done == count, "{} in one, {} in turn", count, done);
        if is_done {
            prop_assert_eq!(&together, &in_turn);
            prop_assert!(count == writes.len() || !in_turn.apply(&writes[count]), "it would have been admitted");
        } else {
            prop_assert_eq!(&together, &item.image, "a refusal changes nothing");
        }
    }

    /// Settlements of one slot always compose, whether it was reaped or not.
    #[test]
    fn settlements_in_a_composed_write_settle_as_in_turn(
        asks in vec((charges(150), proptest::option::weighted(0.9, charges(150))), 1..9),
        settled_after_ms in prop_oneof![0u64..15_000, 0u64..100_000],
        is_reaped in any::<bool>(),
    ) {
        let mut item = Item::new(Policy { limits: Limits::default(), ..crate::item::policy(Limits::default(), 12) });
        let mut ends = Vec::new();
        for (charge, actual) in &asks {
            let Answer::Admitted(reservation) = item.reserve(*charge, 20_000) else { panic!("refused without limits") };
            ends.push((reservation, Settled { charge: actual.unwrap_or_default(), ..Settled::default() }));
        }
        let now = UnixMs::from_ms(START_MS + settled_after_ms);
        let write = |(reservation, settled): &(Reservation, Settled)| match is_reaped {
            true => settle_reaped(reservation, settled, now),
            false => settle(reservation, settled, now),
        };
        let writes: Vec<Write> = ends.iter().map(write).collect();
        let (composed, count) = compose(&writes);
        prop_assert_eq!(count, writes.len());
        let (mut together, mut in_turn) = (item.image.clone(), item.image);
        prop_assert!(together.apply(&composed));
        prop_assert_eq!(apply_in_turn(&mut in_turn, &writes), writes.len());
        prop_assert_eq!(&together, &in_turn);
        prop_assert!(is_reaped || !together.apply(&composed), "it settles only once");
    }
}
