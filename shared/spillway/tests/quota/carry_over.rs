//! Tokens that carry over: what a provisioned pool admits with its default burst.

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use spillway::{
    broker,
    pool::{Model, Pool},
    quota::{Burst, Charge, Policy, Reservation, Update, explain, reserve},
    units::{Millis, UnixMs},
};

use crate::{
    item::{Answer, Item, charge},
    world::{MINUTE_MS, START_MS},
};

/// Tokens per minute of the pool.
const LIMIT: u64 = 60_000;

/// Returns the policy of a pool with the default burst of its kind.
fn policy(kind: &str) -> Policy {
    policy_with(kind, &json!({}))
}

fn policy_with(kind: &str, burst: &Value) -> Policy {
    let limits = json!({"tokens_per_minute": LIMIT});
    let pool = json!({"name": "pool", "kind": kind, "model_id": "m", "limits": limits, "burst": burst});
    let pool: Pool = serde_json::from_value(pool).expect("a pool");
    let model = json!({"name": "m", "version": 1, "ladder": [pool]});
    let model: Model = serde_json::from_value(model).expect("a model");
    broker::account_for_pool(&model, &pool, 100).policy
}

/// Returns whether the item has room for `tokens` now. It does not change.
fn has_room(item: &Item, tokens: u64) -> bool {
    let reservation = Reservation::new(&item.policy, charge(tokens), item.now, item.now);
    item.image.admits(&reserve(&item.policy, &reservation, None))
}

/// Returns an item after requests that each follow the one before after some milliseconds.
fn used_item(before: &[(u64, u64)]) -> Item {
    let mut item = Item::new(policy("provisioned"));
    for (tokens, wait_ms) in before {
        item.now += Millis::from_ms(*wait_ms);
        let _ = item.reserve(charge(*tokens), MINUTE_MS);
    }
    item
}

fn requests(max_tokens: u64) -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec((1..=max_tokens, prop_oneof![9 => 0u64..2_000, 1 => 0u64..60_000]), 1..120)
}

proptest! {
    #![proptest_config(crate::cases(300))]

    /// The stream of small requests needs 1.5 to 6 times the limit, and none of them waits.
    #[test]
    fn a_large_request_that_waits_gets_its_turn_beside_small_ones(
        small in vec((100u64..2_000, 0u64..2), 1_500),
        large in LIMIT / 6..=LIMIT,
        demand_percent in 150u64..600,
    ) {
        let mut item = Item::new(policy("provisioned"));
        let mut arrival = item.now;
        let mut retry_at = None;
        let mut waits = 0;
        for (number, (tokens, extra_ms)) in small.into_iter().enumerate() {
            arrival += Millis::from_ms(tokens * MINUTE_MS * 100 / (LIMIT * demand_percent) + extra_ms);
            if number == 1_000 {
                retry_at = Some(item.now);
            }
            while let Some(at) = retry_at.filter(|at| *at <= arrival) {
                item.now = at;
                match item.reserve(charge(large), MINUTE_MS) {
                    Answer::Admitted(_) => return Ok(()),
                    Answer::Refused(_, retry_after) => retry_at = Some(at + retry_after),
                }
                waits += 1;
                prop_assert!(waits < 2, "refused at the time that was named");
            }
            item.now = arrival;
            let _ = item.reserve(charge(tokens), MINUTE_MS);
        }
        prop_assert!(false, "{large} tokens found no room");
    }

    #[test]
    fn the_size_of_a_request_does_not_decide_whether_it_is_admitted(
        before in requests(LIMIT / 10), wait_ms in 0u64..20_000, tokens in 1..=LIMIT,
    ) {
        let mut item = used_item(&before);
        item.now += Millis::from_ms(wait_ms);
        prop_assert_eq!(has_room(&item, tokens), has_room(&item, 1));
        let named = |tokens| explain(&item.policy, &charge(tokens), &item.image, item.now);
        prop_assert_eq!(named(tokens), named(1));
    }

    /// The requests before the last one of any span of up to 275 s, which lies in a window, keep to
    /// a token bucket that holds a minute's worth.
    #[test]
    fn a_pool_exceeds_a_bucket_of_a_minute_only_by_its_last_request(requests in requests(LIMIT)) {
        let mut item = Item::new(policy("provisioned"));
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for (tokens, wait_ms) in requests {
            item.now += Millis::from_ms(wait_ms);
            if let Answer::Admitted(_) = item.reserve(charge(tokens), MINUTE_MS) {
                let now_ms = item.now.as_ms();
                let mut used = 0;
                let in_window = |(at_ms, _): &&(u64, u64)| now_ms - at_ms <= 275_000;
                for (at_ms, tokens) in admitted.iter().rev().take_while(in_window) {
                    used += tokens;
                    let bucket = LIMIT + (now_ms - at_ms) * LIMIT / MINUTE_MS;
                    prop_assert!(used <= bucket, "{used} of {bucket} in {} ms", now_ms - at_ms);
                }
                admitted.push((now_ms, tokens));
            }
        }
    }

    /// Five minutes hold at most five minutes' worth and a last request.
    #[test]
    fn an_overload_is_served_at_the_rate_of_the_limit(tokens in 100u64..LIMIT / 10, minutes in 10u64..20) {
        let mut item = Item::new(policy("provisioned"));
        let end = item.now + Millis::from_ms(minutes * MINUTE_MS);
        let mut served = 0;
        while item.now < end {
            match item.reserve(charge(tokens), 1_000) {
                Answer::Admitted(reservation) => {
                    served += tokens;
                    prop_assert!(item.settle(&reservation, charge(tokens)), "not settled");
                }
                Answer::Refused(_, retry_after) => item.now += retry_after,
            }
        }
        prop_assert!(served <= (minutes + 1) * LIMIT + tokens, "{served} in {minutes} minutes");
        prop_assert!(served >= minutes * LIMIT, "{served} in {minutes} minutes");
    }
}

