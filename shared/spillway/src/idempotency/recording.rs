//! A call whose answer is recorded while it comes: one writer, and readers that follow it from the start.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    recordings::{MOST_BYTES, Recordings},
    tape::{Head, Tape},
};

/// A tape that can be waited for, and the bytes of all tapes of this process.
pub(super) struct Recording {
    tape: watch::Sender<Tape>,
    held: Arc<AtomicUsize>,
    /// What is asked.
    pub(super) payload: [u8; 32],
}

impl Recording {
    pub(super) fn new(payload: [u8; 32], held: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { tape: watch::Sender::new(Tape::default()), held, payload })
    }

    /// A reader, if `may_join` allows it and the answer can still be read from its start.
    pub(super) fn join(self: &Arc<Self>, now_ms: u64, may_join: impl FnOnce(&Tape) -> bool) -> Option<Reader> {
        let id = self.change(|tape| may_join(tape).then(|| tape.join(now_ms)).flatten())?;
        Some(Reader { changes: self.tape.subscribe(), recording: Arc::clone(self), id })
    }

    pub(super) fn ended_ms(&self) -> Option<u64> {
        self.tape.borrow().ended_ms()
    }

    /// Changes the tape, counts what it holds by then, and wakes whoever waits for it.
    fn change<T: Default>(&self, change: impl FnOnce(&mut Tape) -> T) -> T {
        let mut changed = T::default();
        self.tape.send_modify(|tape| {
            let before = tape.bytes();
            changed = change(tape);
            self.held.fetch_add(tape.bytes(), Ordering::Relaxed);
            self.held.fetch_sub(before, Ordering::Relaxed);
        });
        changed
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.held.fetch_sub(self.tape.borrow().bytes(), Ordering::Relaxed);
    }
}

/// Who records a call. Dropped before [`end`](Self::end), the call has died: it is forgotten, and its readers are told.
pub struct Recorder {
    pub(super) recording: Arc<Recording>,
    pub(super) recordings: Recordings,
    pub(super) key: [u8; 32],
}

impl Recorder {
    /// The answer begins.
    pub fn begin(&self, head: Head) {
        self.recording.change(|tape| tape.begin(head));
    }

    /// Records the next piece of the body; whether all of it is still kept for those who come later. If not,
    /// [`is_read`](Self::is_read) should be awaited before the next.
    pub fn push(&self, chunk: Bytes) -> bool {
        let is_room = self.recording.held.load(Ordering::Relaxed).saturating_add(chunk.len()) <= MOST_BYTES;
        self.recording.change(|tape| {
            if !chunk.is_empty() {
                tape.push(chunk, is_room);
            }
            tape.is_kept()
        })
    }

    /// Returns when not much is left that a reader has not read, or nobody reads.
    pub async fn is_read(&self) {
        // The sender lives in the recording, so waiting cannot fail.
        let _ = self.recording.tape.subscribe().wait_for(|tape| !tape.is_far_ahead()).await;
    }

    /// The body so far, if it is kept.
    pub fn body(&self) -> Option<Bytes> {
        self.recording.tape.borrow().body()
    }

    /// Lets nobody join any more: the next attempt is a call of its own.
    pub fn forget(&self) {
        self.recordings.forget(&self.key, &self.recording);
    }

    /// The answer is complete.
    pub fn end(self) {
        if !self.recording.tape.borrow().is_kept() {
            self.forget();
        }
        self.recording.change(|tape| tape.end(self.recordings.now_ms()));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.recording.ended_ms().is_none() {
            self.forget();
            self.recording.change(|tape| tape.end(self.recordings.now_ms()));
        }
    }
}

/// Reads one recorded answer from its start.
pub struct Reader {
    recording: Arc<Recording>,
    changes: watch::Receiver<Tape>,
    id: u64,
}

impl Reader {
    /// What the answer says before its body; `None` if the call died.
    pub async fn head(&mut self) -> Option<Head> {
        let begun = self.changes.wait_for(|tape| tape.head().is_some() || tape.ended_ms().is_some()).await;
        begun.ok()?.head().cloned()
    }

    /// The next piece of the body as soon as it is there; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        let id = self.id;
        self.changes.wait_for(|tape| tape.is_ready(id)).await.ok()?;
        self.recording.change(|tape| tape.read(id))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.recording.change(|tape| tape.leave(self.id));
    }
}
