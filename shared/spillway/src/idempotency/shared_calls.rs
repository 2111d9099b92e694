//! The calls of this process that further attempts can join: running calls and recent answers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    identity::{CallIdentity, KeySource},
    shared_response::{ResponseReader, ResponseWriter, SharedResponse},
};
use crate::{
    clock::Clock,
    retention,
    units::{Millis, UnixMs},
};

/// Maximum number of calls, running or answered.
const MAX_CALLS: usize = 10_000;

/// Maximum number of bytes of all answers. Ended answers get half of it.
pub(super) const MAX_TOTAL_BYTES: usize = 32 * 1024 * 1024;

/// Time between two removals of expired answers.
const SWEEP_INTERVAL: Millis = Millis::from_s(1);

/// Role of a request among the attempts at a call.
pub enum JoinOutcome {
    /// The first attempt. It runs the call and writes the answer, and reads it like a follower.
    Leader(ResponseWriter, ResponseReader),
    /// A further attempt. It reads the answer of the leader.
    Follower(ResponseReader),
    /// The key was used for a different request.
    KeyReused,
    /// The maximum number of calls is running.
    Full,
}

/// The shared calls of this process. Clones share them.
#[derive(Clone)]
pub struct SharedCalls {
    table: Arc<Mutex<CallTable>>,
    total_bytes: Arc<AtomicUsize>,
    clock: Clock,
}

#[derive(Default)]
struct CallTable {
    /// Calls by key, the oldest first. Only calls whose key is their fingerprint can be several
    /// under one key.
    calls: HashMap<[u8; 32], Vec<Arc<SharedResponse>>>,
    /// Number of calls.
    count: usize,
    swept_at: UnixMs,
}

impl SharedCalls {
    pub fn new(clock: Clock) -> Self {
        Self { table: Arc::default(), total_bytes: Arc::default(), clock }
    }

    /// Joins the call with this identity, or begins it.
    pub fn join(&self, identity: &CallIdentity) -> JoinOutcome {
        let now = self.now();
        let mut table = self.lock();
        table.sweep(now, &self.total_bytes);
        let calls = table.calls.get(&identity.key).map_or(&[][..], Vec::as_slice);
        let mut live = calls.iter().filter(|call| is_live(call, now));
        if live.clone().any(|call| call.fingerprint != identity.fingerprint) {
            return JoinOutcome::KeyReused;
        }
        let joined = live.find_map(|call| match identity.source {
            KeySource::Explicit | KeySource::SdkInvocation { .. } => call.join(now, |_| true),
            KeySource::Fingerprint { is_retry: false, .. } => None,
            KeySource::Fingerprint { client_timeout, .. } => {
                call.join(now, |buffer| buffer.is_abandoned(client_timeout, now))
            }
        });
        if let Some(reader) = joined {
            return JoinOutcome::Follower(reader);
        }
        if table.count >= MAX_CALLS {
            return JoinOutcome::Full;
        }
        let response = SharedResponse::new(identity.fingerprint, Arc::clone(&self.total_bytes));
        let Some(reader) = response.join(now, |_| true) else { return JoinOutcome::Full };
        table.add(identity.key, Arc::clone(&response));
        JoinOutcome::Leader(ResponseWriter { response, calls: self.clone(), key: identity.key }, reader)
    }

    pub(super) fn forget(&self, key: &[u8; 32], response: &Arc<SharedResponse>) {
        let mut table = self.lock();
        let Some(calls) = table.calls.get_mut(key) else { return };
        let before = calls.len();
        calls.retain(|call| !Arc::ptr_eq(call, response));
        let after = calls.len();
        if after == 0 {
            table.calls.remove(key);
        }
        table.count -= before - after;
    }

    pub(super) fn now(&self) -> UnixMs {
        self.clock.now()
    }

    fn lock(&self) -> MutexGuard<'_, CallTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallTable {
    fn add(&mut self, key: [u8; 32], response: Arc<SharedResponse>) {
        self.calls.entry(key).or_default().push(response);
        self.count += 1;
    }

