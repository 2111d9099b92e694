//! Who waits for the same item goes together: while one write of a lane is under way, those that come meanwhile collect,
//! and the next write carries them all ("group commit"). Nobody lingers: a write that nobody else waits for goes at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What waits, by item. Clones share it.
pub(super) struct Lanes<T> {
    waiting: Arc<Mutex<HashMap<String, Vec<T>>>>,
}

impl<T: Send + 'static> Lanes<T> {
    /// Adds `one` to the lane of `key`. If nobody drives that lane, a task begins to: it calls `round` with all that waits
    /// until nothing does.
    ///
    /// The task is the runtime's own, so a caller that goes away leaves nobody waiting.
    pub(super) fn enter<F, R>(&self, key: &str, one: T, round: F)
    where
        F: Fn(String, Vec<T>) -> R + Send + 'static,
        R: Future<Output = ()> + Send,
    {
        let mut waiting = self.lock();
        if let Some(lane) = waiting.get_mut(key) {
            lane.push(one);
            return;
        }
        waiting.insert(key.to_owned(), vec![one]);
        drop(waiting);
        let mut driver = Driver { lanes: self.clone(), key: Some(key.to_owned()) };
        tokio::spawn(async move {
            while let Some((key, all)) = driver.next() {
                round(key, all).await;
            }
        });
    }
}

impl<T> Lanes<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<T>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Lanes<T> {
    fn clone(&self) -> Self {
        Self { waiting: Arc::clone(&self.waiting) }
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { waiting: Arc::default() }
    }
}

/// Whoever drives a lane. Should it die, the lane goes with it, so that those who wait in it learn of it.
struct Driver<T> {
    lanes: Lanes<T>,
    /// `None` once the lane is closed: by then another may drive a lane of that key.
    key: Option<String>,
}

impl<T> Driver<T> {
    /// All that waits; closes the lane when nothing does.
    fn next(&mut self) -> Option<(String, Vec<T>)> {
        let mut waiting = self.lanes.lock();
        let key = self.key.clone()?;
        let all = std::mem::take(waiting.get_mut(&key)?);
        if all.is_empty() {
            waiting.remove(&key);
            self.key = None;
            return None;
        }
        Some((key, all))
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.lanes.lock().remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn those_who_come_during_a_write_share_the_next() {
        let lanes = Lanes::default();
        let (rounds, mut seen) = mpsc::unbounded_channel();
        for one in 0..5 {
            let rounds = rounds.clone();
            lanes.enter("item", one, move |_, all| {
                let rounds = rounds.clone();
                async move {
                    rounds.send(all).expect("somebody looks");
                    tokio::task::yield_now().await;
                }
            });
            if one == 0 {
                assert_eq!(seen.recv().await, Some(vec![0]), "the first goes alone and at once");
            }
        }
        assert_eq!(seen.recv().await, Some(vec![1, 2, 3, 4]));
        while !lanes.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_lane_that_dies_leaves_nobody_waiting() {
        let lanes = Lanes::default();
        let (reply, answer) = oneshot::channel::<()>();
        lanes.enter("item", reply, |_, _| async { panic!("on purpose") });
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("in time");
        assert!(answer.is_err());
        while !lanes.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
