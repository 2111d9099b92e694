//! What was full a moment ago: refusals that cost no write.
//!
//! It only ever refuses: whatever it does not refuse is asked of the item itself. So a storm of refused requests does not
//! become a storm of writes that keeps the tenant's own settlements out.

use std::sync::Arc;

use crate::{
    clock::Clock,
    quota::{self, Charge, Image, Policy, Refusal, Verdict},
};

/// How many items are remembered.
const REMEMBERED: usize = 10_000;

#[derive(Clone)]
pub(super) struct Denials {
    seen: Arc<quick_cache::sync::Cache<String, Arc<Seen>>>,
    clock: Clock,
}

struct Seen {
    image: Image,
    at_ms: u64,
}

impl Denials {
    pub(super) fn new(clock: Clock) -> Self {
        Self { seen: Arc::new(quick_cache::sync::Cache::new(REMEMBERED)), clock }
    }

    /// Why the item would refuse `charge`, if it is still as it was when it last refused something.
    pub(super) fn find(&self, key: &str, policy: &Policy, charge: &Charge) -> Option<(Refusal, Image)> {
        let seen = self.seen.get(key)?;
        let now_ms = self.clock.now_ms();
        let age_ms = now_ms.saturating_sub(seen.at_ms);
        let Verdict::Refused(refusal) = quota::explain(policy, charge, &seen.image, now_ms) else { return None };
        quota::is_believed(&refusal, age_ms).then(|| (refusal, seen.image.clone()))
    }

    /// The item refused; this is what it held.
    pub(super) fn refused(&self, key: &str, image: &Image) {
        self.seen.insert(key.to_owned(), Arc::new(Seen { image: image.clone(), at_ms: self.clock.now_ms() }));
    }

    /// The item took a write; this is what it holds now. Only of interest if it was remembered as full.
    pub(super) fn changed(&self, key: &str, image: &Image) {
        if self.seen.peek(key).is_some() {
            self.refused(key, image);
        }
    }
}
