//! Response buffer: the part of an answer that its readers need. Pure.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use crate::units::{Millis, UnixMs};

/// Maximum size of an answer that can be replayed.
pub(super) const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Maximum number of bytes that the slowest reader of an answer that cannot be replayed may be
/// behind.
const MAX_UNREAD_BYTES: usize = 64 * 1024;

/// Status and headers of an answer.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Whether the body is a stream, so that each chunk is passed on as it arrives.
    pub is_stream: bool,
}

/// An answer and the positions of its readers.
///
/// While the answer is within its bounds, the buffer holds all of it, and readers can join. Beyond
/// them the buffer passes chunks through: it holds only chunks that a reader has not read, and no
/// reader can join.
#[derive(Debug, Default)]
pub struct ResponseBuffer {
    head: Option<ResponseHead>,
    /// The chunks of the body that are held.
    chunks: VecDeque<Bytes>,
    /// Number of chunks before them, which are no longer held.
    dropped: usize,
    /// Size of the chunks that are held.
    bytes: usize,
    is_pass_through: bool,
    /// For the id of each reader, the number of its next chunk.
    readers: BTreeMap<u64, usize>,
    next_reader: u64,
    /// Time when the last reader joined.
    joined_at: UnixMs,
    /// Whether a reader has read the answer to its end.
    was_read: bool,
    ended_at: Option<UnixMs>,
}

impl ResponseBuffer {
    /// Sets the head, with which the answer begins.
    pub fn begin(&mut self, head: ResponseHead) {
        self.head = Some(head);
    }

