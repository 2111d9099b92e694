//! Permits for calls to the pools, and the counters of running work.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::{CallOutcome, ConcurrencyWindow, MAX_WINDOW_SIZE, RetryPacer, Started, TryAcquireError};
use crate::{
    clock::Clock,
    pool::{Model, Pool},
    units::{Millis, UnixMs},
};

/// Limits the calls that this process makes. Clones share their state.
#[derive(Clone)]
pub struct ConcurrencyLimiter {
    /// The windows by model and pool.
    windows: Arc<Mutex<HashMap<String, ConcurrencyWindow>>>,
    /// The pacers by tenant.
    retry_pacers: Arc<Mutex<HashMap<String, RetryPacer>>>,
    released: Arc<Notify>,
    running: Arc<RunningCounter>,
    clock: Clock,
}

/// Counts work of the drain that does not wait for a pool.
#[derive(Default)]
struct RunningCounter {
    count: AtomicUsize,
    increased: Notify,
}

/// Work that does not wait for a pool. It counts as running until this is dropped.
pub struct RunningWork(Arc<RunningCounter>);

/// Permission for one call to a pool. Dropping a permit releases it.
pub struct Permit {
    limiter: ConcurrencyLimiter,
    window: String,
    started: Started,
    outcome: CallOutcome,
    _running: RunningWork,
}

impl ConcurrencyLimiter {
    /// Creates a limiter that has learned nothing about any pool.
    pub fn new(clock: Clock) -> Self {
        Self {
            windows: Arc::default(),
            retry_pacers: Arc::default(),
            released: Arc::default(),
            running: Arc::default(),
            clock,
        }
    }

    /// Waits for a permit of any of `pools`. If several have one, the first is taken.
    ///
    /// # Errors
    /// Returns the time after which a pool probably has a permit, if none has one before `give_up`.
    pub async fn acquire(&self, model: &Model, pools: &[&Pool], give_up: UnixMs) -> Result<Permit, Millis> {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // From here on no release is missed.
            released.as_mut().enable();
            let mut cool_down_ends = UnixMs::MAX;
            let mut retry = UnixMs::MAX;
            for pool in pools {
                match self.try_acquire(model, pool) {
                    Ok(permit) => return Ok(permit),
                    Err(TryAcquireError::CoolingDown { until }) => {
                        (cool_down_ends, retry) = (cool_down_ends.min(until), retry.min(until));
                    }
                    Err(TryAcquireError::NoPermits { until }) => retry = retry.min(until),
                }
            }
            let now = self.clock.now();
            let is_cool_down_first = cool_down_ends == retry;
            if now >= give_up || (is_cool_down_first && cool_down_ends > give_up) {
                return Err(retry - now);
            }
            tokio::select! {
                () = released => {}
                () = self.clock.sleep_until(cool_down_ends.min(give_up)) => {}
            }
        }
    }

    /// Takes a permit of `pool` if it has one now.
    ///
    /// # Errors
    /// Returns an error if the pool cools down, or all of its permits are taken.
    pub fn try_acquire(&self, model: &Model, pool: &Pool) -> Result<Permit, TryAcquireError> {
        let window = window_name(model, pool);
        let started = lock(&self.windows)
            .entry(window.clone())
            .or_insert_with(|| ConcurrencyWindow::new(MAX_WINDOW_SIZE))
            .try_acquire(self.clock.now())?;
        let (outcome, running) = (CallOutcome::Ignored, self.start_work());
        Ok(Permit { limiter: self.clone(), window, started, outcome, _running: running })
    }

    /// Counts work as running. A job that holds a permit is counted already.
    pub fn start_work(&self) -> RunningWork {
        self.running.count.fetch_add(1, Ordering::Relaxed);
        self.running.increased.notify_one();
        RunningWork(Arc::clone(&self.running))
    }

    /// How much work runs.
    pub fn running(&self) -> usize {
        self.running.count.load(Ordering::Relaxed)
    }

    /// Returns when work has started since this last returned.
    pub async fn work_started(&self) {
        self.running.increased.notified().await;
    }

    /// Records that `pool` throttled a call that needs no permit, so that the jobs of this process
    /// call it less.
    pub fn record_throttle(&self, model: &Model, pool: &Pool) {
        if let Some(window) = lock(&self.windows).get_mut(&window_name(model, pool)) {
            window.record_throttle(self.clock.now());
        }
    }

    /// Returns the retry time of the next job of `tenant`, which already runs `max_in_flight` jobs.
    pub fn next_retry(&self, tenant: &str, max_in_flight: u64) -> UnixMs {
        lock(&self.retry_pacers).entry(tenant.to_owned()).or_default().next_retry(max_in_flight, self.clock.now())
    }

    /// Records how long a job of `tenant` took.
    pub fn record_job(&self, tenant: &str, duration: Millis) {
        lock(&self.retry_pacers).entry(tenant.to_owned()).or_default().record(duration);
    }
}

impl Permit {
    /// Whether the permit is for `pool`.
    pub fn is_for(&self, model: &Model, pool: &Pool) -> bool {
        self.window.strip_prefix(&model.name).and_then(|rest| rest.strip_prefix('#')) == Some(&pool.name)
    }

    /// Releases the permit and returns how long the pool cools down.
    pub fn release(mut self, outcome: CallOutcome) -> Millis {
        self.outcome = outcome;
        let (limiter, window) = (self.limiter.clone(), self.window.clone());
        drop(self);
        let ends = lock(&limiter.windows).get(&window).map_or(UnixMs::default(), ConcurrencyWindow::cool_down_ends);
        ends - limiter.clock.now()
    }
}

impl Drop for RunningWork {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(window) = lock(&self.limiter.windows).get_mut(&self.window) {
            window.release(self.started, self.outcome, self.limiter.clock.now());
        }
        self.limiter.released.notify_waiters();
    }
}

fn window_name(model: &Model, pool: &Pool) -> String {
    format!("{}#{}", model.name, pool.name)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
