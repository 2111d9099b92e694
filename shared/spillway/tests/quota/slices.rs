//! The slices of an account's shards add up to its limits.

use proptest::prelude::*;
use spillway::quota::{Charge, Limit, Limits, Policy, shards, too_large};

use crate::world::{cap, plan};

/// Generates the value of a limit, of any size.
fn limit() -> impl Strategy<Value = Option<u64>> {
    proptest::option::weighted(0.7, prop_oneof![1u64..100, 1u64..100_000, 1u64..1_000_000_000_000])
}

fn limits() -> impl Strategy<Value = Limits> {
    let values: Vec<_> = Limit::iter().map(|_| limit()).collect();
    values.prop_map(|values| {
        let mut limits = Limits::default();
        for (limit, value) in Limit::iter().zip(values) {
            *limits.get_mut(limit) = value;
        }
        limits
    })
}

proptest! {
    #![proptest_config(crate::cases(2_000))]

    #[test]
    fn the_slices_of_a_limit_add_up_to_it(limits in limits(), plan in plan(), shards in 1u64..=64) {
        let whole = Policy { limits, ..plan.policy(3, 81) };
        let slices: Vec<Policy> = (0..shards).map(|index| whole.slice(index, shards)).collect();
        for limit in Limit::iter() {
            let parts: Option<Vec<u64>> = slices.iter().map(|slice| slice.limits.get(limit)).collect();
            let sum = parts.as_ref().map(|parts| parts.iter().sum::<u64>());
            prop_assert_eq!(sum, limits.get(limit));
            let spread = parts.map(|parts| parts.iter().max().expect("a shard") - parts.iter().min().expect("a shard"));
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
        let slice_cap = |index| {
            let slice = whole.slice(index, shards);
            cap(&slice, slice.limits.tokens_per_minute.expect("limited"), plan.burst.tokens_s, age)
        };
        let sum: u64 = (0..shards).map(slice_cap).sum();
        let cap = cap(&whole, limit, plan.burst.tokens_s, age);
        prop_assert!(sum <= cap && cap - sum <= shards, "{sum} of {cap}");
    }

    #[test]
    fn every_shard_fits_any_request(limits in limits(), writes in 1u64..12, charge in (
        1u64..1_000_000_000, 1u64..1_000_000_000, 1u64..1_000_000_000,
    )) {
        let (minute_tokens, day_tokens, cost_microusd) = charge;
        let charge = Charge { requests: 1, minute_tokens, day_tokens, cost_microusd, ..Charge::ZERO };
        let shards = shards(&limits, writes);
        let whole = crate::item::policy(limits, 12);
        for slice in (0..shards).map(|index| whole.slice(index, shards)) {
            let min = if shards > 1 { 16 } else { 1 };
            prop_assert!(slice.limits.iter().all(|(_, value)| value >= min), "{:?}", slice);
            let fitted = slice.fit(&charge);
            prop_assert!(too_large(&slice.limits, &fitted).is_empty(), "{fitted:?} into {slice:?}");
            prop_assert_eq!(slice.fit(&fitted), fitted);
            prop_assert_eq!(fitted.max(charge), charge, "never more than before");
            prop_assert!(!too_large(&slice.limits, &charge).is_empty() || fitted == charge, "cut without need");
        }
    }
}
