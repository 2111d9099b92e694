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
pub use first_bytes::FirstBytes;
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
    /// The states by model and pool.
    states: Arc<Mutex<HashMap<String, PoolState>>>,
    clock: Clock,
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
    key: String,
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
        let (key, now) = (key(model, pool), self.clock.now());
        let mut states = self.lock();
        let state = states.entry(key.clone()).or_default();
        let call = |state: &mut PoolState, period, is_probe| {
            let number = state.start(kind, now);
            TrackedCall { health: self.clone(), key: key.clone(), number, sent_at: now, period, is_probe }
        };
        match state.breaker.ask(now) {
            Permission::Call(period) if state.first_bytes.is_silent(now) => {
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
        let (key, now) = (key(model, pool), self.clock.now());
        let mut states = self.lock();
        let state = states.entry(key.clone()).or_default();
        let (number, period) = (state.start(kind, now), state.breaker.period());
        TrackedCall { health: self.clone(), key, number, sent_at: now, period, is_probe: false }
    }

    /// Returns the outage of `pool`, if it has one now.
    pub fn outage(&self, model: &Model, pool: &Pool) -> Option<Outage> {
        self.lock().get(&key(model, pool))?.breaker.open(self.clock.now())
    }

    /// Whether `pool` throttles so often that the other pools are tried first.
    pub fn is_throttling(&self, model: &Model, pool: &Pool) -> bool {
        let now = self.clock.now();
        self.lock().get(&key(model, pool)).is_some_and(|state| state.throttles.are_frequent(now))
    }

    /// Returns the weight of `pool` among equal pools, at most 1.
    pub fn weight(&self, model: &Model, pool: &Pool) -> f64 {
        let now = self.clock.now();
        let states = self.lock();
        let weight = |state: &PoolState| state.recent.weight(state.breaker.closed_at(), now);
        states.get(&key(model, pool)).map_or(1.0, weight)
    }

    /// Takes over an outage that another process has seen.
    pub fn learn(&self, model: &Model, pool: &Pool, outage: Outage) {
        let now = self.clock.now();
        if outage.until > now {
            self.lock().entry(key(model, pool)).or_default().breaker.learn(outage, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, PoolState>> {
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
    fn record_first_byte(&mut self, number: u64, now: UnixMs) {
        if self.first_bytes.record(number, now) {
            self.throttles.clear();
        }
    }
}

impl TrackedCall {
    /// Records the first byte of the answer.
    pub fn record_first_byte(&self) {
        self.update(|state, now| {
            state.record_first_byte(self.number, now);
            state.breaker.record_first_byte(self.period, now);
        });
    }

    /// Records the whole answer.
    pub fn succeed(self) {
        self.update(|state, now| {
            state.record_first_byte(self.number, now);
            state.breaker.record_success(self.period, now);
            state.recent.record(false, now);
        });
    }

    /// Records a failure. Returns the outage that begins with it.
    pub fn fail(self, fault: PoolFault) -> Option<Outage> {
        let jitter_percent = fastrand::u64(0..=MAX_JITTER_PERCENT);
        self.update(|state, now| {
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

    fn update<T: Default>(&self, update: impl FnOnce(&mut PoolState, UnixMs) -> T) -> T {
        let now = self.health.clock.now();
        self.health.lock().get_mut(&self.key).map(|state| update(state, now)).unwrap_or_default()
    }
}

impl Drop for TrackedCall {
    fn drop(&mut self) {
        self.update(|state, _| {
            state.first_bytes.stop(self.number);
            if self.is_probe {
                state.breaker.abandon_probe(self.period);
            }
        });
    }
}

fn key(model: &Model, pool: &Pool) -> String {
    format!("{}#{}", model.name, pool.name)
}
