//! Bound on the reads of keys and callers that do not exist.
//!
//! Anyone can make up keys. Each would cost a read, so a process reads only so many that turn out
//! not to exist. Keys and callers that the process knows are not affected, and one that it does not
//! know yet is read at the latest when the next read is allowed.

use crate::units::{Millis, UnixMs};

/// Maximum number of unknown keys that are read in one burst.
pub(super) const MAX_BURST: u64 = 100;

/// Time after which one more is read.
const READ_EVERY: Millis = Millis::from_ms(50);

/// A token bucket, as the time when it will be full again (generic cell rate algorithm).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UnknownReads {
    full_at: UnixMs,
}

impl UnknownReads {
    /// Returns the time until the next unknown key is read; `None` if it is read now.
    pub(super) fn wait(self, now: UnixMs) -> Option<Millis> {
        let allowed_at = self.full_at - READ_EVERY * (MAX_BURST - 1);
        (now < allowed_at).then(|| allowed_at - now)
    }

    /// Counts a read that found nothing.
    pub(super) fn count(&mut self, now: UnixMs) {
        self.full_at = self.full_at.max(now) + READ_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_second_has_more_reads_than_the_burst_and_the_rate_allow(
            pauses_ms in proptest::collection::vec(prop_oneof![4 => 0_u64..3, 1 => 0_u64..400], 1..600),
        ) {
            let mut reads = UnknownReads::default();
            let mut now = UnixMs::from_ms(1_000_000);
            let mut read_at = Vec::new();
            for pause_ms in pauses_ms {
                now += Millis::from_ms(pause_ms);
                if reads.wait(now).is_none() {
                    reads.count(now);
                    read_at.push(now);
                }
            }
            for (index, first) in read_at.iter().enumerate() {
                let in_second = read_at[index..].iter().filter(|at| **at - *first < Millis::from_s(1)).count();
                prop_assert!(in_second as u64 <= MAX_BURST + 1_000 / READ_EVERY.as_ms());
            }
        }

        #[test]
        fn after_the_wait_one_more_is_read(counted in 0_u64..500, later_ms in 0_u64..10_000) {
            let mut reads = UnknownReads::default();
            let start = UnixMs::from_ms(1_000_000);
            (0..counted).for_each(|_| reads.count(start));
            let now = start + Millis::from_ms(later_ms);
            let wait = reads.wait(now).unwrap_or_default();
            prop_assert_eq!(reads.wait(now + wait), None);
        }
    }
}
