//! Health of the pools, as this process knows it.
//!
//! Each call to a pool is tracked from its start to its end. A failure of the pool opens the pool's
//! [`CircuitBreaker`]: the next calls go to the next pool. When the outage is over, one call probes
//! the pool. If a failure is expensive, the probe is a small call that no caller waits for. A pool
//! at which several calls wait for unusually long is passed over as well ([`FirstBytes`]). A pool
//! that throttles one call after the other is tried after the others ([`Throttles`]).
//!
//! Processes learn outages from each other, see `broker::outages`.

mod breaker;
mod first_bytes;
mod throttles;
mod weight;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use breaker::{CircuitBreaker, Permission};
pub use first_bytes::{FirstBytes, Pace};
pub use throttles::Throttles;
pub use weight::RecentCalls;

use crate::{
    clock::Clock,
    outage::{Outage, OutageCause, PoolFault},
    pool::{Model, Pool},
    units::{Millis, UnixMs},
};

/// An outage lasts up to this much longer, at random.
const MAX_JITTER_PERCENT: u64 = 25;

/// Time after which a pool that is still probably silent is probed again.
const SUSPICION_TIME: Millis = Millis::from_s(5);

/// The health of all pools. Clones share it.
#[derive(Clone)]
pub struct PoolHealth {
    /// The states by model.
    states: Arc<Mutex<HashMap<String, ModelState>>>,
    clock: Clock,
}

#[derive(Default)]
struct ModelState {
    /// The pace of all pools.
    pace: Pace,
    pools: HashMap<String, PoolState>,
}

#[derive(Default)]
struct PoolState {
    breaker: CircuitBreaker,
    first_bytes: FirstBytes,
    /// When the pool may be probed again because it is probably silent.
    next_suspicion: UnixMs,
    throttles: Throttles,
    recent: RecentCalls,
}

/// Kind of a call. The first byte of a whole answer comes when the answer is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// A streamed answer.
    Stream,
    /// A whole answer.
    Whole,
}

/// Whether a pool can be called.
pub enum Access {
    /// The call may be made.
    Call(TrackedCall),
    /// Other pools are called first.
    PassedOver {
        /// The outage of the pool.
        outage: Outage,
        /// Whether the pool may be called if there is no other pool.
        is_last_resort: bool,
        /// The permission to probe the pool by a call that no caller waits for, if it is due.
        probe: Option<TrackedCall>,
    },
}

/// A call to a pool. A call that is dropped without a result proves nothing.
pub struct TrackedCall {
    health: PoolHealth,
    model: String,
    pool: String,
    number: u64,
    sent_at: UnixMs,
    period: u64,
    is_probe: bool,
}

impl PoolHealth {
    /// Creates the health of pools that have not been called yet.
    pub fn new(clock: Clock) -> Self {
        Self { states: Arc::default(), clock }
    }

    /// Asks to call `pool` of `model`.
    pub fn ask(&self, model: &Model, pool: &Pool, kind: CallKind) -> Access {
        let now = self.clock.now();
        let mut states = self.lock();
        let ModelState { pace, pools } = states.entry(model.name.clone()).or_default();
        let state = pools.entry(pool.name.clone()).or_default();
        let call = |state: &mut PoolState, period, is_probe| {
            let number = state.start(kind, now);
            self.track(model, pool, (number, now), period, is_probe)
        };
        match state.breaker.ask(now) {
            Permission::Call(period) if state.first_bytes.is_silent(pace, now) => {
                let is_due = now >= state.next_suspicion;
                if is_due {
                    state.next_suspicion = now + SUSPICION_TIME;
                }
                Access::PassedOver {
                    outage: Outage { cause: OutageCause::Silent, streak: 1, until: state.next_suspicion },
                    is_last_resort: true,
                    probe: is_due.then(|| call(state, period, false)),
                }
            }
            Permission::Call(period) => Access::Call(call(state, period, false)),
            Permission::Probe(period, outage) if outage.cause.is_expensive() => Access::PassedOver {
                outage,
                is_last_resort: outage.cause.is_last_resort(),
                probe: Some(call(state, period, true)),
            },
            Permission::Probe(period, _) => Access::Call(call(state, period, true)),
            Permission::Open(outage) => {
                Access::PassedOver { outage, is_last_resort: outage.cause.is_last_resort(), probe: None }
            }
        }
    }

    /// Tracks a call to a pool that was passed over, because no other pool is left.
    pub fn call_anyway(&self, model: &Model, pool: &Pool, kind: CallKind) -> TrackedCall {
        let now = self.clock.now();
        let mut states = self.lock();
        let pools = &mut states.entry(model.name.clone()).or_default().pools;
        let state = pools.entry(pool.name.clone()).or_default();
        let (number, period) = (state.start(kind, now), state.breaker.period());
        self.track(model, pool, (number, now), period, false)
    }

