//! The calls that this process runs or has just answered: bounded in number, bytes and time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    key::{Identity, Name},
    recording::{Reader, Recorder, Recording},
};
use crate::clock::Clock;

/// How long an answer is kept after its end, in milliseconds: AWS SDKs wait at most 20 s before a repetition, and those
/// made by Stainless 8 s.
pub const KEPT_MS: u64 = 120_000;

/// The most calls that are kept, under way or answered.
pub const MOST_CALLS: usize = 10_000;

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
    /// How many calls that are.
    count: usize,
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
        if kept.count >= MOST_CALLS {
            return Opened::Full;
        }
        let recording = Recording::new(identity.payload, Arc::clone(&self.held));
        let Some(reader) = recording.join(now_ms, |_| true) else { return Opened::Full };
        kept.add(identity.key, Arc::clone(&recording));
        Opened::New(Recorder { recording, recordings: self.clone(), key: identity.key }, reader)
    }

    pub(super) fn forget(&self, key: &[u8; 32], recording: &Arc<Recording>) {
        let mut kept = self.lock();
        let Some(calls) = kept.calls.get_mut(key) else { return };
        let before = calls.len();
        calls.retain(|call| !Arc::ptr_eq(call, recording));
        let after = calls.len();
        if after == 0 {
            kept.calls.remove(key);
        }
        kept.count -= before - after;
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, key: [u8; 32], recording: Arc<Recording>) {
        self.calls.entry(key).or_default().push(recording);
        self.count += 1;
    }

    /// Lets go of what is over, and of the older half of the answers as long as there is too much.
    fn sweep(&mut self, now_ms: u64, held: &AtomicUsize) {
        let is_crowded = |kept: &Self| kept.count >= MOST_CALLS || held.load(Ordering::Relaxed) > MOST_BYTES / 2;
        if self.swept_ms.saturating_add(SWEEP_MS) > now_ms && !is_crowded(self) {
            return;
        }
        self.swept_ms = now_ms;
        self.retain(|call| is_live(call, now_ms));
        while is_crowded(self) {
            let mut ends_ms: Vec<u64> = self.calls.values().flatten().filter_map(|call| call.ended_ms()).collect();
            ends_ms.sort_unstable();
            let Some(until_ms) = ends_ms.get(ends_ms.len() / 2) else { return };
            self.retain(|call| call.ended_ms().is_none_or(|ended_ms| ended_ms > *until_ms));
        }
    }

    fn retain(&mut self, is_kept: impl Fn(&Arc<Recording>) -> bool) {
        self.calls.retain(|_, calls| {
            calls.retain(&is_kept);
            !calls.is_empty()
        });
        self.count = self.calls.values().map(Vec::len).sum();
    }
}

fn is_live(call: &Recording, now_ms: u64) -> bool {
    call.ended_ms().is_none_or(|ended_ms| ended_ms.saturating_add(KEPT_MS) > now_ms)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::idempotency::LARGEST_ANSWER;

    fn named(n: usize) -> Identity {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        Identity { key, payload: [1; 32], name: Name::Invocation { is_repetition: false } }
    }

    fn new(recordings: &Recordings, n: usize) -> (Recorder, Reader) {
        match recordings.open(&named(n)) {
            Opened::New(recorder, reader) => (recorder, reader),
            _ => panic!("the first attempt"),
        }
    }

    fn is_joined(recordings: &Recordings, n: usize) -> bool {
        matches!(recordings.open(&named(n)), Opened::Joined(_))
    }

    #[tokio::test]
    async fn the_oldest_answers_make_room_for_new_calls() {
        let recordings = Recordings::new(Clock::default());
        for n in 0..MOST_CALLS {
            recordings.clock.advance(crate::units::Millis::from_ms(1));
            new(&recordings, n).0.end();
        }
        assert!(is_joined(&recordings, MOST_CALLS - 1));
        new(&recordings, MOST_CALLS).0.end();
        assert!(is_joined(&recordings, MOST_CALLS) && is_joined(&recordings, MOST_CALLS - 1));
        assert!(!is_joined(&recordings, 0));
    }

    #[tokio::test]
    async fn calls_under_way_are_never_dropped_so_no_more_than_fit_are_kept() {
        let recordings = Recordings::new(Clock::default());
        let running: Vec<_> = (0..MOST_CALLS).map(|n| new(&recordings, n)).collect();
        assert!(matches!(recordings.open(&named(MOST_CALLS)), Opened::Full));
        assert!(is_joined(&recordings, 0));
        drop(running);
        assert!(!is_joined(&recordings, 0), "what died is forgotten");
    }

    #[tokio::test]
    async fn all_answers_together_take_no_more_than_their_share_of_memory() {
        let recordings = Recordings::new(Clock::default());
        let held = || recordings.held.load(Ordering::Relaxed);
        let mut running = Vec::new();
        for n in 0..MOST_BYTES / LARGEST_ANSWER + 8 {
            let (recorder, reader) = new(&recordings, n);
            drop(reader);
            recorder.push(Bytes::from(vec![0; LARGEST_ANSWER]));
            assert!(held() <= MOST_BYTES);
            running.push(recorder);
        }
        assert!(is_joined(&recordings, 0), "there was room for it");
        assert!(matches!(recordings.open(&named(running.len() - 1)), Opened::New(..)), "there was none for it");
        running.into_iter().for_each(Recorder::end);
        drop(recordings.open(&named(usize::MAX)));
        assert!(held() <= MOST_BYTES / 2);
        recordings.clock.advance(crate::units::Millis::from_ms(KEPT_MS));
        drop(recordings.open(&named(usize::MAX)));
        assert_eq!(held(), 0);
    }

    #[tokio::test]
    async fn whoever_reads_a_call_that_died_is_told() {
        let recordings = Recordings::new(Clock::default());
        let (recorder, mut reader) = new(&recordings, 0);
        let told = tokio::spawn(async move { reader.head().await.is_none() });
        tokio::task::yield_now().await;
        drop(recorder);
        assert!(told.await.expect("no panic"));
    }
}