#[test]
fn only_provisioned_pools_that_are_not_strict_carry_over() {
    let burst = |kind, burst: Value| {
        let Burst { requests_s, tokens_s, carries_over, .. } = policy_with(kind, &burst).burst;
        (requests_s, tokens_s, carries_over)
    };
    assert_eq!(burst("on_demand", json!({})), (5, 5, false));
    assert_eq!(burst("provisioned", json!({})), (5, 35, true));
    assert_eq!(burst("provisioned", json!({"requests_s": 1, "tokens_s": 10})), (1, 10, true));
    assert_eq!(burst("provisioned", json!({"strict": true})), (5, 5, false));
}

/// A reservation under windows of five minutes is no larger than one under windows of a minute.
#[test]
fn a_write_has_no_more_conditions_updates_or_bytes() {
    let write = |kind| {
        let policy = policy(kind);
        let now = UnixMs::from_ms(START_MS);
        reserve(&policy, &Reservation::new(&policy, charge(1), now, now), None)
    };
    let (carried, minute) = (write("provisioned"), write("on_demand"));
    assert_eq!(carried.conditions.len(), minute.conditions.len());
    let bytes = |updates: &[Update]| updates.iter().map(|update| update.attribute().name().len()).sum::<usize>();
    assert_eq!(carried.updates.len(), minute.updates.len());
    assert!(bytes(&carried.updates) <= bytes(&minute.updates));
}

/// The usage beyond the reserve is paid back before the next request.
#[test]
fn a_debt_is_paid_back_at_the_rate_of_the_limit() {
    let mut item = Item::new(policy("provisioned"));
    let reservation = item.admit(1_000);
    assert!(item.settle(&reservation, Charge { minute_tokens: LIMIT, ..charge(1_000) }));
    let Answer::Refused(_, retry_after) = item.reserve(charge(1), 1_000) else { panic!("admitted") };
    assert!((Millis::from_s(20)..Millis::from_s(30)).contains(&retry_after), "{retry_after}");
    item.now += retry_after;
    let _ = item.admit(LIMIT);
}
