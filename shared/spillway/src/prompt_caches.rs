//! The pools that have conversations in their prompt caches, as this process knows it.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    clock::Clock,
    units::{Millis, UnixMs},
};

/// Number of conversations in a generation. At most twice as many are kept.
const MAX_GENERATION: usize = 10_000;

/// Remembers conversations by their hashes. Clones share the memory.
#[derive(Clone)]
pub struct PromptCaches {
    conversations: Arc<Mutex<RecentConversations>>,
    clock: Clock,
}

/// Conversations in two generations. When the newer is full, it becomes the older, so that the
/// conversations that were not used for longest are forgotten.
#[derive(Default)]
struct RecentConversations {
    newer: HashMap<u64, CachedConversation>,
    older: HashMap<u64, CachedConversation>,
}

struct CachedConversation {
    pool: Arc<str>,
    expires_at: UnixMs,
}

impl PromptCaches {
    /// Creates an empty memory.
    pub fn new(clock: Clock) -> Self {
        Self { conversations: Arc::default(), clock }
    }

    /// Returns the name of the pool whose prompt cache has `conversation`.
    pub fn pool(&self, conversation: u64) -> Option<Arc<str>> {
        let now = self.clock.now();
        let conversations = self.conversations.lock().unwrap_or_else(PoisonError::into_inner);
        let known = conversations.newer.get(&conversation).or_else(|| conversations.older.get(&conversation));
        known.filter(|known| known.expires_at > now).map(|known| Arc::clone(&known.pool))
    }

    /// Remembers that `pool` has `conversation` in its prompt cache for `lifetime` from now on.
    pub fn remember(&self, conversation: u64, pool: &str, lifetime: Millis) {
        let cached = CachedConversation { pool: Arc::from(pool), expires_at: self.clock.now() + lifetime };
        let mut conversations = self.conversations.lock().unwrap_or_else(PoisonError::into_inner);
        if conversations.newer.len() >= MAX_GENERATION && !conversations.newer.contains_key(&conversation) {
            conversations.older = mem::take(&mut conversations.newer);
        }
        conversations.newer.insert(conversation, cached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_known_until_its_cache_expires_and_use_renews_it() {
        let clock = Clock::default();
        let caches = PromptCaches::new(clock.clone());
        let lifetime = Millis::from_s(300);
        caches.remember(1, "a", lifetime);
        clock.advance(Millis::from_s(200));
        assert_eq!(caches.pool(1).as_deref(), Some("a"));
        caches.remember(1, "b", lifetime);
        clock.advance(Millis::from_s(200));
        assert_eq!(caches.pool(1).as_deref(), Some("b"));
        clock.advance(Millis::from_s(100));
        assert_eq!((caches.pool(1), caches.pool(2)), (None, None));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        let caches = PromptCaches::new(Clock::default());
        for number in 100..50_000 {
            caches.remember(number, "a", Millis::from_s(300));
            caches.remember(7, "a", Millis::from_s(300));
        }
        assert!(caches.pool(7).is_some() && caches.pool(49_999).is_some() && caches.pool(100).is_none());
        let kept = caches.conversations.lock().expect("not poisoned");
        assert!(kept.newer.len() + kept.older.len() <= 2 * MAX_GENERATION);
    }
}
