//! A wall clock that tests can advance: real time plus an offset.

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
    /// Returns the current time in milliseconds since 1970, including the offset.
    pub fn now_ms(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX).saturating_add(*self.offset_ms.borrow())
    }

    /// Advances all clones by `by_ms` and wakes the tasks that sleep on them.
    pub fn advance(&self, by_ms: u64) {
        self.offset_ms.send_modify(|offset_ms| *offset_ms = offset_ms.saturating_add(by_ms));
    }

    /// Sleeps until `now_ms` reaches `at_ms`, because time passes or because of `advance`.
    pub async fn sleep_until(&self, at_ms: u64) {
        let mut offset = self.offset_ms.subscribe();
        loop {
            let left_ms = at_ms.saturating_sub(self.now_ms());
            if left_ms == 0 {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left_ms)) => {}
                // `self` keeps the sender alive, so this only reports changes.
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
        tokio::time::timeout(Duration::from_secs(5), sleep)
            .await
            .expect("the sleeper must wake")
            .expect("the sleeper must not panic");
        assert!(clock.now_ms() >= at_ms);
    }
}
