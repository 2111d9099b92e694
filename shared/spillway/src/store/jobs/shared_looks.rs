//! Looks for the first waiting job of a tenant. Requests of a tenant that arrive at the same time
//! share one look, so a burst does not flood the index.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, WeakShared},
};
use tokio::time::Instant;

use crate::{
    connections::{MAX_SILENT_TIME, Patience, TimeLimits},
    store::StoreError,
    units::UnixMs,
};

/// What a look finds: when the first waiting job is ready, if one waits.
type Found = Result<Option<UnixMs>, StoreError>;

/// Longest wait for a look.
const LIMITS: TimeLimits = TimeLimits { for_caller: MAX_SILENT_TIME, in_background: Duration::from_secs(20) };

/// The looks in progress, by tenant. Clones share them.
#[derive(Clone, Default)]
pub(super) struct SharedLooks {
    in_progress: Arc<Mutex<HashMap<String, WeakShared<BoxFuture<'static, Found>>>>>,
}

impl SharedLooks {
    /// Joins the look in progress for `tenant`, or begins `look`. A look that fails uses up the
    /// patience of each of its callers.
    pub(super) async fn join(&self, tenant: &str, look: impl Future<Output = Found> + Send + 'static) -> Found {
        let joined_at = Instant::now();
        let running = self.lock().get(tenant).and_then(WeakShared::upgrade);
        let look = running.unwrap_or_else(|| {
            // Any of its callers may poll it, so it belongs to none of them.
            let look = Patience::default().scope(look).boxed().shared();
            if let Some(weak) = look.downgrade() {
                self.lock().insert(tenant.to_owned(), weak);
            }
            look
        });
        let found = LIMITS.apply(look).await?;
        // Its result is not for later requests.
        self.lock().remove(tenant);
        if found.is_err()
            && let Some(patience) = Patience::current()
        {
            patience.use_up(joined_at.elapsed());
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, WeakShared<BoxFuture<'static, Found>>>> {
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_at_the_same_time_share_a_look_and_later_ones_look_again() {
        let looks = SharedLooks::default();
        let count = Arc::new(AtomicUsize::new(0));
        let look = |tenant: &'static str| {
            let count = Arc::clone(&count);
            looks.join(tenant, async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok(Some(UnixMs::from_ms(count.fetch_add(1, Ordering::Relaxed) as u64)))
            })
        };
        for round in 0..3 {
            let found = join_all((0..50).map(|_| look("t"))).await;
            assert!(found.iter().all(|found| *found == Ok(Some(UnixMs::from_ms(round)))), "{found:?}");
        }
        join_all([look("u"), look("v")]).await;
        assert_eq!(count.load(Ordering::Relaxed), 5);
        assert!(looks.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_fails_uses_up_the_patience_of_each_caller() {
        let looks = SharedLooks::default();
        let fail = async || {
            let fails = async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Err(StoreError::Unavailable("silent".to_owned()))
            };
            looks.join("t", fails).await.expect_err("silent");
        };
        let (first, joined) = (Patience::default(), Patience::default());
        tokio::join!(first.clone().scope(fail()), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            joined.clone().scope(fail()).await;
        });
        assert_eq!((first.left(), joined.left()), (Duration::from_millis(500), Duration::from_millis(1_000)));
    }
}
