//! Recent refusals: an item that was full a moment ago refuses without a write.
//!
//! The cache only ever refuses. Requests that it does not refuse go to the item. So a storm of
//! refused requests does not become a storm of writes that delays the tenant's own settlements.

use std::sync::Arc;

use crate::{
    clock::Clock,
    quota::{self, Charge, Image, Limit, Policy, Refusal, Verdict},
    units::{Millis, UnixMs},
};

/// Maximum number of items in the cache.
const MAX_ITEMS: usize = 10_000;

/// Time for which a cached image stays valid. The cache does not see amounts that other processes
/// give back in the meantime.
const VALID_FOR: Millis = Millis::from_ms(500);

/// Time for which it stays valid if only requests in flight refuse: slots become free at any
/// moment.
const SLOTS_VALID_FOR: Millis = Millis::from_ms(100);

#[derive(Clone)]
pub(super) struct RecentRefusals {
    items: Arc<quick_cache::sync::Cache<String, Arc<FullItem>>>,
    clock: Clock,
}

struct FullItem {
    image: Image,
    at: UnixMs,
}

impl RecentRefusals {
    pub(super) fn new(clock: Clock) -> Self {
        Self { items: Arc::new(quick_cache::sync::Cache::new(MAX_ITEMS)), clock }
    }

    /// Returns the refusal of `charge` by the cached image of the item, if that is still valid.
    pub(super) fn find(&self, key: &str, policy: &Policy, charge: &Charge) -> Option<(Refusal, Image)> {
        let item = self.items.get(key)?;
        let now = self.clock.now();
        let Verdict::Refused(refusal) = quota::explain(policy, charge, &item.image, now) else { return None };
        is_recent(&refusal, now - item.at).then(|| (refusal, item.image.clone()))
    }

    /// Stores the image of an item that refused.
    pub(super) fn refused(&self, key: &str, image: &Image) {
        self.items.insert(key.to_owned(), Arc::new(FullItem { image: image.clone(), at: self.clock.now() }));
    }

    /// Updates the image of an item that accepted a write, if the item is in the cache.
    pub(super) fn changed(&self, key: &str, image: &Image) {
        if self.items.peek(key).is_some() {
            self.refused(key, image);
        }
    }
}

/// Returns whether `refusal`, read from an image of this age, is still valid.
pub fn is_recent(refusal: &Refusal, age: Millis) -> bool {
    let only_in_flight = refusal.limits.iter().all(|refused| refused.limit == Limit::InFlight);
    age < if only_in_flight { SLOTS_VALID_FOR } else { VALID_FOR }
}
