//! Cache of rows, so that the hot path does not wait for them.
//!
//! A row is used until the age `ttl`. From half that age on, a request that uses it starts a
//! background read, which runs beside the request. Rows that are used at least twice in that time
//! therefore never make a request wait. On Lambda, nothing runs after the answer: a read that is
//! not done by then continues with the next request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{StoreError, rows::Consistency};
use crate::{
    clock::Clock,
    units::{Millis, UnixMs},
};

/// Maximum age of a row that is used while the store is unavailable. A short outage of the store
/// must not affect callers, and a long outage must not keep revoked keys alive.
const MAX_STALE_AGE: Millis = Millis::from_s(60);

/// Maximum age of the knowledge that there is no row. A new key should work at once, even if it was
/// tried before it was written.
const MAX_ABSENT_AGE: Millis = Millis::from_s(2);

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
    /// Held during a read that requests wait for, so that concurrent requests share it.
    read_lock: tokio::sync::Mutex<()>,
    /// Consistency of the first read.
    consistency: Consistency,
}

struct LastReads<V> {
    /// The start and the result of the last successful read.
    success: Option<(UnixMs, CachedRow<V>)>,
    /// The time and the error of the last failed read.
    failure: Option<(UnixMs, StoreError)>,
    /// Whether a background read is running.
    is_refreshing: bool,
}

impl<V: Send + Sync + 'static> Cache<V> {
    pub(super) fn new(capacity: usize, ttl: Millis, clock: Clock) -> Self {
        Self { entries: quick_cache::sync::Cache::new(capacity), ttl, clock }
    }

    /// Returns the cached row of `key` if it is younger than the time to live. Otherwise reads it
    /// with `read`. Concurrent requests share one read.
    ///
    /// # Errors
    /// Returns an error if the read fails and the cached row is too old.
    pub(super) async fn get<F>(
        &self,
        key: &str,
        read: impl FnOnce(Consistency) -> F,
    ) -> Result<CachedRow<V>, StoreError>
    where
        F: Future<Output = Result<Option<V>, StoreError>> + Send + 'static,
    {
        let requested_at = self.clock.now();
        let entry = self.entry(key);
        if let Some((row, needs_refresh)) = entry.take(self.ttl, requested_at) {
            if needs_refresh {
                self.refresh(entry, read(Consistency::Eventual));
            }
            return Ok(row);
        }
        self.read(&entry, self.ttl, requested_at, read).await
    }

    /// Returns the row of `key`, read at most `max_age` ago with all writes visible.
    ///
    /// # Errors
    /// Returns an error if the read fails and the cached row is too old.
    pub(super) async fn get_recent<F>(
        &self,
        key: &str,
        max_age: Millis,
        read: impl FnOnce(Consistency) -> F,
    ) -> Result<CachedRow<V>, StoreError>
    where
        F: Future<Output = Result<Option<V>, StoreError>> + Send + 'static,
    {
        let max_age = max_age.min(self.ttl);
        let entry = self.entry(key);
        self.read(&entry, max_age, self.clock.now(), |_| read(Consistency::Strong)).await
    }

    /// Whether the next request for `key` waits for a read, and no row of that key has been read
    /// before.
    pub(super) fn is_unknown(&self, key: &str) -> bool {
        let is_known = |entry: Arc<CacheEntry<V>>| {
            let reads = entry.lock();
            let had_row = reads.success.as_ref().is_some_and(|(_, row)| row.is_some());
            had_row || reads.usable(self.ttl, self.clock.now()).is_some()
        };
        !self.entries.get(key).is_some_and(is_known)
    }

    /// Whether the next request for `key` waits for a read that would serve later requests too.
    pub(super) fn is_cold(&self, key: &str) -> bool {
        !self.ttl.is_zero() && self.entry(key).lock().usable(self.ttl, self.clock.now()).is_none()
    }

    /// Caches the row of `key`, which was just written.
    pub(super) fn put(&self, key: &str, row: V) {
        let now = self.clock.now();
        // Storing a successful read cannot fail.
        let _ = self.entry(key).store(Ok(Some(row)), now, now);
    }

    /// Makes the next request for `key` read the store, with all writes visible.
    pub(super) fn forget(&self, key: &str) {
        self.entries.insert(key.to_owned(), Arc::new(CacheEntry::new(Consistency::Strong)));
    }

    /// Reads the row while its requests wait, unless a concurrent request has read it.
    async fn read<F>(
        &self,
        entry: &CacheEntry<V>,
        max_age: Millis,
        requested_at: UnixMs,
        read: impl FnOnce(Consistency) -> F,
    ) -> Result<CachedRow<V>, StoreError>
    where
        F: Future<Output = Result<Option<V>, StoreError>>,
    {
        let _read_lock = entry.read_lock.lock().await;
        if let Some(result) = entry.read_since(requested_at, max_age, self.clock.now()) {
            return result;
        }
        let started_at = self.clock.now();
        let result = read(entry.consistency).await;
        entry.store(result, started_at, self.clock.now())
    }

    /// Reads the row in the background.
    fn refresh(
        &self,
        entry: Arc<CacheEntry<V>>,
        read: impl Future<Output = Result<Option<V>, StoreError>> + Send + 'static,
    ) {
        let clock = self.clock.clone();
        tokio::spawn(async move {
            let started_at = clock.now();
            let result = read.await;
            // After a failure, the cached row stays in use until it is too old.
            let _ = entry.store(result, started_at, clock.now());
        });
    }

    fn entry(&self, key: &str) -> Arc<CacheEntry<V>> {
        if let Some(entry) = self.entries.get(key) {
            return entry;
        }
        let new = || Ok::<_, std::convert::Infallible>(Arc::new(CacheEntry::new(Consistency::Eventual)));
        match self.entries.get_or_insert_with(key, new) {
            Ok(entry) => entry,
            Err(never) => match never {},
        }
    }
}

