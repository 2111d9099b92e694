//! The traffic of a client: whether its connections can have died unnoticed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    clock::Clock,
    units::{Millis, UnixMs},
};

/// Time without traffic after which a connection may be dead. Servers keep an idle connection for
/// longer, so one that breaks earlier breaks for another reason. Lambda usually freezes a process
/// for longer.
const MIN_PAUSE: Millis = Millis::from_s(3);

/// Time after a pause in which calls still find connections from before it.
const RESUMPTION: Millis = Millis::from_s(1);

/// The calls of a client. Clones count the same calls.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    clock: Clock,
    calls: Arc<AtomicUsize>,
    /// When the last call ended, in milliseconds since 1970.
    last_ended_at: Arc<AtomicU64>,
    /// When the last pause ended, in milliseconds since 1970.
    resumed_at: Arc<AtomicU64>,
}

impl Traffic {
    pub fn new(clock: Clock) -> Self {
        Self { clock, calls: Arc::default(), last_ended_at: Arc::default(), resumed_at: Arc::default() }
    }

    /// Starts a call. Also returns whether it is one of the first after a pause.
    pub fn start(&self) -> (CallInProgress, bool) {
        let now = self.clock.now();
        let last_ended_at = UnixMs::from_ms(self.last_ended_at.load(Ordering::Relaxed));
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 && now - last_ended_at >= MIN_PAUSE {
            self.resumed_at.store(now.as_ms(), Ordering::Relaxed);
        }
        let resumed_at = UnixMs::from_ms(self.resumed_at.load(Ordering::Relaxed));
        (CallInProgress(self.clone()), now - resumed_at < RESUMPTION)
    }
}

/// A call in progress. It ends when it is dropped.
#[derive(Debug)]
pub struct CallInProgress(Traffic);

impl Drop for CallInProgress {
    fn drop(&mut self) {
        let Traffic { clock, calls, last_ended_at, .. } = &self.0;
        calls.fetch_sub(1, Ordering::Relaxed);
        last_ended_at.fetch_max(clock.now().as_ms(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_three_seconds_without_a_call() {
        let clock = Clock::default();
        let traffic = Traffic::new(clock.clone());
        let (first, is_after_pause) = traffic.start();
        assert!(is_after_pause, "nothing was called before");
        clock.advance(MIN_PAUSE);
        assert!(!traffic.start().1, "a call is in progress");
        drop(first);
        assert!(!traffic.start().1, "a call has just ended");
        clock.advance(MIN_PAUSE);
        let (_second, is_after_pause) = traffic.start();
        assert!(is_after_pause && traffic.start().1, "calls that begin together find the same connections");
    }
}
