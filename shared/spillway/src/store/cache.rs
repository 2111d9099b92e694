//! Rows kept for a moment, so that the hot path does not read them on every request.

use std::sync::{Arc, Mutex, PoisonError};

use super::StoreError;
use crate::clock::Clock;

/// How long past its reading a row may still be used while the store does not answer, in milliseconds. A short
/// failure of the store must not be everybody's; a long one must not keep revoked keys alive.
const STALE_MS: u64 = 60_000;

/// How long after a failed reading a stale row is used at once, so that not every request waits for the next failure.
const RETRY_AFTER_MS: u64 = 1_000;

/// What was read for a key; that there was nothing is kept too.
type Value<V> = Option<Arc<V>>;

/// A bounded cache of what a reader returns.
pub(super) struct Cache<V> {
    entries: quick_cache::sync::Cache<String, Arc<Entry<V>>>,
    ttl_ms: u64,
    clock: Clock,
}

struct Entry<V> {
    seen: Mutex<Seen<V>>,
    /// Held by whoever reads, so that those who come meanwhile wait for that one reading.
    reading: tokio::sync::Mutex<()>,
}

struct Seen<V> {
    /// When the last successful reading began, and what it found.
    value: Option<(u64, Value<V>)>,
    /// When the last reading failed, and how.
    failure: Option<(u64, StoreError)>,
}

impl<V> Cache<V> {
    pub(super) fn new(capacity: usize, ttl_ms: u64, clock: Clock) -> Self {
        Self { entries: quick_cache::sync::Cache::new(capacity), ttl_ms, clock }
    }

    /// What is kept for `key` if it is fresh, else what `read` finds. Where several ask at once, one reads for all.
    pub(super) async fn get(
        &self,
        key: &str,
        read: impl Future<Output = Result<Option<V>, StoreError>>,
    ) -> Result<Value<V>, StoreError> {
        let asked_ms = self.clock.now_ms();
        let entry = self.entry(key);
        if let Some(value) = entry.usable(self.ttl_ms, asked_ms) {
            return Ok(value);
        }
        let _reading = entry.reading.lock().await;
        if let Some(answer) = entry.read_since(asked_ms, self.ttl_ms, self.clock.now_ms()) {
            return answer;
        }
        let begun_ms = self.clock.now_ms();
        let found = read.await;
        entry.keep(found, begun_ms, self.clock.now_ms())
    }

    /// Keeps what was just written for `key`.
    pub(super) fn put(&self, key: &str, value: V) {
        let now_ms = self.clock.now_ms();
        // Keeping what is there cannot fail.
        let _ = self.entry(key).keep(Ok(Some(value)), now_ms, now_ms);
    }

    /// Makes the next reader of `key` read the store.
    pub(super) fn forget(&self, key: &str) {
        self.entries.remove(key);
    }

    fn entry(&self, key: &str) -> Arc<Entry<V>> {
        if let Some(entry) = self.entries.get(key) {
            return entry;
        }
        match self.entries.get_or_insert_with(key, || Ok::<_, std::convert::Infallible>(Arc::new(Entry::new()))) {
            Ok(entry) => entry,
            Err(never) => match never {},
        }
    }
}

impl<V> Entry<V> {
    fn new() -> Self {
        Self { seen: Mutex::new(Seen { value: None, failure: None }), reading: tokio::sync::Mutex::new(()) }
    }

    fn usable(&self, ttl_ms: u64, now_ms: u64) -> Option<Value<V>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).usable(ttl_ms, now_ms)
    }

    /// The outcome of a reading that ended while one waited for it since `asked_ms`, whether it went well or not.
    fn read_since(&self, asked_ms: u64, ttl_ms: u64, now_ms: u64) -> Option<Result<Value<V>, StoreError>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = seen.usable(ttl_ms, now_ms) {
            return Some(Ok(value));
        }
        let (failed_ms, error) = seen.failure.as_ref()?;
        (*failed_ms > asked_ms).then(|| seen.younger_than(STALE_MS, now_ms).ok_or_else(|| error.clone()))
    }

    fn keep(&self, found: Result<Option<V>, StoreError>, begun_ms: u64, now_ms: u64) -> Result<Value<V>, StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(value) => {
                let value = value.map(Arc::new);
                *seen = Seen { value: Some((begun_ms, value.clone())), failure: None };
                Ok(value)
            }
            Err(error) => {
                seen.failure = Some((now_ms, error.clone()));
                let stale = seen.younger_than(STALE_MS, now_ms);
                tracing::warn!(%error, served_stale = stale.is_some(), "the registry could not be read");
                stale.ok_or(error)
            }
        }
    }
}

