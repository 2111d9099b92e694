//! What the shards of an account hold adds up to what the account may hold.

use proptest::prelude::*;
use spillway::quota::{Charge, Limits, Policy, shards, too_large};

use crate::world::{cap, plan};

/// A limit of any size.
fn limit() -> impl Strategy<Value = Option<u64>> {
    proptest::option::weighted(0.7, prop_oneof![1u64..100, 1u64..100_000, 1u64..1_000_000_000_000])
}

fn limits() -> impl Strategy<Value = Limits> {
    (limit(), limit(), limit(), limit(), limit()).prop_map(|(requests, tokens, day, in_flight, month)| Limits {
        requests_per_minute: requests,
        tokens_per_minute: tokens,
        tokens_per_day: day,
        in_flight,
        microusd_per_month: month,
    })
}

fn all(limits: &Limits) -> [Option<u64>; 5] {
    let Limits { requests_per_minute, tokens_per_minute, tokens_per_day, in_flight, microusd_per_month } = *limits;
    [requests_per_minute, tokens_per_minute, tokens_per_day, in_flight, microusd_per_month]
}

proptest! {
    #![proptest_config(crate::cases(2_000))]

    #[test]
    fn the_slices_of_a_limit_add_up_to_it(limits in limits(), plan in plan(), shards in 1u64..=64) {
        let whole = Policy { limits, ..plan.policy(3, 81) };
        let slices: Vec<Policy> = (0..shards).map(|index| whole.slice(index, shards)).collect();
        for (place, limit) in all(&limits).into_iter().enumerate() {
            let parts: Option<Vec<u64>> = slices.iter().map(|slice| all(&slice.limits)[place]).collect();
            let sum = parts.as_ref().map(|parts| parts.iter().sum::<u64>());
            prop_assert_eq!(sum, limit);
            let spread = parts.map(|parts| parts.iter().max().expect("one") - parts.iter().min().expect("one"));
            prop_assert!(spread.is_none_or(|spread| spread <= 1), "slices differ by {:?}", spread);
        }
        for slice in &slices {
            prop_assert_eq!((slice.version, slice.burst, slice.share_percent), (3, plan.burst, 81));
        }
    }

    #[test]
    fn the_caps_of_the_slices_never_exceed_the_cap_of_the_whole(
        plan in plan(), limit in 1u64..1_000_000, shards in 1u64..=64, age in 1u64..=12,
    ) {
        let whole = Policy {
            limits: Limits { tokens_per_minute: Some(limit), ..Limits::default() }, ..plan.policy(1, 90)
        };
        let of_slice = |index| {
            let slice = whole.slice(index, shards);
            cap(&slice, slice.limits.tokens_per_minute.expect("limited"), plan.burst.tokens_s, age)
        };
        let sum: u64 = (0..shards).map(of_slice).sum();
        let cap = cap(&whole, limit, plan.burst.tokens_s, age);
        prop_assert!(sum <= cap && cap - sum <= shards, "{sum} of {cap}");
    }

    #[test]
    fn every_shard_gets_enough_for_any_request(limits in limits(), writes in 1u64..12, charge in (
        1u64..1_000_000_000, 1u64..1_000_000_000, 1u64..1_000_000_000,
    )) {
        let (minute_tokens, day_tokens, cost_microusd) = charge;
        let charge = Charge { requests: 1, minute_tokens, day_tokens, cost_microusd };
        let shards = shards(&limits, writes);
        let whole = crate::item::policy(limits, 12);
        for slice in (0..shards).map(|index| whole.slice(index, shards)) {
            let least = if shards > 1 { 16 } else { 1 };
            prop_assert!(all(&slice.limits).into_iter().flatten().all(|limit| limit >= least), "{:?}", slice);
            let fitted = slice.fit(&charge);
            prop_assert!(too_large(&slice.limits, &fitted).is_empty(), "{fitted:?} into {slice:?}");
            prop_assert_eq!(slice.fit(&fitted), fitted);
            prop_assert_eq!(fitted.dearest(charge), charge, "never more than it was");
            prop_assert!(!too_large(&slice.limits, &charge).is_empty() || fitted == charge, "cut without need");
        }
    }
}