    /// Returns the outage of `pool`, if it has one now.
    pub fn outage(&self, model: &Model, pool: &Pool) -> Option<Outage> {
        self.read(model, pool, |state, now| state.breaker.open(now)).flatten()
    }

    /// Whether `pool` throttles so often that the other pools are tried first.
    pub fn is_throttling(&self, model: &Model, pool: &Pool) -> bool {
        self.read(model, pool, |state, now| state.throttles.are_frequent(now)).unwrap_or_default()
    }

    /// Returns the weight of `pool` among equal pools, at most 1.
    pub fn weight(&self, model: &Model, pool: &Pool) -> f64 {
        let weight = |state: &PoolState, now| state.recent.weight(state.breaker.closed_at(), now);
        self.read(model, pool, weight).unwrap_or(1.0)
    }

    /// Takes over an outage that another process has seen.
    pub fn learn(&self, model: &Model, pool: &Pool, outage: Outage) {
        let now = self.clock.now();
        if outage.until > now {
            let mut states = self.lock();
            let pools = &mut states.entry(model.name.clone()).or_default().pools;
            pools.entry(pool.name.clone()).or_default().breaker.learn(outage, now);
        }
    }

    fn track(
        &self,
        model: &Model,
        pool: &Pool,
        (number, sent_at): (u64, UnixMs),
        period: u64,
        is_probe: bool,
    ) -> TrackedCall {
        let (model, pool) = (model.name.clone(), pool.name.clone());
        TrackedCall { health: self.clone(), model, pool, number, sent_at, period, is_probe }
    }

    fn read<T>(&self, model: &Model, pool: &Pool, read: impl FnOnce(&PoolState, UnixMs) -> T) -> Option<T> {
        let now = self.clock.now();
        self.lock().get(&model.name)?.pools.get(&pool.name).map(|state| read(state, now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ModelState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolState {
    /// Records that a call is sent at `now`. Returns its number.
    fn start(&mut self, kind: CallKind, now: UnixMs) -> u64 {
        self.throttles.start(now);
        self.first_bytes.start(kind, now)
    }

    /// Records that the first byte of call `number` came at `now`, unless it came earlier.
    fn record_first_byte(&mut self, pace: &mut Pace, number: u64, now: UnixMs) {
        if self.first_bytes.record(pace, number, now) {
            self.throttles.clear();
        }
    }
}

impl TrackedCall {
    /// Records the first byte of the answer.
    pub fn record_first_byte(&self) {
        self.update(|state, pace, now| {
            state.record_first_byte(pace, self.number, now);
            state.breaker.record_first_byte(self.period, now);
        });
    }

    /// Records the whole answer.
    pub fn succeed(self) {
        self.update(|state, pace, now| {
            state.record_first_byte(pace, self.number, now);
            state.breaker.record_success(self.period, now);
            state.recent.record(false, now);
        });
    }

    /// Records a failure. Returns the outage that begins with it.
    pub fn fail(self, fault: PoolFault) -> Option<Outage> {
        let jitter_percent = fastrand::u64(0..=MAX_JITTER_PERCENT);
        self.update(|state, _, now| {
            if matches!(fault, PoolFault::Doubtful | PoolFault::Certain(_)) {
                state.recent.record(true, now);
            }
            let is_alone = !state.first_bytes.came_since(self.sent_at);
            match fault {
                PoolFault::None => None,
                PoolFault::Throttled => {
                    state.throttles.record(self.sent_at, now);
                    None
                }
                // Other calls got their answers meanwhile.
                PoolFault::Certain(OutageCause::Silent) if !is_alone => {
                    state.breaker.record_doubtful_failure(self.period, now, jitter_percent)
                }
                PoolFault::Certain(cause) => state.breaker.record_failure(self.period, cause, now, jitter_percent),
                PoolFault::Doubtful => state.breaker.record_doubtful_failure(self.period, now, jitter_percent),
            }
        })
    }

    fn update<T: Default>(&self, update: impl FnOnce(&mut PoolState, &mut Pace, UnixMs) -> T) -> T {
        let now = self.health.clock.now();
        let mut states = self.health.lock();
        let Some(ModelState { pace, pools }) = states.get_mut(&self.model) else { return T::default() };
        pools.get_mut(&self.pool).map(|state| update(state, pace, now)).unwrap_or_default()
    }
}

impl Drop for TrackedCall {
    fn drop(&mut self) {
        self.update(|state, _, _| {
            state.first_bytes.stop(self.number);
            if self.is_probe {
                state.breaker.abandon_probe(self.period);
            }
        });
    }
}
