//! The places that the jobs of this process have at the pools, by [`crate::concurrency`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::{Blocked, End, Entry, LARGEST_SIZE, Turns, Window};
use crate::{
    clock::Clock,
    pool::{Model, Pool},
};

/// The pace of the drain in this process. Clones share it.
#[derive(Clone)]
pub struct Pacing {
    windows: Arc<Mutex<HashMap<String, Window>>>,
    turns: Arc<Mutex<HashMap<String, Turns>>>,
    left: Arc<Notify>,
    running: Arc<Running>,
    clock: Clock,
}

/// What of the drain's work in this process does not wait for a pool.
#[derive(Default)]
struct Running {
    jobs: AtomicUsize,
    more: Notify,
}

/// Work that does not wait for a pool: until this is dropped.
pub struct Run(Arc<Running>);

/// A place at a pool: given back when it is dropped, with what came of the call.
pub struct Place {
    pacing: Pacing,
    pool: String,
    entry: Entry,
    end: End,
    _run: Run,
}

impl Pacing {
    /// Nothing is known of any pool.
    pub fn new(clock: Clock) -> Self {
        Self { windows: Arc::default(), turns: Arc::default(), left: Arc::default(), running: Arc::default(), clock }
    }

    /// A place at the first of `pools` that has one, as soon as there is one.
    ///
    /// # Errors
    /// No pool has one until `until_ms`: in how many milliseconds one probably will.
    pub async fn place(&self, model: &Model, pools: &[&Pool], until_ms: u64) -> Result<Place, u64> {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // From here on nobody leaves unnoticed.
            left.as_mut().enable();
            let mut wake_ms = u64::MAX;
            let mut retry_ms = u64::MAX;
            for pool in pools {
                match self.try_place(model, pool) {
                    Ok(place) => return Ok(place),
                    Err(Blocked::Resting { until_ms }) => {
                        (wake_ms, retry_ms) = (wake_ms.min(until_ms), retry_ms.min(until_ms));
                    }
                    Err(Blocked::Full { until_ms }) => retry_ms = retry_ms.min(until_ms),
                }
            }
            let now_ms = self.clock.now_ms();
            let all_rest = wake_ms == retry_ms;
            if now_ms >= until_ms || (all_rest && wake_ms > until_ms) {
                return Err(retry_ms.saturating_sub(now_ms));
            }
            tokio::select! {
                () = left => {}
                () = self.clock.sleep_until(crate::units::UnixMs::from_ms(wake_ms.min(until_ms))) => {}
            }
        }
    }

    /// A place at this pool, if there is one now.
    pub fn try_place(&self, model: &Model, pool: &Pool) -> Result<Place, Blocked> {
        let pool = format!("{}#{}", model.name, pool.name);
        let mut windows = locked(&self.windows);
        let window = windows.entry(pool.clone()).or_insert_with(|| Window::new(LARGEST_SIZE));
        let entry = window.enter(self.clock.now_ms())?;
        drop(windows);
        Ok(Place { pacing: self.clone(), pool, entry, end: End::Other, _run: self.run() })
    }

    /// Counts work as running. A job that has a place is counted by it.
    pub fn run(&self) -> Run {
        self.running.jobs.fetch_add(1, Ordering::Relaxed);
        self.running.more.notify_one();
        Run(Arc::clone(&self.running))
    }

    /// How many jobs, or other pieces of work, run.
    pub fn running(&self) -> usize {
        self.running.jobs.load(Ordering::Relaxed)
    }

    /// Returns when one more runs than when this last returned.
    pub async fn one_more_runs(&self) {
        self.running.more.notified().await;
    }

    /// This pool throttled a call that keeps no pace: the jobs that call it from this process hold back.
    pub fn press(&self, model: &Model, pool: &Pool) {
        if let Some(window) = locked(&self.windows).get_mut(&format!("{}#{}", model.name, pool.name)) {
            window.press(self.clock.now_ms());
        }
    }

    /// When the next job of `tenant` has its turn, of which `at_once` may run, in milliseconds since 1970.
    pub fn turn(&self, tenant: &str, at_once: u64) -> u64 {
        locked(&self.turns).entry(tenant.to_owned()).or_default().next(at_once, self.clock.now_ms())
    }

    /// A job of `tenant`, which may run only so many, was done after `took_ms`.
    pub fn done(&self, tenant: &str, took_ms: u64) {
        locked(&self.turns).entry(tenant.to_owned()).or_default().done(took_ms);
    }
}

impl Place {
    /// Whether it is a place at this pool.
    pub fn is_at(&self, model: &Model, pool: &Pool) -> bool {
        self.pool.strip_prefix(&model.name).and_then(|rest| rest.strip_prefix('#')) == Some(&pool.name)
    }

    /// Gives it back; says how long the pool rests now, in milliseconds.
    pub fn leave(mut self, end: End) -> u64 {
        self.end = end;
        let (pacing, pool) = (self.pacing.clone(), self.pool.clone());
        drop(self);
        let rests_until_ms = locked(&pacing.windows).get(&pool).map_or(0, Window::rests_until_ms);
        rests_until_ms.saturating_sub(pacing.clock.now_ms())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.jobs.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(window) = locked(&self.pacing.windows).get_mut(&self.pool) {
            window.leave(self.entry, self.end, self.pacing.clock.now_ms());
        }
        self.pacing.left.notify_waiters();
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
