//! The patience of a caller: the time for which its request waits for stores that do not answer.
//!
//! A request uses several stores, one after the other, and goes on after some of their failures. A
//! timeout of each operation would let these waits add up. So the failed operations of a request
//! share one patience. An operation that is answered uses nothing of it.
//!
//! Work for which no caller waits, such as the drain, has no patience. Its operations have the
//! longer timeouts of their clients.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept,
            context::{BeforeSerializationInterceptorContextRef, FinalizerInterceptorContextRef},
        },
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{
    config_bag::{ConfigBag, Storable, StoreReplace},
    timeout::TimeoutConfig,
};
use tokio::{task::JoinHandle, time::Instant};

/// Longest time for which one request waits for stores that do not answer. A request does other
/// work as well, and its caller must have an error within three seconds.
pub const MAX_SILENT_TIME: Duration = Duration::from_millis(2_500);

/// Time that an operation has after the patience is used up, so that a store that answers again is
/// used again.
const MIN_TIME: Duration = Duration::from_millis(100);

tokio::task_local! {
    /// The patience of the caller that waits for this task.
    static CALLER: Patience;
}

/// The patience of one caller. Clones share what is left.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    used_ms: Arc<AtomicU64>,
}

impl Patience {
    /// Runs `work` for a caller with this patience.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CALLER.scope(self, work).await
    }

    /// Returns the patience of the caller that waits for this task, if there is one.
    pub fn current() -> Option<Self> {
        CALLER.try_with(Self::clone).ok()
    }

    /// Returns the time that the next operation may take.
    pub fn left(&self) -> Duration {
        MAX_SILENT_TIME.saturating_sub(Duration::from_millis(self.used_ms.load(Ordering::Relaxed))).max(MIN_TIME)
    }

    /// Whether the caller of this task has already waited for `time` without an answer.
    pub fn is_used_up_by(time: Duration) -> bool {
        Self::current().is_some_and(|patience| patience.left() + time <= MAX_SILENT_TIME)
    }

    /// Notes that an operation failed after `time`.
    pub fn use_up(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // Saturates long before the counter does: an operation ends soon after the patience.
        self.used_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

/// Runs `work` in a task, for the caller of this task.
pub fn spawn_for_caller<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match Patience::current() {
        Some(patience) => tokio::spawn(patience.scope(work)),
        None => tokio::spawn(work),
    }
}

/// An operation took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {0:?}")]
pub struct OutOfTime(Duration);

/// Time limits of an operation.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimits {
    /// Limit while a caller waits, if it has that much patience left.
    pub for_caller: Duration,
    /// Limit while no caller waits.
    pub in_background: Duration,
}

impl TimeLimits {
    /// Returns the limit that applies now.
    fn current(self) -> Duration {
        match Patience::current() {
            Some(patience) => self.for_caller.min(patience.left()),
            None => self.in_background,
        }
    }

    /// Awaits `operation` within the limit.
    ///
    /// # Errors
    /// Returns an error if the operation takes longer. It is then dropped.
    pub async fn apply<F: Future>(self, operation: F) -> Result<F::Output, OutOfTime> {
        self.apply_while(operation, || None).await
    }

    /// Awaits `operation`, which may take longer while it makes progress. `progressed_at` returns
    /// the time of the last progress.
    ///
    /// # Errors
    /// Returns an error if the operation makes no progress within the limit. It is then dropped.
    pub async fn apply_while<F: Future>(
        self,
        operation: F,
        progressed_at: impl Fn() -> Option<Instant>,
    ) -> Result<F::Output, OutOfTime> {
        let (limit, started) = (self.current(), Instant::now());
        // On the heap, because the compiler cannot compute the layout of futures nested this deep.
        let mut operation = Box::pin(operation);
        loop {
            let since = progressed_at().map_or(started, |at| at.max(started));
            match tokio::time::timeout_at(since + limit, &mut operation).await {
                Ok(output) => return Ok(output),
                Err(_) if progressed_at().is_some_and(|at| at > since) => {}
                Err(_) => {
                    if let Some(patience) = Patience::current() {
                        patience.use_up(limit);
                    }
                    return Err(OutOfTime(limit));
                }
            }
        }
    }
}

/// Limits the operations of an SDK client for which a caller waits. It is an interceptor of the
/// client. The client's own timeouts hold for all other operations.
#[derive(Debug, Clone, Copy)]
pub struct CallerTimeouts {
    /// Longest time of an operation, with all its attempts.
    pub operation: Duration,
    /// Longest time of an attempt.
    pub attempt: Duration,
}

#[derive(Debug)]
struct StartedAt(Instant);

impl Storable for StartedAt {
    type Storer = StoreReplace<Self>;
}

impl Intercept for CallerTimeouts {
    fn name(&self) -> &'static str {
        "CallerTimeouts"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(patience) = Patience::current() {
            let operation = self.operation.min(patience.left());
            let timeouts = TimeoutConfig::builder()
                .operation_timeout(operation)
                .operation_attempt_timeout(self.attempt.min(operation));
            config.interceptor_state().store_put(timeouts.build());
            config.interceptor_state().store_put(StartedAt(Instant::now()));
        }
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let (Some(patience), Some(started)) = (Patience::current(), config.load::<StartedAt>())
            && context.output_or_error().is_some_and(|result| result.is_err())
        {
            patience.use_up(started.0.elapsed());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const LIMITS: TimeLimits =
        TimeLimits { for_caller: Duration::from_secs(2), in_background: Duration::from_secs(20) };

    #[tokio::test(start_paused = true)]
    async fn operations_that_fail_one_after_the_other_share_the_patience_of_their_caller() {
        let started = Instant::now();
        let fail = async || LIMITS.apply(pending::<()>()).await.expect_err("no answer");
        let times = Patience::default().scope(async {
            let mut times = Vec::new();
            for _ in 0..3 {
                fail().await;
                times.push(started.elapsed().as_millis());
            }
            times
        });
        assert_eq!(times.await, [2_000, 2_500, 2_600]);
        fail().await;
        assert_eq!(started.elapsed().as_millis(), 22_600, "no caller waits");
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_is_answered_uses_no_patience() {
        let answer = async || {
            tokio::time::sleep(Duration::from_millis(1_900)).await;
            7
        };
        let patience = Patience::default();
        for _ in 0..10 {
            assert_eq!(patience.clone().scope(LIMITS.apply(answer())).await, Ok(7));
        }
        assert_eq!(patience.left(), MAX_SILENT_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_may_take_longer_while_it_makes_progress() {
        let progressed_at = std::cell::Cell::new(None);
        let work = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(1_900)).await;
                progressed_at.set(Some(Instant::now()));
            }
            pending::<()>().await;
        };
        let started = Instant::now();
        let result = Patience::default().scope(LIMITS.apply_while(work, || progressed_at.get())).await;
        assert_eq!((result, started.elapsed().as_secs()), (Err(OutOfTime(LIMITS.for_caller)), 21));
    }

    #[tokio::test(start_paused = true)]
    async fn a_spawned_task_works_for_the_same_caller() {
        let patience = Patience::default();
        let spawned = async { spawn_for_caller(LIMITS.apply(pending::<()>())).await };
        assert!(patience.clone().scope(spawned).await.expect("no panic").is_err());
        assert_eq!(patience.left(), Duration::from_millis(500));
    }
}
