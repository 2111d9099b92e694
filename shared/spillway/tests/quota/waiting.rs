//! When a refused request fits: at the named moment and not before; and all of a burst after a rest.

use proptest::{collection::vec, prelude::*};
use spillway::quota::{Charge, EPOCH_MS, Limits, Policy, too_large};

use crate::{
    item::{Answer, Item, charges},
    world::{MINUTE_MS, cap, plan},
};

/// A single caller's policy over one item.
fn policy() -> impl Strategy<Value = Policy> {
    (plan(), prop_oneof![3 => Just(100u64), 1 => Just(90), 1 => Just(81), 1 => Just(70)])
        .prop_map(|(plan, share_percent)| plan.policy(1, share_percent))
}

proptest! {
    #![proptest_config(crate::cases(2_000))]

    /// All limits but the requests in flight, whose time nobody knows.
    #[test]
    fn a_refusal_names_the_first_moment_that_admits(
        policy in policy(),
        asks in vec((charges(600), 0u64..7_000, proptest::option::of(0u64..160)), 1..40),
    ) {
        let policy = Policy { limits: Limits { in_flight: None, ..policy.limits }, ..policy };
        let mut item = Item::new(policy);
        for (charge, wait_ms, settle_percent) in asks {
            item.now_ms += wait_ms;
            if !too_large(&policy.limits, &charge).is_empty() { continue; }
            match (item.reserve(charge, 60_000), settle_percent) {
                (Answer::Admitted(reservation), Some(percent)) => {
                    let minute_tokens = charge.minute_tokens * percent / 100;
                    prop_assert!(item.settle(&reservation, Charge { minute_tokens, ..charge }), "not settled");
                }
                (Answer::Admitted(_), None) => {}
                (Answer::Refused(_, retry_after_ms), _) => {
                    let refused_ms = item.now_ms;
                    item.now_ms = refused_ms + retry_after_ms - 1;
                    prop_assert!(matches!(item.reserve(charge, 60_000), Answer::Refused(..)), "admitted too early");
                    item.now_ms = refused_ms + retry_after_ms;
                    prop_assert!(matches!(item.reserve(charge, 60_000), Answer::Admitted(_)), "refused at its time");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(1_000))]

    /// Whoever settled, died or owes: a minute after the last request, and once the dead are counted as such, all that may
    /// come at once does.
    #[test]
    fn after_a_rest_the_whole_burst_is_back(
        policy in policy(),
        asks in vec((charges(600), 1_000u64..40_000, 0u64..4_000, proptest::option::of(0u64..160)), 1..30),
    ) {
        let limits = Limits { tokens_per_day: None, microusd_per_month: None, ..policy.limits };
        let policy = Policy { limits, ..policy };
        let mut item = Item::new(policy);
        for (charge, lives_ms, wait_ms, settle_percent) in asks {
            item.now_ms += wait_ms;
            if !too_large(&limits, &charge).is_empty() { continue; }
            if let (Answer::Admitted(reservation), Some(percent)) = (item.reserve(charge, lives_ms), settle_percent) {
                let minute_tokens = charge.minute_tokens * percent / 100;
                prop_assert!(item.settle(&reservation, Charge { minute_tokens, ..charge }), "not settled");
            }
        }
        item.now_ms += MINUTE_MS;
        let at_once = |limit: Option<u64>, burst_s| limit.map(|limit| cap(&policy, limit, burst_s, 1).max(1));
        let of_ring = limits.in_flight.map(|limit| (limit * policy.share_percent / 100).max(1));
        let requests = [at_once(limits.requests_per_minute, policy.burst.requests_s), of_ring, Some(50)];
        let requests = requests.into_iter().flatten().min().expect("one at least");
        let tokens = limits.tokens_per_minute.map_or(0, |limit| cap(&policy, limit, policy.burst.tokens_s, 1));
        for number in 0..requests {
            let share = tokens / requests + u64::from(number < tokens % requests);
            let charge = Charge { requests: 1, minute_tokens: share, day_tokens: 1, cost_microusd: 1 };
            let answer = item.reserve(charge, 60_000);
            prop_assert!(matches!(answer, Answer::Admitted(_)), "number {number} of {requests}, {tokens} tokens");
        }
    }
}

#[test]
fn a_refusal_at_an_edge_waits_for_the_next() {
    let limits = Limits { requests_per_minute: Some(12), ..Limits::default() };
    let mut item = Item::new(crate::item::policy(limits, 0));
    item.now_ms = item.now_ms.next_multiple_of(EPOCH_MS);
    let _ = item.admit(1);
    let Answer::Refused(_, retry_after_ms) = item.reserve(crate::item::charge(1), 1_000) else { panic!("admitted") };
    assert_eq!(retry_after_ms, EPOCH_MS);
}
