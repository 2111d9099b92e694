//! Group commit: concurrent requests for one item share a write. While a write of an item is in
//! progress, later requests collect, and the next write carries all of them. A request is never
//! delayed to wait for others: without a write in progress, it is written immediately.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Pending requests, by item. Clones share them.
pub(super) struct GroupCommit<T> {
    pending: Arc<Mutex<HashMap<String, Vec<T>>>>,
}

impl<T: Send + 'static> GroupCommit<T> {
    /// Adds `request` to the pending requests for the item `key`. If no task is writing that item,
    /// it spawns one, which calls `write` with all pending requests until none is left.
    ///
    /// The task does not belong to the caller, so a caller that is cancelled does not block others.
    pub(super) fn submit<F, R>(&self, key: &str, request: T, write: F)
    where
        F: Fn(String, Vec<T>) -> R + Send + 'static,
        R: Future<Output = ()> + Send,
    {
        let mut pending = self.lock();
        if let Some(group) = pending.get_mut(key) {
            group.push(request);
            return;
        }
        pending.insert(key.to_owned(), vec![request]);
        drop(pending);
        let mut driver = Driver { commits: self.clone(), key: Some(key.to_owned()) };
        tokio::spawn(async move {
            while let Some((key, group)) = driver.next() {
                write(key, group).await;
            }
        });
    }
}

impl<T> GroupCommit<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<T>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for GroupCommit<T> {
    fn clone(&self) -> Self {
        Self { pending: Arc::clone(&self.pending) }
    }
}

impl<T> Default for GroupCommit<T> {
    fn default() -> Self {
        Self { pending: Arc::default() }
    }
}

/// Takes the groups of one item, one after the other. If it is dropped early, it drops the pending
/// requests, so that their callers get an error.
struct Driver<T> {
    commits: GroupCommit<T>,
    /// `None` once no request is left: another driver may then own that key.
    key: Option<String>,
}

impl<T> Driver<T> {
    /// Takes all pending requests. Removes the entry of the item if there are none.
    fn next(&mut self) -> Option<(String, Vec<T>)> {
        let mut pending = self.commits.lock();
        let key = self.key.clone()?;
        let group = std::mem::take(pending.get_mut(&key)?);
        if group.is_empty() {
            pending.remove(&key);
            self.key = None;
            return None;
        }
        Some((key, group))
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.commits.lock().remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn requests_that_come_during_a_write_share_the_next_write() {
        let commits = GroupCommit::default();
        let (written, mut groups) = mpsc::unbounded_channel();
        for request in 0..5 {
            let written = written.clone();
            commits.submit("item", request, move |_, group| {
                let written = written.clone();
                async move {
                    written.send(group).expect("the receiver is alive");
                    tokio::task::yield_now().await;
                }
            });
            if request == 0 {
                assert_eq!(groups.recv().await, Some(vec![0]), "the first is written immediately and alone");
            }
        }
        assert_eq!(groups.recv().await, Some(vec![1, 2, 3, 4]));
        while !commits.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_write_that_panics_leaves_no_request_pending() {
        let commits = GroupCommit::default();
        let (reply, replied) = oneshot::channel::<()>();
        commits.submit("item", reply, |_, _| async { panic!("on purpose") });
        let replied = tokio::time::timeout(Duration::from_secs(5), replied).await.expect("in time");
        assert!(replied.is_err());
        while !commits.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
