//! Cache of rows, so that the hot path does not wait for them.
//!
//! A row is used until the age `ttl`. From half that age on, a request that uses it starts a
//! background read, which runs beside the request. Rows that are used at least twice in that time
//! therefore never make a request wait. On Lambda, nothing runs after the answer: a read that is
//! not done by then continues with the next request.
//!
//! An older row is stale. A request that finds one waits for the background read, but only for a
//! moment, and then uses the stale row. While the store is known to be silent or to fail, no
//! request waits. So a revoked key ends in time while the store works, and an outage of the store
//! costs hardly any time. After [`MAX_STALE_AGE`] a row is not used any more.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{StoreError, rows::Consistency};
use crate::{
    clock::Clock,
    connections::{MAX_SILENT_TIME, Patience, TimeLimits},
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

/// Longest time for which a request waits for a background read although it has a stale row. It is
/// far longer than a read takes, with a new connection.
const MAX_STALE_WAIT: Duration = Duration::from_millis(500);

const STALE_LIMITS: TimeLimits = TimeLimits { for_caller: MAX_STALE_WAIT, in_background: MAX_STALE_WAIT };

/// Longest time for a read that requests wait for, with the wait for an earlier one.
const READ_LIMITS: TimeLimits = TimeLimits { for_caller: MAX_SILENT_TIME, in_background: Duration::from_secs(10) };

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
    /// Changes when a background read has ended.
    refreshed: watch::Sender<()>,
}

struct LastReads<V> {
    /// The start and the result of the last successful read.
    success: Option<(UnixMs, CachedRow<V>)>,
    /// The time and the error of the last failed read.
    failure: Option<(UnixMs, StoreError)>,
    /// Whether a background read is running.
    is_refreshing: bool,
    /// Whether the last read failed, or a request has waited for it without an answer.
    is_failing: bool,
}

/// The row that a request can use.
#[derive(Debug, Clone)]
struct Usable<V> {
    row: CachedRow<V>,
    /// The row is stale, so the request waits for a background read first.
    must_wait: bool,
}

