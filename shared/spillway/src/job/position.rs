//! How far a reader has come in an answer that may be told again from its start.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// What was passed on so far. Another attempt tells the answer from its start: what is the same is skipped, and where it
/// differs nothing more can be passed on.
#[derive(Debug, Clone, Default)]
pub struct Position {
    passed: u64,
    digest: Sha256,
    again: Option<Again>,
}

/// How much of what was passed on has been told again.
#[derive(Debug, Clone, Default)]
struct Again {
    read: u64,
    digest: Sha256,
}

/// The answer is told in other words than those that were passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differs;

impl Position {
    /// The answer is told from its start.
    pub fn restart(&mut self) {
        self.again = (self.passed > 0).then(Again::default);
    }

    /// What of the next `bytes` is new, and can be passed on.
    ///
    /// # Errors
    /// They do not lead to what was passed on.
    pub fn read(&mut self, mut bytes: Bytes) -> Result<Bytes, Differs> {
        if let Some(again) = &mut self.again {
            let left = self.passed - again.read;
            let known = bytes.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()));
            again.read += known.len() as u64;
            again.digest.update(&known);
            if again.read < self.passed {
                return Ok(bytes);
            }
            if again.digest.clone().finalize() != self.digest.clone().finalize() {
                return Err(Differs);
            }
            self.again = None;
        }
        self.passed += bytes.len() as u64;
        self.digest.update(&bytes);
        Ok(bytes)
    }

    /// The answer has been told to its end.
    ///
    /// # Errors
    /// It ended before what was passed on did.
    pub fn end(&self) -> Result<(), Differs> {
        if self.again.is_none() { Ok(()) } else { Err(Differs) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(answer: &[u8], cuts: &[usize]) -> Vec<Bytes> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (answer.len() + 1)).chain([0, answer.len()]).collect();
        at.sort_unstable();
        at.windows(2).map(|pair| Bytes::copy_from_slice(&answer[pair[0]..pair[1]])).collect()
    }

    proptest! {
        /// However often and wherever it begins again: what is passed on is the answer, once.
        #[test]
        fn an_answer_that_is_told_again_is_passed_on_once(
            answer: Vec<u8>,
            tellings in prop::collection::vec((prop::collection::vec(any::<usize>(), 0..5), any::<usize>()), 0..4),
        ) {
            let (mut position, mut passed) = (Position::default(), Vec::new());
            let whole = (vec![1, 2, 3], usize::MAX);
            for (cuts, pieces_told) in tellings.iter().chain([&whole]) {
                position.restart();
                let told = pieces(&answer, cuts);
                for piece in told.iter().take((*pieces_told).min(told.len())) {
                    passed.extend_from_slice(&position.read(piece.clone()).expect("the same answer"));
                }
                prop_assert!(answer.starts_with(&passed));
            }
            prop_assert_eq!(position.end(), Ok(()));
            prop_assert_eq!(passed, answer);
        }

        /// Of an answer that differs before the reader's place, nothing is passed on.
        #[test]
        fn answers_are_never_mixed(
            start in prop::collection::vec(any::<u8>(), 1..50),
            at: prop::sample::Index,
            rest: Vec<u8>,
            cuts: Vec<usize>,
        ) {
            let mut other = start.clone();
            other[at.index(start.len())] ^= 1;
            other.extend_from_slice(&rest);
            let mut position = Position::default();
            position.read(Bytes::from(start)).expect("the first telling");
            position.restart();
            let outcome: Result<Vec<Bytes>, Differs> =
                pieces(&other, &cuts).into_iter().map(|piece| position.read(piece)).collect();
            prop_assert_eq!(outcome, Err(Differs));
        }
    }

    #[test]
    fn an_answer_that_is_told_shorter_differs() {
        let mut position = Position::default();
        position.read(Bytes::from_static(b"abc")).expect("the first telling");
        position.restart();
        assert_eq!(position.read(Bytes::from_static(b"ab")), Ok(Bytes::new()));
        assert_eq!(position.end(), Err(Differs));
    }
}
