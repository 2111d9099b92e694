//! A refusal that is read from a remembered image, without asking the item.

use proptest::{collection::vec, prelude::*};
use spillway::quota::{Verdict, explain, too_large};

use crate::{
    item::{Answer, Item, charges},
    world::plan,
};

/// How long the product believes that an item is as it was.
const BELIEVED_MS: u64 = 500;

proptest! {
    #![proptest_config(crate::cases(2_000))]

    /// Others may be admitted meanwhile and free dead slots for it, under any share: only a settlement gives something
    /// back that the image does not show.
    #[test]
    fn a_remembered_image_only_refuses_what_the_item_would(
        plan in plan(),
        before in vec((charges(200), 1_000u64..30_000, 0u64..6_000), 1..25),
        meanwhile in vec((charges(200), 1_000u64..30_000, 70u64..=100), 0..6),
        asks in vec((charges(200), 70u64..=100), 1..8),
        later_ms in 0..BELIEVED_MS,
    ) {
        let mut item = Item::new(plan.policy(1, 100));
        let mut remembered = None;
        for (charge, lives_ms, wait_ms) in before {
            let charge = item.policy.fit(&charge);
            item.now_ms += wait_ms;
            remembered = matches!(item.reserve(charge, lives_ms), Answer::Refused(..)).then(|| item.image.clone());
        }
        let Some(remembered) = remembered else { return Ok(()) };
        for (charge, lives_ms, share_percent) in meanwhile {
            item.policy = plan.policy(1, share_percent);
            let charge = item.policy.fit(&charge);
            let _ = item.reserve(charge, lives_ms);
        }
        item.now_ms += later_ms;
        for (charge, share_percent) in asks {
            item.policy = plan.policy(1, share_percent);
            if !too_large(&plan.limits, &charge).is_empty() { continue; }
            if let Verdict::Refused(_) = explain(&item.policy, &charge, &remembered, item.now_ms) {
                let answer = item.reserve(charge, 30_000);
                prop_assert!(matches!(answer, Answer::Refused(..)), "{charge:?} would have been admitted");
            }
        }
    }
}
