//! Writes that go together do what they would have done one by one.

use proptest::{collection::vec, prelude::*};
use spillway::quota::{Charge, Image, Limits, Policy, Reservation, Settled, Write, reserve, settle, settle_reaped};

use crate::{
    item::{Answer, Item, charges},
    world::{START_MS, plan},
};

/// An item that has seen some traffic.
fn used_item(policy: Policy, before: Vec<(Charge, u64, u64)>) -> Item {
    let mut item = Item::new(policy);
    for (charge, lives_ms, wait_ms) in before {
        let _ = item.reserve(policy.fit(&charge), lives_ms);
        item.now_ms += wait_ms;
    }
    item
}

/// Runs the writes in turn until one is refused; how many were not.
fn in_turn(image: &mut Image, writes: &[Write]) -> usize {
    writes.iter().take_while(|write| image.apply(write)).count()
}

/// As many of the first of `writes` as go together, and how many those are.
fn together(writes: &[Write]) -> (Write, usize) {
    let (first, others) = writes.split_first().expect("at least one");
    let mut composed = first.clone();
    for (number, next) in others.iter().enumerate() {
        let Some(both) = composed.then(next) else { return (composed, number + 1) };
        composed = both;
    }
    (composed, writes.len())
}

proptest! {
    #![proptest_config(crate::cases(2_000))]

    /// All of them exactly if each would be, one after the other; and those that no write can carry along would have been
    /// refused after the ones that it carries.
    #[test]
    fn reservations_in_one_write_are_admitted_as_in_turn(
        plan in plan(),
        before in vec((charges(150), 1_000u64..30_000, 0u64..9_000), 0..12),
        asks in vec((charges(150), 1_000u64..40_000), 2..9),
    ) {
        let policy = plan.policy(1, 100);
        let item = used_item(policy, before);
        let write = |(charge, lives_ms): &(Charge, u64)| {
            reserve(&policy, &Reservation::new(policy.fit(charge), item.now_ms, item.now_ms + lives_ms), None)
        };
        let writes: Vec<Write> = asks.iter().map(write).collect();
        let (composed, count) = together(&writes);
        let (mut at_once, mut one_by_one) = (item.image.clone(), item.image.clone());
        let is_done = at_once.apply(&composed);
        let done = in_turn(&mut one_by_one, &writes[..count]);
        prop_assert_eq!(is_done, done == count, "{} in one, {} in turn", count, done);
        if is_done {
            prop_assert_eq!(&at_once, &one_by_one);
            prop_assert!(count == writes.len() || !one_by_one.apply(&writes[count]), "it would have gone along");
        } else {
            prop_assert_eq!(&at_once, &item.image, "a refusal changes nothing");
        }
    }

    /// Those of one slot always go in one write, reaped or not.
    #[test]
    fn settlements_in_one_write_settle_as_in_turn(
        asks in vec((charges(150), proptest::option::weighted(0.9, charges(150))), 1..9),
        settled_after_ms in prop_oneof![0u64..15_000, 0u64..100_000],
        is_reaped in any::<bool>(),
    ) {
        let mut item = Item::new(Policy { limits: Limits::default(), ..crate::item::policy(Limits::default(), 12) });
        let mut ends = Vec::new();
        for (charge, actual) in &asks {
            let Answer::Admitted(reservation) = item.reserve(*charge, 20_000) else { panic!("nothing is limited") };
            ends.push((reservation, Settled { charge: actual.unwrap_or_default(), ..Settled::default() }));
        }
        let now_ms = START_MS + settled_after_ms;
        let write = |(reservation, settled): &(Reservation, Settled)| match is_reaped {
            true => settle_reaped(reservation, settled, now_ms),
            false => settle(reservation, settled, now_ms),
        };
        let writes: Vec<Write> = ends.iter().map(write).collect();
        let (composed, count) = together(&writes);
        prop_assert_eq!(count, writes.len());
        let (mut at_once, mut one_by_one) = (item.image.clone(), item.image);
        prop_assert!(at_once.apply(&composed));
        prop_assert_eq!(in_turn(&mut one_by_one, &writes), writes.len());
        prop_assert_eq!(&at_once, &one_by_one);
        prop_assert!(is_reaped || !at_once.apply(&composed), "it settles once");
    }
}