impl<V> CacheEntry<V> {
    fn new(consistency: Consistency) -> Self {
        let reads = LastReads { success: None, failure: None, is_refreshing: false };
        Self { reads: Mutex::new(reads), read_lock: tokio::sync::Mutex::new(()), consistency }
    }

    fn lock(&self) -> MutexGuard<'_, LastReads<V>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the row if it can be used, and whether the caller must start a background read.
    fn take(&self, ttl: Millis, now: UnixMs) -> Option<(CachedRow<V>, bool)> {
        let mut reads = self.lock();
        let row = reads.usable(ttl, now)?;
        let needs_refresh = !reads.is_refreshing && !reads.has_just_failed(now) && reads.is_older_than(ttl / 2, now);
        reads.is_refreshing |= needs_refresh;
        Some((row, needs_refresh))
    }

    /// Returns the result of a read that ended after `requested_at`, successful or not.
    fn read_since(&self, requested_at: UnixMs, ttl: Millis, now: UnixMs) -> Option<Result<CachedRow<V>, StoreError>> {
        let reads = self.lock();
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
        let mut reads = self.lock();
        reads.is_refreshing = false;
        match result {
            // A later read may have ended before.
            Ok(row) => match &reads.success {
                Some((later, row)) if *later > started_at => Ok(row.clone()),
                _ => {
                    let row = row.map(Arc::new);
                    (reads.success, reads.failure) = (Some((started_at, row.clone())), None);
                    Ok(row)
                }
            },
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
        if self.has_just_failed(now) {
            return self.younger_than(MAX_STALE_AGE, now);
        }
        let is_absent = self.success.as_ref().is_some_and(|(_, row)| row.is_none());
        self.younger_than(if is_absent { ttl.min(MAX_ABSENT_AGE) } else { ttl }, now)
    }

    fn has_just_failed(&self, now: UnixMs) -> bool {
        self.failure.as_ref().is_some_and(|(failed_at, _)| now - *failed_at < RETRY_AFTER)
    }

    fn younger_than(&self, max_age: Millis, now: UnixMs) -> Option<CachedRow<V>> {
        let (read_at, row) = self.success.as_ref()?;
        (now - *read_at < max_age).then(|| row.clone())
    }

    fn is_older_than(&self, age: Millis, now: UnixMs) -> bool {
        self.success.as_ref().is_some_and(|(read_at, _)| now - *read_at >= age)
    }
}

#[cfg(test)]
mod tests;
