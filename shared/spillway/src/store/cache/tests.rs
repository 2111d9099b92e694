use std::time::Duration;

use super::*;

const TTL: Millis = Millis::from_s(600);

/// A time to live after which a row can be stale.
const TTL_WITH_STALE: Millis = Millis::from_s(30);

struct Store {
    cache: Cache<u32>,
    clock: Clock,
    reads: Mutex<Vec<Consistency>>,
}

fn store(ttl: Millis) -> Store {
    let clock = Clock::default();
    Store { cache: Cache::new(100, ttl, clock.clone()), clock, reads: Mutex::default() }
}

impl Store {
    async fn get(&self, found: Result<Option<u32>, StoreError>) -> Result<Option<u32>, StoreError> {
        let row = self.cache.get("key", |consistency| self.read(consistency, found.clone()));
        Ok(row.await?.map(|row| *row))
    }

    fn read(
        &self,
        consistency: Consistency,
        found: Result<Option<u32>, StoreError>,
    ) -> impl Future<Output = Result<Option<u32>, StoreError>> + Send + 'static {
        self.reads.lock().expect("no panic").push(consistency);
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            found
        }
    }

    /// Gets the row from a store that does not answer.
    async fn get_hanging(&self) -> Result<Option<u32>, StoreError> {
        let read = |consistency| {
            self.reads.lock().expect("no panic").push(consistency);
            std::future::pending()
        };
        Ok(self.cache.get("key", read).await?.map(|row| *row))
    }

    fn reads(&self) -> usize {
        self.reads.lock().expect("no panic").len()
    }

    /// Waits until the background read has ended.
    async fn refreshed(&self) {
        while self.cache.entry("key").lock().is_refreshing {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
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
async fn a_row_that_is_used_is_read_again_in_the_background() {
    let store = store(TTL);
    assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
    store.clock.advance(TTL / 2 - Millis::from_s(1));
    assert_eq!(store.get(Ok(Some(2))).await, Ok(Some(1)));
    assert_eq!(store.reads(), 1);
    store.clock.advance(Millis::from_s(1));
    for _ in 0..50 {
        assert_eq!(store.get(Ok(Some(3))).await, Ok(Some(1)), "no request waits");
    }
    assert_eq!(store.reads(), 2, "one background read at a time");
    store.refreshed().await;
    store.clock.advance(TTL / 2);
    assert_eq!(store.get(Ok(Some(4))).await, Ok(Some(3)), "its age counts from the background read");
}

#[tokio::test(start_paused = true)]
async fn while_a_read_hangs_only_the_first_request_waits_for_a_moment_and_nobody_reads_again() {
    let store = store(TTL_WITH_STALE);
    assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
    store.clock.advance(TTL_WITH_STALE / 2);
    let started = tokio::time::Instant::now();
    assert_eq!(store.get_hanging().await, Ok(Some(1)), "younger than the time to live");
    assert_eq!(started.elapsed(), Duration::ZERO);
    store.clock.advance(TTL_WITH_STALE / 2);
    let first = (0..50).map(|_| store.get_hanging());
    assert_eq!(futures_util::future::join_all(first).await, vec![Ok(Some(1)); 50]);
    assert_eq!(started.elapsed(), MAX_STALE_WAIT);
    assert_eq!(store.get_hanging().await, Ok(Some(1)));
    assert_eq!((started.elapsed(), store.reads()), (MAX_STALE_WAIT, 2));
    tokio::time::sleep(MAX_SILENT_TIME).await;
    store.clock.advance(RETRY_AFTER);
    let restarted = tokio::time::Instant::now();
    assert_eq!(store.get(Ok(Some(2))).await, Ok(Some(1)), "the store is not known to answer again");
    assert_eq!(restarted.elapsed(), Duration::ZERO);
    store.refreshed().await;
    assert_eq!((store.get(Ok(Some(3))).await, store.reads()), (Ok(Some(2)), 3));
}

#[tokio::test]
async fn a_stale_row_waits_for_a_read_of_a_store_that_answers() {
    let store = store(TTL_WITH_STALE);
    assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
    store.clock.advance(TTL_WITH_STALE);
    let requests = (0..50).map(|_| store.get(Ok(None)));
    assert_eq!(futures_util::future::join_all(requests).await, vec![Ok(None); 50], "such as a revoked key");
    assert_eq!(store.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_without_a_usable_row_ends_with_the_patience_of_its_caller() {
    let store = store(TTL_WITH_STALE);
    let started = tokio::time::Instant::now();
    let in_scope = || Patience::default().scope(store.get_hanging());
    let time_passes = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.clock.advance(Millis::from_s(1));
    };
    let results = futures_util::future::join_all((0..3).map(|_| in_scope()));
    let (results, ()) = tokio::join!(results, time_passes);
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert_eq!(started.elapsed(), MAX_SILENT_TIME);
    assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
    store.clock.advance(MAX_STALE_AGE);
    assert!(in_scope().await.is_err(), "a row that is too old");
    assert!(started.elapsed() < MAX_SILENT_TIME * 2 + Duration::from_millis(50));
}

#[tokio::test]
async fn the_knowledge_that_there_is_no_row_is_never_stale() {
    let store = store(TTL_WITH_STALE);
    assert_eq!(store.get(Ok(None)).await, Ok(None));
    store.clock.advance(MAX_ABSENT_AGE);
    assert_eq!(store.get(Err(down())).await, Err(down()));
}

#[tokio::test]
async fn a_background_read_that_fails_leaves_the_row_in_use() {
    let store = store(TTL);
    assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
    store.clock.advance(Millis::from_s(400));
    assert_eq!(store.get(Err(down())).await, Ok(Some(1)));
    store.refreshed().await;
    store.clock.advance(RETRY_AFTER);
    assert_eq!(store.get(Ok(Some(2))).await, Ok(Some(1)));
    store.refreshed().await;
    assert_eq!(store.get(Ok(Some(3))).await, Ok(Some(2)));
}

#[tokio::test]
async fn an_older_read_does_not_replace_a_newer_one() {
    let store = store(TTL);
    let now = store.clock.now();
    let entry = store.cache.entry("key");
    assert_eq!(entry.store(Ok(Some(2)), now, now).map(|row| row.map(|row| *row)), Ok(Some(2)));
    let older = entry.store(Ok(Some(1)), now - Millis::from_s(1), now);
    assert_eq!(older.map(|row| row.map(|row| *row)), Ok(Some(2)));
}

#[tokio::test]
async fn the_absence_of_a_row_is_cached_for_two_seconds() {
    let store = store(TTL);
    assert_eq!(store.get(Ok(None)).await, Ok(None));
    assert_eq!(store.get(Ok(Some(1))).await, Ok(None));
    assert_eq!(store.reads(), 1);
    store.clock.advance(MAX_ABSENT_AGE);
    assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
}

#[tokio::test]
async fn a_recent_row_is_younger_than_its_reader_asks() {
    let store = store(TTL);
    assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
    let recent = async |max_age_s, found| {
        let max_age = Millis::from_s(max_age_s);
        let row = store.cache.get_recent("key", max_age, |consistency| store.read(consistency, Ok(Some(found))));
        row.await.map(|row| row.map(|row| *row))
    };
    store.clock.advance(Millis::from_s(5));
    assert_eq!(recent(6, 2).await, Ok(Some(1)));
    assert_eq!(recent(5, 3).await, Ok(Some(3)));
    assert_eq!(*store.reads.lock().expect("no panic"), [Consistency::Eventual, Consistency::Strong]);
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
    assert_eq!(*store.reads.lock().expect("no panic"), [Consistency::Eventual, Consistency::Strong]);
}

#[tokio::test]
async fn a_read_that_is_dropped_does_not_block_the_next() {
    let store = store(TTL);
    let dropped = tokio::time::timeout(
        Duration::from_millis(1),
        store.cache.get("key", |_| std::future::pending::<Result<Option<u32>, StoreError>>()),
    );
    assert!(dropped.await.is_err());
    assert_eq!(store.get(Ok(Some(1))).await, Ok(Some(1)));
}

#[tokio::test]
async fn keys_that_do_not_exist_do_not_fill_the_memory() {
    let store = store(TTL);
    for key in 0..10_000 {
        assert_eq!(store.cache.get(&key.to_string(), |_| async { Ok(None) }).await, Ok(None));
    }
    assert!(store.cache.entries.len() <= 100, "{}", store.cache.entries.len());
}
