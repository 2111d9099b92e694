//! Cache of rows, so that the hot path does not read them on every request.

use std::sync::{Arc, Mutex, PoisonError};

use super::StoreError;
use crate::{
    clock::Clock,
    units::{Millis, UnixMs},
};

/// Maximum age of a row that is used while the store is unavailable. A short outage of the store
/// must not affect callers, and a long outage must not keep revoked keys alive.
const MAX_STALE_AGE: Millis = Millis::from_s(60);

/// How long after a failed read a stale row is used without another read, so that not every request
/// waits for the next failure.
const RETRY_AFTER: Millis = Millis::from_s(1);

/// The row of a key. `None`, that there is no row, is cached too.
type CachedRow<V> = Option<Arc<V>>;

/// A bounded cache of rows.
pub(super) struct Cache<V> {
    entries: quick_cache::sync::Cache<String, Arc<CacheEntry<V>>>,
    ttl: Millis,
    clock: Clock,
}

struct CacheEntry<V> {
    reads: Mutex<LastReads<V>>,
    /// Held during a read, so that concurrent requests for the same key share it.
    read_lock: tokio::sync::Mutex<()>,
}

struct LastReads<V> {
    /// The start and the result of the last successful read.
    success: Option<(UnixMs, CachedRow<V>)>,
    /// The time and the error of the last failed read.
    failure: Option<(UnixMs, StoreError)>,
}

impl<V> Cache<V> {
    pub(super) fn new(capacity: usize, ttl: Millis, clock: Clock) -> Self {
        Self { entries: quick_cache::sync::Cache::new(capacity), ttl, clock }
    }

    /// Returns the cached row of `key` if it is fresh. Otherwise reads it with `read`. Concurrent
    /// requests share one read.
    ///
    /// # Errors
    /// Returns an error if the read fails and the cached row is too old.
    pub(super) async fn get(
        &self,
        key: &str,
        read: impl Future<Output = Result<Option<V>, StoreError>>,
    ) -> Result<CachedRow<V>, StoreError> {
        let requested_at = self.clock.now();
        let entry = self.entry(key);
        if let Some(row) = entry.usable(self.ttl, requested_at) {
            return Ok(row);
        }
        let _read_lock = entry.read_lock.lock().await;
        if let Some(result) = entry.read_since(requested_at, self.ttl, self.clock.now()) {
            return result;
        }
        let started_at = self.clock.now();
        let result = read.await;
        entry.store(result, started_at, self.clock.now())
    }

    /// Caches the row of `key`, which was just written.
    pub(super) fn put(&self, key: &str, row: V) {
        let now = self.clock.now();
        // Storing a successful read cannot fail.
        let _ = self.entry(key).store(Ok(Some(row)), now, now);
    }

    /// Makes the next request for `key` read the store.
    pub(super) fn forget(&self, key: &str) {
        self.entries.remove(key);
    }

    fn entry(&self, key: &str) -> Arc<CacheEntry<V>> {
        if let Some(entry) = self.entries.get(key) {
            return entry;
        }
        match self.entries.get_or_insert_with(key, || Ok::<_, std::convert::Infallible>(Arc::new(CacheEntry::new()))) {
            Ok(entry) => entry,
            Err(never) => match never {},
        }
    }
}

impl<V> CacheEntry<V> {
    fn new() -> Self {
        Self { reads: Mutex::new(LastReads { success: None, failure: None }), read_lock: tokio::sync::Mutex::new(()) }
    }

    fn usable(&self, ttl: Millis, now: UnixMs) -> Option<CachedRow<V>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).usable(ttl, now)
    }

    /// Returns the result of a read that ended after `requested_at`, successful or not.
    fn read_since(&self, requested_at: UnixMs, ttl: Millis, now: UnixMs) -> Option<Result<CachedRow<V>, StoreError>> {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = reads.usable(ttl, now) {
            return Some(Ok(row));
        }
        let (failed_at, error) = reads.failure.as_ref()?;
        (*failed_at > requested_at).then(|| reads.younger_than(MAX_STALE_AGE, now).ok_or_else(|| error.clone()))
    }

    fn store(
        &self,
        result: Result<Option<V>, StoreError>,
        started_at: UnixMs,
        now: UnixMs,
    ) -> Result<CachedRow<V>, StoreError> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(row) => {
                let row = row.map(Arc::new);
                *reads = LastReads { success: Some((started_at, row.clone())), failure: None };
                Ok(row)
            }
            Err(error) => {
                reads.failure = Some((now, error.clone()));
                let stale = reads.younger_than(MAX_STALE_AGE, now);
                tracing::warn!(%error, served_stale = stale.is_some(), "failed to read the registry");
                stale.ok_or(error)
            }
        }
    }
}

