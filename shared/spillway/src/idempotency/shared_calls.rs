//! The calls of this process that further attempts can join: running calls and recent answers.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    identity::{CallIdentity, KeySource},
    shared_response::{Holding, ResponseReader, ResponseWriter, SharedResponse},
    shares::{displaced, has_room},
};
use crate::{
    clock::Clock,
    retention,
    units::{Millis, UnixMs},
};

/// Maximum number of calls, running or answered.
const MAX_CALLS: usize = 10_000;

/// Maximum number of bytes of all answers that can be replayed.
pub(super) const MAX_TOTAL_BYTES: usize = 32 * 1024 * 1024;

/// Maximum number of bytes of ended answers after a sweep.
const MAX_ENDED_BYTES: usize = MAX_TOTAL_BYTES / 2;

/// Time between two sweeps.
const SWEEP_INTERVAL: Millis = Millis::from_ms(250);

/// Role of a request among the attempts at a call.
pub enum JoinOutcome {
    /// The first attempt. It runs the call and writes the answer, and reads it like a follower.
    Leader(ResponseWriter, ResponseReader),
    /// A further attempt. It reads the answer of the leader.
    Follower(ResponseReader),
    /// The key was used for a different request.
    KeyReused,
    /// The maximum number of calls is running, in all or for this tenant.
    Full,
}

/// The shared calls of this process. Clones share them.
#[derive(Clone)]
pub struct SharedCalls {
    table: Arc<Mutex<CallTable>>,
    /// What the calls of all tenants hold.
    total: Arc<Holding>,
    clock: Clock,
}

#[derive(Default)]
struct CallTable {
    /// Calls by key, the oldest first. Only calls whose key is their fingerprint can be several
    /// under one key.
    calls: HashMap<[u8; 32], Vec<Arc<SharedResponse>>>,
    /// Number of calls.
    count: usize,
    /// What the calls of each tenant hold.
    tenants: HashMap<String, Arc<Holding>>,
    swept_at: UnixMs,
}

impl SharedCalls {
    pub fn new(clock: Clock) -> Self {
        Self { table: Arc::default(), total: Arc::default(), clock }
    }

