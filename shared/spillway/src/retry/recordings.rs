//! The calls that this process runs or has just answered: bounded in number, bytes and time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    identity::{Identity, Name},
    recording::{Reader, Recorder, Recording},
};
use crate::clock::Clock;

/// How long an answer is kept after its end, in milliseconds: AWS SDKs wait at most 20 s before a repetition, and those
/// made by Stainless 8 s.
pub const KEPT_MS: u64 = 120_000;

/// The most calls that are kept, under way or answered.
pub const MOST_CALLS: usize = 1_000;

/// The most bytes of all answers that are kept. Half of it is for those that have ended.
pub(super) const MOST_BYTES: usize = 32 * 1024 * 1024;

/// How often what is over is looked for, in milliseconds.
const SWEEP_MS: u64 = 1_000;

/// What a request finds.
pub enum Opened {
    /// Nobody asked this before: whoever gets this runs the call and records it. Its own answer is read like any other's.
    New(Recorder, Reader),
    /// The same was asked: this is its answer.
    Joined(Reader),
    /// Something else was asked under the same name.
    OtherPayload,
    /// No more calls can be kept.
    Full,
}

/// The recordings of this process. Clones share them.
#[derive(Clone)]
pub struct Recordings {
    kept: Arc<Mutex<Kept>>,
    held: Arc<AtomicUsize>,
    clock: Clock,
}

#[derive(Default)]
struct Kept {
    /// Only calls that are not named can be several under one key, the oldest first.
    calls: HashMap<[u8; 32], Vec<Arc<Recording>>>,
    swept_ms: u64,
}

impl Recordings {
    pub fn new(clock: Clock) -> Self {
        Self { kept: Arc::default(), held: Arc::default(), clock }
    }

    /// Finds the call that this is an attempt at, or makes it a call of its own.
    pub fn open(&self, identity: &Identity) -> Opened {
        let now_ms = self.now_ms();
        let mut kept = self.lock();
        kept.sweep(now_ms, &self.held);
        let same = kept.calls.get(&identity.key).map_or(&[][..], Vec::as_slice);
        let mut live = same.iter().filter(|call| is_live(call, now_ms));
        if live.clone().any(|call| call.payload != identity.payload) {
            return Opened::OtherPayload;
        }
        let joined = live.find_map(|call| match identity.name {
            Name::Explicit | Name::Invocation { .. } => call.join(now_ms, |_| true),
            Name::Counted { is_repetition: false, .. } => None,
            Name::Counted { patience_ms, .. } => call.join(now_ms, |tape| tape.is_abandoned(patience_ms, now_ms)),
        });
        if let Some(reader) = joined {
            return Opened::Joined(reader);
        }
        if kept.count() >= MOST_CALLS {
            return Opened::Full;
        }
        let recording = Recording::new(identity.payload, Arc::clone(&self.held));
        let Some(reader) = recording.join(now_ms, |_| true) else { return Opened::Full };
        kept.calls.entry(identity.key).or_default().push(Arc::clone(&recording));
        Opened::New(Recorder { recording, recordings: self.clone(), key: identity.key }, reader)
    }

    pub(super) fn forget(&self, key: &[u8; 32], recording: &Arc<Recording>) {
        let mut kept = self.lock();
        if let Some(calls) = kept.calls.get_mut(key) {
            calls.retain(|call| !Arc::ptr_eq(call, recording));
            if calls.is_empty() {
                kept.calls.remove(key);
            }
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Lets go of what is over, and of the oldest answers while there is too much of them.
    fn sweep(&mut self, now_ms: u64, held: &AtomicUsize) {
        let is_crowded = |kept: &Self| kept.count() >= MOST_CALLS || held.load(Ordering::Relaxed) > MOST_BYTES / 2;
        if self.swept_ms.saturating_add(SWEEP_MS) > now_ms && !is_crowded(self) {
            return;
        }
        self.swept_ms = now_ms;
        self.calls.retain(|_, calls| {
            calls.retain(|call| is_live(call, now_ms));
            !calls.is_empty()
        });
        let ended = |(key, calls): (&[u8; 32], &Vec<Arc<Recording>>)| {
            calls.iter().filter_map(|call| Some((call.ended_ms()?, *key))).min()
        };
        while is_crowded(self)
            && let Some((ended_ms, key)) = self.calls.iter().filter_map(ended).min()
        {
            let calls = self.calls.entry(key).or_default();
            calls.retain(|call| call.ended_ms() != Some(ended_ms));
            if calls.is_empty() {
                self.calls.remove(&key);
            }
        }
    }

    fn count(&self) -> usize {
        self.calls.values().map(Vec::len).sum()
    }
}

fn is_live(call: &Recording, now_ms: u64) -> bool {
    call.ended_ms().is_none_or(|ended_ms| ended_ms.saturating_add(KEPT_MS) > now_ms)
}
