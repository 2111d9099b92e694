//! A wall clock that tests can push forward: real time plus an offset, shared by every clone.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

/// Milliseconds since 1970 plus an offset. Clones share the offset.
#[derive(Clone, Default)]
pub struct Clock {
    offset_ms: Arc<watch::Sender<u64>>,
}

impl Clock {
    /// The present moment in milliseconds since 1970, offset included.
    pub fn now_ms(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX).saturating_add(*self.offset_ms.borrow())
    }

    /// Moves the clock of all clones forward by `by_ms` and wakes whoever sleeps on it.
    pub fn advance(&self, by_ms: u64) {
        self.offset_ms.send_modify(|offset_ms| *offset_ms = offset_ms.saturating_add(by_ms));
    }

    /// Returns once `now_ms` has reached `at_ms`, through the passing of time or through `advance`.
    pub async fn sleep_until(&self, at_ms: u64) {
        let mut offset = self.offset_ms.subscribe();
        loop {
            let left_ms = at_ms.saturating_sub(self.now_ms());
            if left_ms == 0 {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left_ms)) => {}
                // The sender lives as long as `self`, so this only ever reports a change.
                _ = offset.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_advanced() {
        let clock = Clock::default();
        let sleeper = clock.clone();
        let at_ms = clock.now_ms() + 3_600_000;
        let sleep = tokio::spawn(async move { sleeper.sleep_until(at_ms).await });
        tokio::task::yield_now().await;
        assert!(!sleep.is_finished());
        clock.advance(3_600_000);
        tokio::time::timeout(Duration::from_secs(5), sleep).await.expect("the sleeper woke").expect("no panic");
        assert!(clock.now_ms() >= at_ms);
    }
}
