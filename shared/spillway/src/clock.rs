//! Clock: wall time, plus an offset that tests can advance.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use crate::units::{Millis, UnixMs};

/// A clock. Clones share the offset, so advancing one advances all.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    offset: Arc<watch::Sender<Millis>>,
}

impl Clock {
    /// Returns the current time.
    pub fn now(&self) -> UnixMs {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs::default() + Millis::from(since_1970) + *self.offset.borrow()
    }

    /// Advances this clock and all its clones, and wakes sleepers whose time has come.
    pub fn advance(&self, by: Millis) {
        self.offset.send_modify(|offset| *offset += by);
    }

    /// Returns once the time is `at` or later, because it passed or was advanced.
    pub async fn sleep_until(&self, at: UnixMs) {
        let mut advances = self.offset.subscribe();
        loop {
            let left = at - self.now();
            if left.is_zero() {
                return;
            }
            // The sender lives in `self`, so waiting for the next advance cannot fail.
            tokio::select! {
                () = tokio::time::sleep(left.into()) => {}
                _ = advances.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_is_advanced_past() {
        let clock = Clock::default();
        let at = clock.now() + Millis::from_s(3_600);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(at).await }
        });
        clock.advance(Millis::from_s(1_800));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Millis::from_s(1_800));
        tokio::time::timeout(Duration::from_secs(5), sleeper).await.expect("woken by the advance").expect("no panic");
        assert!(clock.now() >= at);
    }

    #[tokio::test]
    async fn a_sleep_until_a_past_time_returns_immediately() {
        let clock = Clock::default();
        tokio::time::timeout(Duration::from_secs(5), clock.sleep_until(clock.now())).await.expect("no wait");
    }
}