    /// Joins the call of `tenant` with this identity, or begins it.
    pub fn join(&self, tenant: &str, identity: &CallIdentity) -> JoinOutcome {
        let now = self.now();
        let mut table = self.lock();
        table.sweep(now);
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
        let tenant = table.holding(tenant);
        if !has_room(tenant.running(), self.total.running(), 1, MAX_CALLS) {
            return JoinOutcome::Full;
        }
        let response = SharedResponse::new(identity.fingerprint, tenant, Arc::clone(&self.total));
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

    /// Returns the holding of a tenant.
    fn holding(&mut self, tenant: &str) -> Arc<Holding> {
        if let Some(holding) = self.tenants.get(tenant) {
            return Arc::clone(holding);
        }
        Arc::clone(self.tenants.entry(tenant.to_owned()).or_default())
    }

    /// Removes expired answers, and displaces answers until the rest is within its bounds. Running
    /// calls stay.
    fn sweep(&mut self, now: UnixMs) {
        if self.swept_at + SWEEP_INTERVAL > now && self.count < MAX_CALLS {
            return;
        }
        self.swept_at = now;
        self.retain(|call| is_live(call, now));
        self.displace(MAX_ENDED_BYTES, SharedResponse::bytes);
        if self.count >= MAX_CALLS {
            // Several calls at a time, because a sweep reads all of them.
            let ended = self.calls.values().flatten().filter(|call| call.ended_at().is_some()).count();
            self.displace(ended * 3 / 4, |_| 1);
        }
        self.tenants.retain(|_, holding| Arc::strong_count(holding) > 1);
    }

    /// Displaces ended answers, so that the sizes of the others are at most `max` in all.
    fn displace(&mut self, max: usize, size: impl Fn(&SharedResponse) -> usize) {
        let calls = self.calls.values().flatten();
        let mut ended: Vec<_> = calls.filter_map(|call| Some((call.ended_at()?, size(call), call))).collect();
        if ended.iter().map(|(_, size, _)| size).sum::<usize>() <= max {
            return;
        }
        ended.sort_unstable_by_key(|(ended_at, ..)| *ended_at);
        let sizes: Vec<_> = ended.iter().map(|(_, size, call)| (call.tenant_id(), *size)).collect();
        let lost: HashSet<_> = displaced(&sizes, max).into_iter().map(|index| Arc::as_ptr(ended[index].2)).collect();
        self.retain(|call| !lost.contains(&Arc::as_ptr(call)));
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

    fn lead_for(tenant: &str, calls: &SharedCalls, n: usize) -> (ResponseWriter, ResponseReader) {
        match calls.join(tenant, &call(n)) {
            JoinOutcome::Leader(writer, reader) => (writer, reader),
            _ => panic!("not the first attempt"),
        }
    }

    fn lead(calls: &SharedCalls, n: usize) -> (ResponseWriter, ResponseReader) {
        lead_for("t", calls, n)
    }

    fn is_follower(calls: &SharedCalls, n: usize) -> bool {
        matches!(calls.join("t", &call(n)), JoinOutcome::Follower(_))
    }

    /// Answers call `n` of `tenant` with `bytes` bytes.
    fn answer(tenant: &str, calls: &SharedCalls, n: usize, bytes: usize) {
        calls.clock.advance(SWEEP_INTERVAL);
        let writer = lead_for(tenant, calls, n).0;
        writer.push(Bytes::from(vec![0; bytes]));
        writer.end();
    }

    #[tokio::test]
    async fn large_answers_of_one_tenant_do_not_displace_the_answers_of_another() {
        let calls = SharedCalls::new(Clock::default());
        answer("t", &calls, 0, MAX_ANSWER_BYTES);
        for n in 1..100 {
            answer("hostile", &calls, n, MAX_ANSWER_BYTES);
            assert!(is_follower(&calls, 0), "lost after {n} answers");
        }
        assert!(matches!(calls.join("hostile", &call(1)), JoinOutcome::Leader(..)), "its own first answer is gone");
    }

    #[tokio::test]
    async fn running_answers_of_one_tenant_leave_room_for_the_answers_of_another() {
        let calls = SharedCalls::new(Clock::default());
        let begin = |tenant: &str, n: usize| {
            let (writer, reader) = lead_for(tenant, &calls, n);
            (writer.push(Bytes::from(vec![0; MAX_ANSWER_BYTES])), writer, reader)
        };
        let hostile: Vec<_> = (1..100).map(|n| begin("hostile", n)).collect();
        let kept = hostile.iter().filter(|(is_kept, ..)| *is_kept).count();
        assert!(kept * MAX_ANSWER_BYTES <= MAX_TOTAL_BYTES * 2 / 3, "{kept} answers are kept");
        let (is_kept, _writer, _reader) = begin("t", 0);
        assert!(is_kept && is_follower(&calls, 0));
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
    async fn running_calls_are_not_displaced_so_further_calls_of_their_tenant_find_no_room() {
        let calls = SharedCalls::new(Clock::default());
        let running: Vec<_> = (0..MAX_CALLS * 2 / 3).map(|n| lead(&calls, n)).collect();
        assert!(matches!(calls.join("t", &call(MAX_CALLS)), JoinOutcome::Full));
        assert!(matches!(calls.join("u", &call(MAX_CALLS)), JoinOutcome::Leader(..)));
        assert!(is_follower(&calls, 0));
        drop(running);
        assert!(!is_follower(&calls, 0), "a failed call is forgotten");
    }

    #[tokio::test]
    async fn the_memory_of_all_answers_is_bounded() {
        let calls = SharedCalls::new(Clock::default());
        let mut running = Vec::new();
        for n in 0..MAX_TOTAL_BYTES / MAX_ANSWER_BYTES + 8 {
            let (writer, reader) = lead_for(&format!("t{}", n % 5), &calls, n);
            drop(reader);
            writer.push(Bytes::from(vec![0; MAX_ANSWER_BYTES]));
            assert!(calls.total.bytes() <= MAX_TOTAL_BYTES);
            running.push(writer);
        }
        assert!(matches!(calls.join("t0", &call(0)), JoinOutcome::Follower(_)), "the first answer had room");
        let last = running.len() - 1;
        assert!(matches!(calls.join("t2", &call(last)), JoinOutcome::Leader(..)), "the last answer had none");
        running.into_iter().for_each(ResponseWriter::end);
        calls.clock.advance(SWEEP_INTERVAL);
        drop(calls.join("t", &call(usize::MAX)));
        assert!(calls.total.bytes() <= MAX_ENDED_BYTES);
        calls.clock.advance(retention::ANSWER);
        drop(calls.join("t", &call(usize::MAX)));
        assert_eq!((calls.total.bytes(), calls.lock().tenants.len()), (0, 1));
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
