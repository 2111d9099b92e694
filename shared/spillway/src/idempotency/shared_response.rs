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
    shares::has_room,
};
use crate::units::UnixMs;

/// What the calls of one tenant, or of all tenants, hold in this process.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// Number of running calls.
    running: AtomicUsize,
    /// Number of bytes of answers that can be replayed.
    bytes: AtomicUsize,
}

impl Holding {
    /// Number of running calls.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Number of bytes of answers that can be replayed.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, buffer: &ResponseBuffer) {
        self.running.fetch_add(buffer.ended_at().is_none().into(), Ordering::Relaxed);
        self.bytes.fetch_add(buffer.replayable_bytes(), Ordering::Relaxed);
    }

    fn remove(&self, buffer: &ResponseBuffer) {
        self.running.fetch_sub(buffer.ended_at().is_none().into(), Ordering::Relaxed);
        self.bytes.fetch_sub(buffer.replayable_bytes(), Ordering::Relaxed);
    }
}

/// A response buffer that tasks can wait for.
pub(super) struct SharedResponse {
    buffer: watch::Sender<ResponseBuffer>,
    tenant: Arc<Holding>,
    total: Arc<Holding>,
    /// Digest of the request.
    pub(super) fingerprint: [u8; 32],
}

impl SharedResponse {
    pub(super) fn new(fingerprint: [u8; 32], tenant: Arc<Holding>, total: Arc<Holding>) -> Arc<Self> {
        let buffer = ResponseBuffer::default();
        tenant.add(&buffer);
        total.add(&buffer);
        Arc::new(Self { buffer: watch::Sender::new(buffer), tenant, total, fingerprint })
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

    /// Number of bytes that are held for further attempts.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.borrow().replayable_bytes()
    }

    /// Id of the tenant, unique while one of its calls exists.
    pub(super) fn tenant_id(&self) -> *const Holding {
        Arc::as_ptr(&self.tenant)
    }

    /// Changes the buffer, updates the holdings, and wakes all waiting tasks.
    fn change<T: Default>(&self, change: impl FnOnce(&mut ResponseBuffer) -> T) -> T {
        let mut changed = T::default();
        self.buffer.send_modify(|buffer| {
            self.tenant.remove(buffer);
            self.total.remove(buffer);
            changed = change(buffer);
            self.tenant.add(buffer);
            self.total.add(buffer);
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
        let buffer = self.buffer.borrow();
        self.tenant.remove(&buffer);
        self.total.remove(&buffer);
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
        let SharedResponse { tenant, total, .. } = &*self.response;
        let has_room = has_room(tenant.bytes(), total.bytes(), chunk.len(), MAX_TOTAL_BYTES);
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
