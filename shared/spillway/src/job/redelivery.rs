//! When a message that may be lost is sent again.

use serde::{Deserialize, Serialize};

use crate::units::{Millis, UnixMs};

/// How long after a message is due the sweep sends it again.
pub const RESEND_AFTER: Millis = Millis::from_s(120);

/// The delay doubles this often at most: from 2 minutes to 64.
const MAX_DOUBLINGS: u32 = 5;

/// When the message of a job or a batch is due, and how often the sweep has sent it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redelivery {
    /// Time by which the message should have been handled.
    #[serde(rename = "due_ms")]
    pub due_at: UnixMs,
    /// Number of times that the sweep has sent the message since it was last handled.
    pub resends: u32,
}

impl Redelivery {
    /// A message that is due at `due_at` and has not been sent again.
    pub fn new(due_at: UnixMs) -> Self {
        Self { due_at, resends: 0 }
    }

    /// The same message, due at another time.
    pub fn moved_to(self, due_at: UnixMs) -> Self {
        Self { due_at, ..self }
    }

    /// Whether the message may be lost.
    pub fn is_overdue(self, now: UnixMs) -> bool {
        now >= self.due_at + RESEND_AFTER
    }

    /// The message after the sweep sent it again. The time until the next one doubles, because a
    /// message in a long queue is as late as a lost one.
    pub fn resent(self, now: UnixMs) -> Self {
        let resends = self.resends.saturating_add(1);
        let delay = RESEND_AFTER * (1 << resends.min(MAX_DOUBLINGS));
        Self { due_at: now + (delay - RESEND_AFTER), resends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_message_is_sent_again_at_doubling_intervals() {
        let mut now = UnixMs::from_ms(1_800_000_000_000);
        let mut redelivery = Redelivery::new(now);
        for minutes in [2, 4, 8, 16, 32, 64, 64] {
            let delay = Millis::from_s(minutes * 60);
            assert!(!redelivery.is_overdue(now + delay - Millis::from_ms(1)), "{minutes}");
            assert!(redelivery.is_overdue(now + delay), "{minutes}");
            now += delay;
            redelivery = redelivery.resent(now);
        }
    }
}
