//! How far a reader has come in an answer that may start again.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The part of an answer that was passed on to a reader.
///
/// Another attempt sends the answer from its start. The part that was passed on is skipped. If the
/// new answer differs there, nothing more can be passed on.
#[derive(Debug, Clone, Default)]
pub struct Position {
    passed: u64,
    digest: Sha256,
    repetition: Option<Repetition>,
}

/// How much of the part that was passed on has been read again.
#[derive(Debug, Clone, Default)]
struct Repetition {
    read: u64,
    digest: Sha256,
}

/// The new answer differs from the part that was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputDiffers;

impl Position {
    /// Starts again: the next bytes are the first bytes of the answer.
    pub fn restart(&mut self) {
        self.repetition = (self.passed > 0).then(Repetition::default);
    }

    /// Returns the bytes that are new and can be passed on.
    ///
    /// # Errors
    /// Returns an error if the answer differs from the part that was passed on.
    pub fn read(&mut self, mut bytes: Bytes) -> Result<Bytes, OutputDiffers> {
        if let Some(repetition) = &mut self.repetition {
            let left = self.passed - repetition.read;
            let known = bytes.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()));
            repetition.read += known.len() as u64;
            repetition.digest.update(&known);
            if repetition.read < self.passed {
                return Ok(bytes);
            }
            if repetition.digest.clone().finalize() != self.digest.clone().finalize() {
                return Err(OutputDiffers);
            }
            self.repetition = None;
        }
        self.passed += bytes.len() as u64;
        self.digest.update(&bytes);
        Ok(bytes)
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// Returns an error if the answer is shorter than the part that was passed on.
    pub fn end(&self) -> Result<(), OutputDiffers> {
        if self.repetition.is_none() { Ok(()) } else { Err(OutputDiffers) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(answer: &[u8], cuts: &[usize]) -> Vec<Bytes> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (answer.len() + 1)).chain([0, answer.len()]).collect();
        at.sort_unstable();
        at.windows(2).map(|pair| Bytes::copy_from_slice(&answer[pair[0]..pair[1]])).collect()
    }

    proptest! {
        /// However often and wherever an attempt starts again, each byte is passed on once.
        #[test]
        fn an_answer_that_starts_again_is_passed_on_once(
            answer: Vec<u8>,
            attempts in prop::collection::vec((prop::collection::vec(any::<usize>(), 0..5), any::<usize>()), 0..4),
        ) {
            let (mut position, mut passed) = (Position::default(), Vec::new());
            let complete = (vec![1, 2, 3], usize::MAX);
            for (cuts, chunks_sent) in attempts.iter().chain([&complete]) {
                position.restart();
                let chunks = chunks(&answer, cuts);
                for chunk in chunks.iter().take((*chunks_sent).min(chunks.len())) {
                    passed.extend_from_slice(&position.read(chunk.clone()).expect("the same answer"));
                }
                prop_assert!(answer.starts_with(&passed));
            }
            prop_assert_eq!(position.end(), Ok(()));
            prop_assert_eq!(passed, answer);
        }

        /// If an answer differs before the reader's position, none of it is passed on.
        #[test]
        fn answers_are_never_mixed(
            start in prop::collection::vec(any::<u8>(), 1..50),
            at: prop::sample::Index,
            rest: Vec<u8>,
            cuts: Vec<usize>,
        ) {
            let mut second = start.clone();
            second[at.index(start.len())] ^= 1;
            second.extend_from_slice(&rest);
            let mut position = Position::default();
            position.read(Bytes::from(start)).expect("the first attempt");
            position.restart();
            let outcome: Result<Vec<Bytes>, OutputDiffers> =
                chunks(&second, &cuts).into_iter().map(|chunk| position.read(chunk)).collect();
            prop_assert_eq!(outcome, Err(OutputDiffers));
        }
    }

    #[test]
    fn a_shorter_answer_differs() {
        let mut position = Position::default();
        position.read(Bytes::from_static(b"abc")).expect("the first attempt");
        position.restart();
        assert_eq!(position.read(Bytes::from_static(b"ab")), Ok(Bytes::new()));
        assert_eq!(position.end(), Err(OutputDiffers));
    }
}
