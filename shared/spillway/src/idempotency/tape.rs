//! One answer as it is recorded and read. Pure: what happens at once, and what is kept.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

/// The most bytes of an answer that are kept for those who come later.
pub const LARGEST_ANSWER: usize = 1024 * 1024;

/// How far the writer may be ahead of the slowest reader of an answer that is not kept, in bytes.
const AHEAD: usize = 64 * 1024;

/// What an answer says before its body.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Whether the body comes in pieces that should be passed on as they come.
    pub is_stream: bool,
}

/// An answer with those who read it. It is kept whole as long as it is small enough; from then on only what a reader
/// still needs is held, and nobody can join.
#[derive(Debug, Default)]
pub struct Tape {
    head: Option<Head>,
    /// What is held of the body.
    chunks: VecDeque<Bytes>,
    /// How many chunks before those are not held any more.
    dropped: usize,
    bytes: usize,
    is_too_large: bool,
    /// Who reads, and which chunk is next for each.
    readers: BTreeMap<u64, usize>,
    next_reader: u64,
    joined_ms: u64,
    was_read: bool,
    ended_ms: Option<u64>,
}

impl Tape {
    /// The answer has begun.
    pub fn begin(&mut self, head: Head) {
        self.head = Some(head);
    }

    /// The next piece of the body. Without `is_room` nothing is kept for those who come later.
    pub fn push(&mut self, chunk: Bytes, is_room: bool) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
        self.is_too_large |= self.bytes > LARGEST_ANSWER || !is_room;
        self.trim();
    }

    /// Nothing more comes.
    pub fn end(&mut self, now_ms: u64) {
        self.ended_ms.get_or_insert(now_ms);
    }

    /// A reader of the whole answer; it must [`leave`](Self::leave). `None` if the start is not held any more.
    pub fn join(&mut self, now_ms: u64) -> Option<u64> {
        if self.is_too_large {
            return None;
        }
        let reader = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(reader, 0);
        self.joined_ms = now_ms;
        Some(reader)
    }

    /// Whether [`read`](Self::read) has something to tell.
    pub fn is_ready(&self, reader: u64) -> bool {
        let next = self.readers.get(&reader).copied().unwrap_or(usize::MAX);
        self.ended_ms.is_some() || next < self.dropped + self.chunks.len()
    }

    /// The next chunk for this reader; `None` at the end.
    pub fn read(&mut self, reader: u64) -> Option<Bytes> {
        let next = self.readers.get_mut(&reader)?;
        let Some(chunk) = self.chunks.get(next.checked_sub(self.dropped)?).cloned() else {
            self.was_read |= self.ended_ms.is_some();
            return None;
        };
        *next += 1;
        self.trim();
        Some(chunk)
    }

    /// The reader needs nothing more.
    pub fn leave(&mut self, reader: u64) {
        self.readers.remove(&reader);
        self.trim();
    }

    /// Whether the writer should wait for a reader: what is not kept may not pile up either.
    pub fn is_far_ahead(&self) -> bool {
        self.is_too_large && self.bytes > AHEAD
    }

    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// How many bytes are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The time of the end, in milliseconds since 1970.
    pub fn ended_ms(&self) -> Option<u64> {
        self.ended_ms
    }

    /// Whether all of it is held, for those who come later.
    pub fn is_kept(&self) -> bool {
        !self.is_too_large
    }

    /// The body so far, if all of it is held.
    pub fn body(&self) -> Option<Bytes> {
        if !self.is_kept() {
            return None;
        }
        let mut body = BytesMut::with_capacity(self.bytes);
        self.chunks.iter().for_each(|chunk| body.extend_from_slice(chunk));
        Some(body.freeze())
    }

    /// Whether those who asked have gone without the answer: their connection is closed, or they waited for `patience_ms`,
    /// which is as long as they do. Only then can somebody who asks the same be one of them.
    pub fn is_abandoned(&self, patience_ms: Option<u64>, now_ms: u64) -> bool {
        let is_deserted = self.readers.is_empty() && !self.was_read;
        let until_ms = self.ended_ms.unwrap_or(now_ms);
        is_deserted || patience_ms.is_some_and(|patience_ms| self.joined_ms.saturating_add(patience_ms) <= until_ms)
    }

    fn trim(&mut self) {
        if !self.is_too_large {
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

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<u8>),
        Join,
        Read(usize),
        Leave(usize),
        RunOut,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Step::Push),
            2 => Just(Step::Join),
            6 => any::<usize>().prop_map(Step::Read),
            1 => any::<usize>().prop_map(Step::Leave),
            1 => Just(Step::RunOut),
        ]
    }

    proptest! {
        /// However pieces arrive and readers come, read and leave: each reads the answer from its start and nothing else,
        /// and those who stay read all of it.
        #[test]
        fn every_reader_reads_the_same_answer(steps in prop::collection::vec(step(), 0..60)) {
            let mut tape = Tape::default();
            let (mut answer, mut is_room) = (Vec::new(), true);
            let mut readers: Vec<(u64, Vec<u8>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(piece) => {
                        answer.extend_from_slice(&piece);
                        tape.push(piece.into(), is_room);
                    }
                    Step::Join => readers.extend(tape.join(0).map(|reader| (reader, Vec::new()))),
                    Step::Read(n) if !readers.is_empty() => {
                        let at = n % readers.len();
                        let (reader, read) = &mut readers[at];
                        let is_ready = tape.is_ready(*reader);
                        let chunk = tape.read(*reader);
                        prop_assert_eq!(chunk.is_some(), is_ready);
                        read.extend_from_slice(&chunk.unwrap_or_default());
                    }
                    Step::Leave(n) if !readers.is_empty() => {
                        let (reader, read) = readers.remove(n % readers.len());
                        prop_assert!(answer.starts_with(&read));
                        tape.leave(reader);
                    }
                    Step::RunOut => is_room = false,
                    Step::Read(_) | Step::Leave(_) => {}
                }
            }
            tape.end(1);
            prop_assert!(tape.body().is_none_or(|body| body == answer));
            for (reader, mut read) in readers {
                while let Some(chunk) = tape.read(reader) {
                    read.extend_from_slice(&chunk);
                }
                prop_assert_eq!(&read, &answer);
                tape.leave(reader);
            }
            prop_assert!(tape.body().is_some() || tape.bytes() == 0, "what nobody can read is not held");
        }
    }

    #[test]
    fn a_large_answer_is_not_kept_and_waits_for_its_reader() {
        let mut tape = Tape::default();
        let reader = tape.join(0).expect("it is empty");
        tape.push(Bytes::from(vec![0; LARGEST_ANSWER]), true);
        assert!(tape.body().is_some() && !tape.is_far_ahead());
        tape.push(Bytes::from_static(b"more"), true);
        assert!(tape.join(0).is_none() && tape.body().is_none());
        assert!(tape.is_far_ahead());
        assert_eq!(tape.read(reader).map(|chunk| chunk.len()), Some(LARGEST_ANSWER));
        assert!(!tape.is_far_ahead() && tape.bytes() == 4);
        tape.leave(reader);
        tape.push(Bytes::from(vec![0; LARGEST_ANSWER]), true);
        assert_eq!(tape.bytes(), 0, "nobody reads it");
    }

    #[test]
    fn a_call_is_abandoned_when_its_reader_has_gone_or_waited_as_long_as_it_does() {
        let mut tape = Tape::default();
        let reader = tape.join(1_000).expect("it is empty");
        assert!(!tape.is_abandoned(Some(500), 1_499));
        assert!(tape.is_abandoned(Some(500), 1_500));
        assert!(!tape.is_abandoned(None, u64::MAX));
        tape.leave(reader);
        assert!(tape.is_abandoned(None, 1_001));
        let second = tape.join(2_000).expect("it is kept");
        assert!(!tape.is_abandoned(Some(500), 2_000), "one repetition takes it");
        tape.end(2_100);
        assert_eq!(tape.read(second), None);
        tape.leave(second);
        assert!(!tape.is_abandoned(Some(500), 9_000), "who has the answer does not ask again");
    }
}