impl<V> Seen<V> {
    fn usable(&self, ttl_ms: u64, now_ms: u64) -> Option<Value<V>> {
        let failed_just_now =
            self.failure.as_ref().is_some_and(|(failed_ms, _)| now_ms.saturating_sub(*failed_ms) < RETRY_AFTER_MS);
        self.younger_than(if failed_just_now { STALE_MS } else { ttl_ms }, now_ms)
    }

    fn younger_than(&self, age_ms: u64, now_ms: u64) -> Option<Value<V>> {
        let (read_ms, value) = self.value.as_ref()?;
        (now_ms.saturating_sub(*read_ms) < age_ms).then(|| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use super::*;

    const TTL_MS: u64 = 600_000;

    struct Store {
        cache: Cache<u32>,
        clock: Clock,
        readings: AtomicU32,
    }

    fn store(ttl_ms: u64) -> Store {
        let clock = Clock::default();
        Store { cache: Cache::new(100, ttl_ms, clock.clone()), clock, readings: AtomicU32::new(0) }
    }

    impl Store {
        async fn get(&self, found: Result<Option<u32>, StoreError>) -> Result<Option<u32>, StoreError> {
            let value = self.cache.get("key", async {
                self.readings.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                found
            });
            Ok(value.await?.map(|value| *value))
        }

        fn readings(&self) -> u32 {
            self.readings.load(Ordering::Relaxed)
        }
    }

    fn down() -> StoreError {
        StoreError::Unavailable("down".into())
    }

    #[tokio::test]
    async fn a_value_is_read_once_until_its_time_is_over() {
        let store = store(TTL_MS);
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
        assert_eq!(store.get(Ok(Some(2))).await, Ok(Some(1)));
        store.clock.advance(crate::units::Millis::from_ms(TTL_MS));
        assert_eq!(store.get(Ok(Some(3))).await, Ok(Some(3)));
        assert_eq!(store.readings(), 2);
    }

    #[tokio::test]
    async fn that_there_is_nothing_is_kept_too() {
        let store = store(TTL_MS);
        assert_eq!(store.get(Ok(None)).await, Ok(None));
        assert_eq!(store.get(Ok(Some(1))).await, Ok(None));
        assert_eq!(store.readings(), 1);
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_reading() {
        let store = store(TTL_MS);
        let asks = (0..50).map(|_| store.get(Ok(Some(7))));
        assert_eq!(futures_util::future::join_all(asks).await, vec![Ok(Some(7)); 50]);
        assert_eq!(store.readings(), 1);
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_failure() {
        let store = store(TTL_MS);
        let asks = (0..50).map(|_| store.get(Err(down())));
        assert_eq!(futures_util::future::join_all(asks).await, vec![Err(down()); 50]);
        assert_eq!(store.readings(), 1);
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)), "a failure is not kept");
    }

    #[tokio::test]
    async fn a_stale_value_outlives_a_failure_of_the_store_by_a_minute() {
        let store = store(2_000);
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
        store.clock.advance(crate::units::Millis::from_ms(30_000));
        assert_eq!(store.get(Err(down())).await, Ok(Some(1)));
        assert_eq!(store.get(Err(down())).await, Ok(Some(1)));
        assert_eq!(store.readings(), 2, "nobody waits for the next failure within a second");
        store.clock.advance(crate::units::Millis::from_ms(30_000));
        assert_eq!(store.get(Err(down())).await, Err(down()));
    }

    #[tokio::test]
    async fn a_forgotten_value_is_read_again() {
        let store = store(TTL_MS);
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
        store.cache.forget("key");
        assert_eq!(store.get(Ok(Some(2))).await, Ok(Some(2)));
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_does_not_block_the_next() {
        let store = store(TTL_MS);
        let gone = tokio::time::timeout(
            Duration::from_millis(1),
            store.cache.get("key", std::future::pending::<Result<Option<u32>, StoreError>>()),
        );
        assert!(gone.await.is_err());
        assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
    }

    #[tokio::test]
    async fn keys_that_do_not_exist_do_not_fill_the_memory() {
        let store = store(TTL_MS);
        for key in 0..10_000 {
            assert_eq!(store.cache.get(&key.to_string(), async { Ok(None) }).await, Ok(None));
        }
        assert!(store.cache.entries.len() <= 100, "{}", store.cache.entries.len());
    }
}
