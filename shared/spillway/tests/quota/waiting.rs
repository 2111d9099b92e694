//! Waiting: a refused request fits at the named time and not before, and after a rest the whole
//! burst fits again.

use proptest::{collection::vec, prelude::*};
use spillway::{
    quota::{CARRY_EPOCH, Charge, EPOCH, EPOCHS, Limits, Policy, too_large},
    units::{Millis, UnixMs},
};

use crate::{
    item::{Answer, Item, charges},
    world::{MINUTE_MS, cap, carry_cap, plan},
};

/// Generates the policy of a single caller on one item.
fn policy() -> impl Strategy<Value = Policy> {
    (plan(), prop_oneof![3 => Just(100u64), 1 => Just(90), 1 => Just(81), 1 => Just(70)])
        .prop_map(|(plan, share_percent)| plan.policy(1, share_percent))
}

proptest! {
    #![proptest_config(crate::cases(2_000))]

    /// Covers all limits but requests in flight, whose release time is unknown.
    #[test]
    fn a_refusal_names_the_first_time_at_which_the_request_fits(
        policy in policy(),
        asks in vec((charges(600), 0u64..7_000, proptest::option::of(0u64..160)), 1..40),
    ) {
        let policy = Policy { limits: Limits { in_flight: None, ..policy.limits }, ..policy };
        let mut item = Item::new(policy);
        for (charge, wait_ms, settle_percent) in asks {
            item.now += Millis::from_ms(wait_ms);
            if !too_large(&policy.limits, &charge).is_empty() { continue; }
            match (item.reserve(charge, 60_000), settle_percent) {
                (Answer::Admitted(reservation), Some(percent)) => {
                    let minute_tokens = charge.minute_tokens * percent / 100;
                    prop_assert!(item.settle(&reservation, Charge { minute_tokens, ..charge }), "not settled");
                }
                (Answer::Admitted(_), None) => {}
                (Answer::Refused(_, retry_after), _) => {
                    let refused_at = item.now;
                    item.now = refused_at + retry_after - Millis::from_ms(1);
                    prop_assert!(matches!(item.reserve(charge, 60_000), Answer::Refused(..)), "admitted too early");
                    item.now = refused_at + retry_after;
                    prop_assert!(matches!(item.reserve(charge, 60_000), Answer::Admitted(_)), "refused at its time");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(1_000))]

    /// Requests may settle, die or incur debt. When all windows of the last request have ended, and
    /// dead requests count as dead, a whole burst is admitted.
    #[test]
    fn after_a_rest_the_whole_burst_is_back(
        policy in policy(),
        asks in vec((charges(600), 1_000u64..40_000, 0u64..4_000, proptest::option::of(0u64..160)), 1..30),
    ) {
        let limits = Limits { tokens_per_day: None, microusd_per_month: None, ..policy.limits };
        let policy = Policy { limits, ..policy };
        let mut item = Item::new(policy);
        for (charge, lives_ms, wait_ms, settle_percent) in asks {
            item.now += Millis::from_ms(wait_ms);
            if !too_large(&limits, &charge).is_empty() { continue; }
            if let (Answer::Admitted(reservation), Some(percent)) = (item.reserve(charge, lives_ms), settle_percent) {
                let minute_tokens = charge.minute_tokens * percent / 100;
                prop_assert!(item.settle(&reservation, Charge { minute_tokens, ..charge }), "not settled");
            }
        }
        let carries_over = policy.burst.carries_over;
        item.now += if carries_over { CARRY_EPOCH * EPOCHS } else { Millis::from_ms(MINUTE_MS) };
        let burst = |limit: Option<u64>, burst_s| limit.map(|limit| cap(&policy, limit, burst_s, 1).max(1));
        let in_flight = limits.in_flight.map(|limit| (limit * policy.share_percent / 100).max(1));
        let requests = [burst(limits.requests_per_minute, policy.burst.requests_s), in_flight, Some(50)];
        let requests = requests.into_iter().flatten().min().expect("a bound");
        let tokens = limits.tokens_per_minute.map_or(0, |limit| match carries_over {
            true => carry_cap(&policy, limit, 0),
            false => cap(&policy, limit, policy.burst.tokens_s, 1),
        });
        for number in 0..requests {
            let share = tokens / requests + u64::from(number < tokens % requests);
            let charge = Charge { requests: 1, minute_tokens: share, day_tokens: 1, cost_microusd: 1, ..Charge::ZERO };
            let answer = item.reserve(charge, 60_000);
            prop_assert!(matches!(answer, Answer::Admitted(_)), "number {number} of {requests}, {tokens} tokens");
        }
    }
}

#[test]
fn a_refusal_at_an_epoch_boundary_waits_for_the_next() {
    let limits = Limits { requests_per_minute: Some(12), ..Limits::default() };
    let mut item = Item::new(crate::item::policy(limits, 0));
    item.now = UnixMs::from_ms(item.now.as_ms().next_multiple_of(EPOCH.as_ms()));
    let _ = item.admit(1);
    let Answer::Refused(_, retry_after) = item.reserve(crate::item::charge(1), 1_000) else { panic!("admitted") };
    assert_eq!(retry_after, EPOCH);
}
