//! The time: wall time, plus an offset that a test can advance.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

/// Milliseconds since 1970. Clones share one offset, so that advancing one advances all of them.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    advanced_ms: Arc<watch::Sender<u64>>,
}

impl Clock {
    /// The time now, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX).saturating_add(*self.advanced_ms.borrow())
    }

    /// Moves this clock and all its clones forward, and wakes those who sleep until a time now past.
    pub fn advance(&self, by_ms: u64) {
        self.advanced_ms.send_modify(|advanced_ms| *advanced_ms = advanced_ms.saturating_add(by_ms));
    }

    /// Returns once the time is `at_ms` or later, whether it passed or was advanced.
    pub async fn sleep_until(&self, at_ms: u64) {
        let mut advances = self.advanced_ms.subscribe();
        loop {
            let left_ms = at_ms.saturating_sub(self.now_ms());
            if left_ms == 0 {
                return;
            }
            // The sender lives in `self`, so waiting for the next advance cannot fail.
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left_ms)) => {}
                _ = advances.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_is_advanced_past() {
        let clock = Clock::default();
        let at_ms = clock.now_ms() + 3_600_000;
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(at_ms).await }
        });
        clock.advance(1_800_000);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(1_800_000);
        tokio::time::timeout(Duration::from_secs(5), sleeper).await.expect("woken by the advance").expect("no panic");
        assert!(clock.now_ms() >= at_ms);
    }

    #[tokio::test]
    async fn a_time_in_the_past_is_not_waited_for() {
        let clock = Clock::default();
        tokio::time::timeout(Duration::from_secs(5), clock.sleep_until(clock.now_ms())).await.expect("at once");
    }
}
