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

/// The calls of a client. Clones count the same calls.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    clock: Clock,
    calls: Arc<AtomicUsize>,
    /// When the last call ended, in milliseconds since 1970.
    last_ended_at: Arc<AtomicU64>,
}

impl Traffic {
    pub fn new(clock: Clock) -> Self {
        Self { clock, calls: Arc::default(), last_ended_at: Arc::default() }
    }

    /// Starts a call. Also returns whether it is the first after a pause.
    pub fn start(&self) -> (CallInProgress, bool) {
        let last_ended_at = UnixMs::from_ms(self.last_ended_at.load(Ordering::Relaxed));
        let is_paused = self.clock.now() - last_ended_at >= MIN_PAUSE;
        let earlier = self.calls.fetch_add(1, Ordering::Relaxed);
        (CallInProgress(self.clone()), is_paused && earlier == 0)
    }
}

/// A call in progress. It ends when it is dropped.
#[derive(Debug)]
pub struct CallInProgress(Traffic);

impl Drop for CallInProgress {
    fn drop(&mut self) {
        let Traffic { clock, calls, last_ended_at } = &self.0;
        calls.fetch_sub(1, Ordering::Relaxed);
        last_ended_at.fetch_max(clock.now().as_ms(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_first_after_a_pause_if_no_other_ran_for_three_seconds() {
        let clock = Clock::default();
        let traffic = Traffic::new(clock.clone());
        let (first, is_first) = traffic.start();
        assert!(is_first, "nothing was called before");
        clock.advance(MIN_PAUSE);
        assert!(!traffic.start().1, "a call is in progress");
        drop(first);
        assert!(!traffic.start().1, "a call has just ended");
        clock.advance(MIN_PAUSE);
        assert!(traffic.start().1);
    }
}
