//! The answer of one call while it arrives: one writer, and readers that follow it from the start.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    response_buffer::{ResponseBuffer, ResponseHead},
    shared_calls::{MAX_TOTAL_BYTES, SharedCalls},
};
use crate::units::UnixMs;

/// A response buffer that tasks can wait for. It counts its bytes in the total of the process.
pub(super) struct SharedResponse {
    buffer: watch::Sender<ResponseBuffer>,
    total_bytes: Arc<AtomicUsize>,
    /// Digest of the request.
    pub(super) fingerprint: [u8; 32],
}

impl SharedResponse {
    pub(super) fn new(fingerprint: [u8; 32], total_bytes: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { buffer: watch::Sender::new(ResponseBuffer::default()), total_bytes, fingerprint })
    }

    /// Adds a reader, if `may_join` returns true and the answer can still be read from its start.
    pub(super) fn join(
        self: &Arc<Self>,
        now: UnixMs,
        may_join: impl FnOnce(&ResponseBuffer) -> bool,
    ) -> Option<ResponseReader> {
        let id = self.change(|buffer| may_join(buffer).then(|| buffer.add_reader(now)).flatten())?;
        Some(ResponseReader { response: Arc::clone(self), id })
    }

    pub(super) fn ended_at(&self) -> Option<UnixMs> {
        self.buffer.borrow().ended_at()
    }

    /// Changes the buffer, updates the total, and wakes all waiting tasks.
    fn change<T: Default>(&self, change: impl FnOnce(&mut ResponseBuffer) -> T) -> T {
        let mut changed = T::default();
        self.buffer.send_modify(|buffer| {
            let before = buffer.bytes();
            changed = change(buffer);
            self.total_bytes.fetch_add(buffer.bytes(), Ordering::Relaxed);
            self.total_bytes.fetch_sub(before, Ordering::Relaxed);
        });
        changed
    }

    /// Waits until the buffer fulfils `condition`.
    async fn wait_until(&self, condition: impl FnMut(&ResponseBuffer) -> bool) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.buffer.subscribe().wait_for(condition).await;
    }
}

impl Drop for SharedResponse {
    fn drop(&mut self) {
        self.total_bytes.fetch_sub(self.buffer.borrow().bytes(), Ordering::Relaxed);
    }
}

/// Writes the answer of one call. If it is dropped before [`end`](Self::end), the call has failed:
/// the call is forgotten, and its readers see the end.
pub struct ResponseWriter {
    pub(super) response: Arc<SharedResponse>,
    pub(super) calls: SharedCalls,
    pub(super) key: [u8; 32],
}

impl ResponseWriter {
    /// Begins the answer.
    pub fn begin(&self, head: ResponseHead) {
        self.response.change(|buffer| buffer.begin(head));
    }

    /// Writes a chunk of the body. Returns whether the answer can still be replayed. If not, the
    /// caller should [wait for the readers](Self::wait_for_readers) before the next chunk.
    pub fn push(&self, chunk: Bytes) -> bool {
        let total_bytes = self.response.total_bytes.load(Ordering::Relaxed);
        let has_room = total_bytes.saturating_add(chunk.len()) <= MAX_TOTAL_BYTES;
        self.response.change(|buffer| {
            if !chunk.is_empty() {
                buffer.push(chunk, has_room);
            }
            buffer.is_replayable()
        })
    }

    /// Waits until the readers have read enough that the writer may continue (backpressure).
    /// Returns immediately if there are no readers.
    pub async fn wait_for_readers(&self) {
        self.response.wait_until(|buffer| !buffer.is_congested()).await;
    }

    /// Returns the body so far, if the answer can be replayed.
    pub fn body(&self) -> Option<Bytes> {
        self.response.buffer.borrow().body()
    }

    /// Forgets the call: the next attempt runs.
    pub fn forget(&self) {
        self.calls.forget(&self.key, &self.response);
    }

    /// Ends the answer.
    pub fn end(self) {
        if !self.response.buffer.borrow().is_replayable() {
            self.forget();
        }
        self.response.change(|buffer| buffer.end(self.calls.now()));
    }
}

impl Drop for ResponseWriter {
    fn drop(&mut self) {
        if self.response.ended_at().is_none() {
            self.forget();
            self.response.change(|buffer| buffer.end(self.calls.now()));
        }
    }
}

/// Reads the answer of one call from its start.
pub struct ResponseReader {
    response: Arc<SharedResponse>,
    id: u64,
}

impl ResponseReader {
    /// Waits for the head. Returns `None` if the call failed before it.
    pub async fn head(&mut self) -> Option<ResponseHead> {
        self.response.wait_until(|buffer| buffer.head().is_some() || buffer.ended_at().is_some()).await;
        self.response.buffer.borrow().head().cloned()
    }

    /// Waits for the next chunk of the body. Returns `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.response.wait_until(|buffer| buffer.is_ready(self.id)).await;
        self.response.change(|buffer| buffer.read(self.id))
    }
}

impl Drop for ResponseReader {
    fn drop(&mut self) {
        self.response.change(|buffer| buffer.remove_reader(self.id));
    }
}