    /// Removes expired answers, then the older half of the answers until the rest is within its
    /// bounds. Running calls stay.
    fn sweep(&mut self, now: UnixMs, total_bytes: &AtomicUsize) {
        let is_full =
            |table: &Self| table.count >= MAX_CALLS || total_bytes.load(Ordering::Relaxed) > MAX_TOTAL_BYTES / 2;
        if self.swept_at + SWEEP_INTERVAL > now && !is_full(self) {
            return;
        }
        self.swept_at = now;
        self.retain(|call| is_live(call, now));
        while is_full(self) {
            let mut ends: Vec<UnixMs> = self.calls.values().flatten().filter_map(|call| call.ended_at()).collect();
            ends.sort_unstable();
            let Some(median) = ends.get(ends.len() / 2) else { return };
            self.retain(|call| call.ended_at().is_none_or(|ended_at| ended_at > *median));
        }
    }

    fn retain(&mut self, is_kept: impl Fn(&Arc<SharedResponse>) -> bool) {
        self.calls.retain(|_, calls| {
            calls.retain(&is_kept);
            !calls.is_empty()
        });
        self.count = self.calls.values().map(Vec::len).sum();
    }
}

fn is_live(call: &SharedResponse, now: UnixMs) -> bool {
    call.ended_at().is_none_or(|ended_at| ended_at + retention::ANSWER > now)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::idempotency::response_buffer::MAX_ANSWER_BYTES;

    fn call(n: usize) -> CallIdentity {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        CallIdentity { key, fingerprint: [1; 32], source: KeySource::SdkInvocation { is_retry: false } }
    }

    fn lead(calls: &SharedCalls, n: usize) -> (ResponseWriter, ResponseReader) {
        match calls.join(&call(n)) {
            JoinOutcome::Leader(writer, reader) => (writer, reader),
            _ => panic!("not the first attempt"),
        }
    }

    fn is_follower(calls: &SharedCalls, n: usize) -> bool {
        matches!(calls.join(&call(n)), JoinOutcome::Follower(_))
    }

    #[tokio::test]
    async fn new_calls_displace_the_oldest_answers() {
        let calls = SharedCalls::new(Clock::default());
        for n in 0..MAX_CALLS {
            calls.clock.advance(Millis::from_ms(1));
            lead(&calls, n).0.end();
        }
        assert!(is_follower(&calls, MAX_CALLS - 1));
        lead(&calls, MAX_CALLS).0.end();
        assert!(is_follower(&calls, MAX_CALLS) && is_follower(&calls, MAX_CALLS - 1));
        assert!(!is_follower(&calls, 0));
    }

    #[tokio::test]
    async fn running_calls_are_not_displaced_so_further_calls_find_no_room() {
        let calls = SharedCalls::new(Clock::default());
        let running: Vec<_> = (0..MAX_CALLS).map(|n| lead(&calls, n)).collect();
        assert!(matches!(calls.join(&call(MAX_CALLS)), JoinOutcome::Full));
        assert!(is_follower(&calls, 0));
        drop(running);
        assert!(!is_follower(&calls, 0), "a failed call is forgotten");
    }

    #[tokio::test]
    async fn the_memory_of_all_answers_is_bounded() {
        let calls = SharedCalls::new(Clock::default());
        let total_bytes = || calls.total_bytes.load(Ordering::Relaxed);
        let mut running = Vec::new();
        for n in 0..MAX_TOTAL_BYTES / MAX_ANSWER_BYTES + 8 {
            let (writer, reader) = lead(&calls, n);
            drop(reader);
            writer.push(Bytes::from(vec![0; MAX_ANSWER_BYTES]));
            assert!(total_bytes() <= MAX_TOTAL_BYTES);
            running.push(writer);
        }
        assert!(is_follower(&calls, 0), "the first answer had room");
        assert!(matches!(calls.join(&call(running.len() - 1)), JoinOutcome::Leader(..)), "the last answer had none");
        running.into_iter().for_each(ResponseWriter::end);
        drop(calls.join(&call(usize::MAX)));
        assert!(total_bytes() <= MAX_TOTAL_BYTES / 2);
        calls.clock.advance(retention::ANSWER);
        drop(calls.join(&call(usize::MAX)));
        assert_eq!(total_bytes(), 0);
    }

    #[tokio::test]
    async fn readers_see_the_end_of_a_failed_call() {
        let calls = SharedCalls::new(Clock::default());
        let (writer, mut reader) = lead(&calls, 0);
        let head = tokio::spawn(async move { reader.head().await });
        tokio::task::yield_now().await;
        drop(writer);
        assert!(head.await.expect("no panic").is_none());
    }
}