    /// Adds a chunk of the body. Without `has_room` the answer cannot be replayed from then on.
    pub fn push(&mut self, chunk: Bytes, has_room: bool) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
        self.is_pass_through |= self.bytes > MAX_ANSWER_BYTES || !has_room;
        self.trim();
    }

    /// Ends the answer, unless it has ended.
    pub fn end(&mut self, now: UnixMs) {
        self.ended_at.get_or_insert(now);
    }

    /// Adds a reader at the start of the answer and returns its id. The reader must be
    /// [removed](Self::remove_reader) later. Returns `None` if the answer cannot be replayed.
    pub fn add_reader(&mut self, now: UnixMs) -> Option<u64> {
        if self.is_pass_through {
            return None;
        }
        let reader = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(reader, 0);
        self.joined_at = now;
        Some(reader)
    }

    /// Whether [`read`](Self::read) would return a chunk or the end.
    pub fn is_ready(&self, reader: u64) -> bool {
        let next = self.readers.get(&reader).copied().unwrap_or(usize::MAX);
        self.ended_at.is_some() || next < self.dropped + self.chunks.len()
    }

    /// Returns the next chunk for this reader, or `None` at the end.
    pub fn read(&mut self, reader: u64) -> Option<Bytes> {
        let next = self.readers.get_mut(&reader)?;
        let Some(chunk) = self.chunks.get(next.checked_sub(self.dropped)?).cloned() else {
            self.was_read |= self.ended_at.is_some();
            return None;
        };
        *next += 1;
        self.trim();
        Some(chunk)
    }

    /// Removes a reader that needs nothing more.
    pub fn remove_reader(&mut self, reader: u64) {
        self.readers.remove(&reader);
        self.trim();
    }

    /// Whether the writer must wait for a reader (backpressure).
    pub fn is_congested(&self) -> bool {
        self.is_pass_through && self.bytes > MAX_UNREAD_BYTES
    }

    pub fn head(&self) -> Option<&ResponseHead> {
        self.head.as_ref()
    }

    /// Number of bytes that are held for attempts that may join. An answer that cannot be replayed
    /// holds only what its readers have not read, like a call without retries.
    pub fn replayable_bytes(&self) -> usize {
        if self.is_replayable() { self.bytes } else { 0 }
    }

    /// Time when the answer ended.
    pub fn ended_at(&self) -> Option<UnixMs> {
        self.ended_at
    }

    /// Whether a new reader can read the answer from its start.
    pub fn is_replayable(&self) -> bool {
        !self.is_pass_through
    }

    /// Returns the body so far, if the answer can be replayed.
    pub fn body(&self) -> Option<Bytes> {
        if !self.is_replayable() {
            return None;
        }
        let mut body = BytesMut::with_capacity(self.bytes);
        self.chunks.iter().for_each(|chunk| body.extend_from_slice(chunk));
        Some(body.freeze())
    }

    /// Whether all callers have gone without the answer: they have disconnected, or waited as long
    /// as `client_timeout`. Only then can the next caller with the same content be one of them.
    pub fn is_abandoned(&self, client_timeout: Option<Millis>, now: UnixMs) -> bool {
        let is_deserted = self.readers.is_empty() && !self.was_read;
        let waited_until = self.ended_at.unwrap_or(now);
        is_deserted || client_timeout.is_some_and(|timeout| self.joined_at + timeout <= waited_until)
    }

    fn trim(&mut self) {
        if !self.is_pass_through {
            return;
        }
        let needed = self.readers.values().copied().min().unwrap_or(usize::MAX);
        while self.dropped < needed
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.dropped += 1;
            self.bytes -= chunk.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixMs = UnixMs::from_ms(1_000);

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<u8>),
        AddReader,
        Read(usize),
        RemoveReader(usize),
        RunOutOfRoom,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Step::Push),
            2 => Just(Step::AddReader),
            6 => any::<usize>().prop_map(Step::Read),
            1 => any::<usize>().prop_map(Step::RemoveReader),
            1 => Just(Step::RunOutOfRoom),
        ]
    }

    proptest! {
        /// However chunks arrive and readers join, read and leave: each reader reads the answer
        /// from its start and nothing else, and readers that stay read all of it.
        #[test]
        fn every_reader_reads_the_same_answer(steps in prop::collection::vec(step(), 0..60)) {
            let mut buffer = ResponseBuffer::default();
            let (mut answer, mut has_room) = (Vec::new(), true);
            let mut readers: Vec<(u64, Vec<u8>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(chunk) => {
                        answer.extend_from_slice(&chunk);
                        buffer.push(chunk.into(), has_room);
                    }
                    Step::AddReader => readers.extend(buffer.add_reader(START).map(|reader| (reader, Vec::new()))),
                    Step::Read(n) if !readers.is_empty() => {
                        let index = n % readers.len();
                        let (reader, read) = &mut readers[index];
                        let is_ready = buffer.is_ready(*reader);
                        let chunk = buffer.read(*reader);
                        prop_assert_eq!(chunk.is_some(), is_ready);
                        read.extend_from_slice(&chunk.unwrap_or_default());
                    }
                    Step::RemoveReader(n) if !readers.is_empty() => {
                        let (reader, read) = readers.remove(n % readers.len());
                        prop_assert!(answer.starts_with(&read));
                        buffer.remove_reader(reader);
                    }
                    Step::RunOutOfRoom => has_room = false,
                    Step::Read(_) | Step::RemoveReader(_) => {}
                }
            }
            buffer.end(START);
            prop_assert!(buffer.body().is_none_or(|body| body == answer));
            for (reader, mut read) in readers {
                while let Some(chunk) = buffer.read(reader) {
                    read.extend_from_slice(&chunk);
                }
                prop_assert_eq!(&read, &answer);
                buffer.remove_reader(reader);
            }
            prop_assert!(buffer.body().is_some() || buffer.bytes == 0, "bytes without a reader are dropped");
        }
    }

    #[test]
    fn a_large_answer_cannot_be_replayed_and_waits_for_its_reader() {
        let mut buffer = ResponseBuffer::default();
        let reader = buffer.add_reader(START).expect("it is empty");
        buffer.push(Bytes::from(vec![0; MAX_ANSWER_BYTES]), true);
        assert!(buffer.body().is_some() && !buffer.is_congested());
        buffer.push(Bytes::from_static(b"more"), true);
        assert!(buffer.add_reader(START).is_none() && buffer.body().is_none());
        assert!(buffer.is_congested());
        assert_eq!(buffer.read(reader).map(|chunk| chunk.len()), Some(MAX_ANSWER_BYTES));
        assert!(!buffer.is_congested() && buffer.bytes == 4);
        buffer.remove_reader(reader);
        buffer.push(Bytes::from(vec![0; MAX_ANSWER_BYTES]), true);
        assert_eq!(buffer.bytes, 0, "it has no reader");
    }

    #[test]
    fn a_call_is_abandoned_when_its_caller_has_disconnected_or_timed_out() {
        let timeout = Millis::from_ms(500);
        let mut buffer = ResponseBuffer::default();
        let reader = buffer.add_reader(START).expect("it is empty");
        assert!(!buffer.is_abandoned(Some(timeout), START + Millis::from_ms(499)));
        assert!(buffer.is_abandoned(Some(timeout), START + timeout));
        assert!(!buffer.is_abandoned(None, UnixMs::MAX));
        buffer.remove_reader(reader);
        assert!(buffer.is_abandoned(None, START + Millis::from_ms(1)));
    }

    #[test]
    fn a_call_whose_retry_waits_or_has_the_answer_is_not_abandoned() {
        let timeout = Millis::from_ms(500);
        let mut buffer = ResponseBuffer::default();
        let first = buffer.add_reader(START).expect("it is empty");
        buffer.remove_reader(first);
        let retried_at = START + Millis::from_s(1);
        let retry = buffer.add_reader(retried_at).expect("it can be replayed");
        assert!(!buffer.is_abandoned(Some(timeout), retried_at), "the retry waits");
        buffer.end(retried_at + Millis::from_ms(100));
        assert_eq!(buffer.read(retry), None);
        buffer.remove_reader(retry);
        assert!(!buffer.is_abandoned(Some(timeout), retried_at + Millis::from_s(7)), "the retry has the answer");
    }
}