impl<V: Send + Sync + 'static> Cache<V> {
    pub(super) fn new(capacity: usize, ttl: Millis, clock: Clock) -> Self {
        Self { entries: quick_cache::sync::Cache::new(capacity), ttl, clock }
    }

    /// Returns the cached row of `key` if it is younger than the time to live. Otherwise reads it
    /// with `read`. Concurrent requests share one read. A stale row is returned if the read is slow
    /// or fails.
    ///
    /// # Errors
    /// Returns an error if the read fails and the cached row is too old.
    pub(super) async fn get<F>(&self, key: &str, read: impl Fn(Consistency) -> F) -> Result<CachedRow<V>, StoreError>
    where
        F: Future<Output = Result<Option<V>, StoreError>> + Send + 'static,
    {
        let requested_at = self.clock.now();
        let entry = self.entry(key);
        let used = match self.take(&entry, requested_at, &read) {
            Some(usable) if usable.must_wait => Box::pin(self.wait_for_refresh(&entry, requested_at, &read)).await,
            usable => usable,
        };
        match used {
            Some(usable) => Ok(usable.row),
            None => Box::pin(self.read(&entry, self.ttl, requested_at, read)).await,
        }
    }

    /// Waits for a moment until a background read replaces a stale row.
    async fn wait_for_refresh<F>(
        &self,
        entry: &Arc<CacheEntry<V>>,
        requested_at: UnixMs,
        read: &impl Fn(Consistency) -> F,
    ) -> Option<Usable<V>>
    where
        F: Future<Output = Result<Option<V>, StoreError>> + Send + 'static,
    {
        let mut refreshed = entry.refreshed.subscribe();
        let waiting = async {
            loop {
                match self.take(entry, requested_at, read) {
                    // The entry keeps the sender, so this cannot fail.
                    Some(usable) if usable.must_wait => drop(refreshed.changed().await),
                    usable => return usable,
                }
            }
        };
        // A request that has waited for another row does not wait again.
        if !Patience::is_used_up_by(MAX_STALE_WAIT)
            && let Ok(usable) = STALE_LIMITS.apply(waiting).await
        {
            return usable;
        }
        entry.note_silence();
        self.take(entry, requested_at, read)
    }

    /// Returns the row if a request that began at `requested_at` can use it. Starts a background
    /// read if that is due.
    fn take<F>(
        &self,
        entry: &Arc<CacheEntry<V>>,
        requested_at: UnixMs,
        read: &impl Fn(Consistency) -> F,
    ) -> Option<Usable<V>>
    where
        F: Future<Output = Result<Option<V>, StoreError>> + Send + 'static,
    {
        let (usable, needs_refresh) = entry.take(self.ttl, requested_at, self.clock.now())?;
        if needs_refresh {
            self.refresh(Arc::clone(entry), read(Consistency::Eventual));
        }
        Some(usable)
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
        let _read_lock = match READ_LIMITS.apply(entry.read_lock.lock()).await {
            Ok(locked) => locked,
            Err(out_of_time) => return entry.lock().stale(self.clock.now()).ok_or_else(|| out_of_time.into()),
        };
        if let Some(result) = entry.read_since(requested_at, max_age, self.clock.now()) {
            return result;
        }
        let started_at = self.clock.now();
        let result = READ_LIMITS.apply(read(entry.consistency)).await.unwrap_or_else(|error| Err(error.into()));
        entry.store(result, started_at, self.clock.now())
    }

    /// Reads the row in the background.
    fn refresh(
        &self,
        entry: Arc<CacheEntry<V>>,
        read: impl Future<Output = Result<Option<V>, StoreError>> + Send + 'static,
    ) {
        let (clock, refresh) = (self.clock.clone(), Refresh(entry));
        let refreshing = async move {
            let started_at = clock.now();
            let result = READ_LIMITS.apply(read).await.unwrap_or_else(|error| Err(error.into()));
            // After a failure, the cached row stays in use until it is too old.
            let _ = refresh.0.store(result, started_at, clock.now());
        };
        // It has the time limits of a caller, so that a connection that died is noticed soon.
        tokio::spawn(Patience::default().scope(refreshing));
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
        let reads = LastReads { success: None, failure: None, is_refreshing: false, is_failing: false };
        let (reads, read_lock) = (Mutex::new(reads), tokio::sync::Mutex::new(()));
        Self { reads, read_lock, consistency, refreshed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, LastReads<V>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the row if a request that began at `requested_at` can use it, and whether the caller
    /// must start a background read.
    fn take(&self, ttl: Millis, requested_at: UnixMs, now: UnixMs) -> Option<(Usable<V>, bool)> {
        let mut reads = self.lock();
        let fresh = reads.read_since(requested_at).or_else(|| reads.fresh(ttl, now));
        let is_stale = fresh.is_none();
        let row = fresh.or_else(|| reads.stale(now))?;
        let is_due = is_stale || reads.is_older_than(ttl / 2, now);
        let needs_refresh = is_due && !reads.is_refreshing && !reads.has_just_failed(now);
        reads.is_refreshing |= needs_refresh;
        Some((Usable { row, must_wait: is_stale && !reads.is_failing }, needs_refresh))
    }

    /// Notes that a request has waited for a background read that did not end. Later requests do
    /// not wait.
    fn note_silence(&self) {
        if !std::mem::replace(&mut self.lock().is_failing, true) {
            tracing::warn!("the registry is slow, so stale rows are used");
        }
    }

    /// Returns the result of a read that ended after `requested_at`, successful or not.
    fn read_since(&self, requested_at: UnixMs, ttl: Millis, now: UnixMs) -> Option<Result<CachedRow<V>, StoreError>> {
        let reads = self.lock();
        if let Some(row) = reads.usable(ttl, now) {
            return Some(Ok(row));
        }
        let (failed_at, error) = reads.failure.as_ref()?;
        (*failed_at > requested_at).then(|| reads.stale(now).ok_or_else(|| error.clone()))
    }

    fn store(
        &self,
        result: Result<Option<V>, StoreError>,
        started_at: UnixMs,
        now: UnixMs,
    ) -> Result<CachedRow<V>, StoreError> {
        let mut reads = self.lock();
        reads.is_failing = result.is_err();
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
                let stale = reads.stale(now);
                tracing::warn!(%error, served_stale = stale.is_some(), "failed to read the registry");
                stale.ok_or(error)
            }
        }
    }
}

/// A background read of an entry, until it is dropped.
struct Refresh<V>(Arc<CacheEntry<V>>);

impl<V> Drop for Refresh<V> {
    fn drop(&mut self) {
        self.0.lock().is_refreshing = false;
        self.0.refreshed.send_replace(());
    }
}

impl<V> LastReads<V> {
    /// Returns the row if a request can use it without a wait for a read.
    fn usable(&self, ttl: Millis, now: UnixMs) -> Option<CachedRow<V>> {
        if self.has_just_failed(now) {
            return self.stale(now);
        }
        self.fresh(ttl, now)
    }

    fn fresh(&self, ttl: Millis, now: UnixMs) -> Option<CachedRow<V>> {
        let is_absent = self.success.as_ref().is_some_and(|(_, row)| row.is_none());
        self.younger_than(if is_absent { ttl.min(MAX_ABSENT_AGE) } else { ttl }, now)
    }

    /// Returns the row if it can be used while the store does not answer. That there is no row is
    /// not used: it may have been written since, and an error is honest.
    fn stale(&self, now: UnixMs) -> Option<CachedRow<V>> {
        self.younger_than(MAX_STALE_AGE, now).filter(Option::is_some)
    }

    /// Returns the row if it was read after `requested_at`.
    fn read_since(&self, requested_at: UnixMs) -> Option<CachedRow<V>> {
        self.success.as_ref().filter(|(read_at, _)| *read_at >= requested_at).map(|(_, row)| row.clone())
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