impl<V> LastReads<V> {
    fn usable(&self, ttl: Millis, now: UnixMs) -> Option<CachedRow<V>> {
        let has_just_failed = self.failure.as_ref().is_some_and(|(failed_at, _)| now - *failed_at < RETRY_AFTER);
        self.younger_than(if has_just_failed { MAX_STALE_AGE } else { ttl }, now)
    }

    fn younger_than(&self, max_age: Millis, now: UnixMs) -> Option<CachedRow<V>> {
        let (read_at, row) = self.success.as_ref()?;
        (now - *read_at < max_age).then(|| row.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use super::*;

    const TTL: Millis = Millis::from_s(600);

    struct Store {
        cache: Cache<u32>,
        clock: Clock,
        reads: AtomicU32,
    }

    fn store(ttl: Millis) -> Store {
        let clock = Clock::default();
        Store { cache: Cache::new(100, ttl, clock.clone()), clock, reads: AtomicU32::new(0) }
    }

    impl Store {
        async fn get(&self, found: Result<Option<u32>, StoreError>) -> Result<Option<u32>, StoreError> {
            let row = self.cache.get("key", async {
                self.reads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                found
            });
            Ok(row.await?.map(|row| *row))
        }

        fn reads(&self) -> u32 {
            self.reads.load(Ordering::Relaxed)
        }
    }

    fn down() -> StoreError {
        StoreError::Unavailable("down".into())
    }

    #[tokio::test]
    async fn a_row_is_read_once_until_it_expires() {
        let store = store(TTL);
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
        assert_eq!(store.get(Ok(Some(2))).await, Ok(Some(1)));
        store.clock.advance(TTL);
        assert_eq!(store.get(Ok(Some(3))).await, Ok(Some(3)));
        assert_eq!(store.reads(), 2);
    }

    #[tokio::test]
    async fn the_absence_of_a_row_is_cached_too() {
        let store = store(TTL);
        assert_eq!(store.get(Ok(None)).await, Ok(None));
        assert_eq!(store.get(Ok(Some(1))).await, Ok(None));
        assert_eq!(store.reads(), 1);
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_read() {
        let store = store(TTL);
        let requests = (0..50).map(|_| store.get(Ok(Some(7))));
        assert_eq!(futures_util::future::join_all(requests).await, vec![Ok(Some(7)); 50]);
        assert_eq!(store.reads(), 1);
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_failure() {
        let store = store(TTL);
        let requests = (0..50).map(|_| store.get(Err(down())));
        assert_eq!(futures_util::future::join_all(requests).await, vec![Err(down()); 50]);
        assert_eq!(store.reads(), 1);
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)), "a failure is not cached");
    }

    #[tokio::test]
    async fn a_stale_row_is_used_for_a_minute_while_the_store_fails() {
        let store = store(Millis::from_s(2));
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
        store.clock.advance(Millis::from_s(30));
        assert_eq!(store.get(Err(down())).await, Ok(Some(1)));
        assert_eq!(store.get(Err(down())).await, Ok(Some(1)));
        assert_eq!(store.reads(), 2, "no second read within a second of a failure");
        store.clock.advance(Millis::from_s(30));
        assert_eq!(store.get(Err(down())).await, Err(down()));
    }

    #[tokio::test]
    async fn a_forgotten_row_is_read_again() {
        let store = store(TTL);
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
        store.cache.forget("key");
        assert_eq!(store.get(Ok(Some(2))).await, Ok(Some(2)));
    }

    #[tokio::test]
    async fn a_read_that_is_dropped_does_not_block_the_next() {
        let store = store(TTL);
        let dropped = tokio::time::timeout(
            Duration::from_millis(1),
            store.cache.get("key", std::future::pending::<Result<Option<u32>, StoreError>>()),
        );
        assert!(dropped.await.is_err());
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
    }

    #[tokio::test]
    async fn keys_that_do_not_exist_do_not_fill_the_memory() {
        let store = store(TTL);
        for key in 0..10_000 {
            assert_eq!(store.cache.get(&key.to_string(), async { Ok(None) }).await, Ok(None));
        }
        assert!(store.cache.entries.len() <= 100, "{}", store.cache.entries.len());
    }
}
