//! Refusals that are read from a cached image, without a write to the item.

use proptest::{collection::vec, prelude::*};
use spillway::{
    quota::{Verdict, explain, too_large},
    units::Millis,
};

use crate::{
    item::{Answer, Item, charges},
    world::plan,
};

/// Time for which the product uses a cached image, in milliseconds.
const VALID_FOR_MS: u64 = 500;

proptest! {
    #![proptest_config(crate::cases(2_000))]

    /// In the meantime, other requests may be admitted and may free dead slots, under any share.
    /// Only a settlement refunds an amount that the image does not show.
    #[test]
    fn a_cached_image_refuses_only_requests_that_the_item_refuses(
        plan in plan(),
        before in vec((charges(200), 1_000u64..30_000, 0u64..6_000), 1..25),
        meanwhile in vec((charges(200), 1_000u64..30_000, 70u64..=100), 0..6),
        asks in vec((charges(200), 70u64..=100), 1..8),
        later_ms in 0..VALID_FOR_MS,
    ) {
        let mut item = Item::new(plan.policy(1, 100));
        let mut cached = None;
        for (charge, lives_ms, wait_ms) in before {
            let charge = item.policy.fit(&charge);
            item.now += Millis::from_ms(wait_ms);
            cached = matches!(item.reserve(charge, lives_ms), Answer::Refused(..)).then(|| item.image.clone());
        }
        let Some(cached) = cached else { return Ok(()) };
        for (charge, lives_ms, share_percent) in meanwhile {
            item.policy = plan.policy(1, share_percent);
            let charge = item.policy.fit(&charge);
            let _ = item.reserve(charge, lives_ms);
        }
        item.now += Millis::from_ms(later_ms);
        for (charge, share_percent) in asks {
            item.policy = plan.policy(1, share_percent);
            if !too_large(&plan.limits, &charge).is_empty() { continue; }
            if let Verdict::Refused(_) = explain(&item.policy, &charge, &cached, item.now) {
                let answer = item.reserve(charge, 30_000);
                prop_assert!(matches!(answer, Answer::Refused(..)), "{charge:?} would have been admitted");
            }
        }
    }
}
