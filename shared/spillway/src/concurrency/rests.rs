//! Rests of pools: times in which this process does not call a pool, because the pool would refuse.
//!
//! Pure: time is an argument.

use std::collections::HashMap;

use crate::units::{Millis, UnixMs};

/// Length of the rest after a call that exceeds the quota of a day. Bedrock does not report when
/// that quota frees, so one call per rest finds out. A refused call costs nothing.
pub const DAILY_QUOTA_REST: Millis = Millis::from_s(300);

/// The pools at rest, by name.
#[derive(Debug, Default)]
pub struct Rests {
    ends: HashMap<String, UnixMs>,
}

impl Rests {
    /// Lets `pool` rest until `until`, or longer if it already does.
    pub fn start(&mut self, pool: &str, until: UnixMs) {
        let end = self.ends.entry(pool.to_owned()).or_default();
        *end = until.max(*end);
    }

    /// Returns when the rest of `pool` ends; `None` if it does not rest.
    pub fn end(&mut self, pool: &str, now: UnixMs) -> Option<UnixMs> {
        let end = *self.ends.get(pool)?;
        if end <= now {
            self.ends.remove(pool);
        }
        (end > now).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMs = UnixMs::from_ms(1_000_000);

    #[test]
    fn a_pool_rests_until_its_time_and_others_do_not() {
        let mut rests = Rests::default();
        assert_eq!(rests.end("m#a", START), None);
        let until = START + DAILY_QUOTA_REST;
        rests.start("m#a", until);
        assert_eq!((rests.end("m#a", START), rests.end("m#b", START)), (Some(until), None));
        assert_eq!(rests.end("m#a", START + (DAILY_QUOTA_REST - Millis::from_ms(1))), Some(until));
        assert_eq!(rests.end("m#a", until), None);
        assert!(rests.ends.is_empty(), "an ended rest takes no memory");
    }

    #[test]
    fn a_shorter_rest_does_not_end_a_longer_one() {
        let mut rests = Rests::default();
        let until = START + DAILY_QUOTA_REST;
        rests.start("m#a", until);
        rests.start("m#a", START + Millis::from_s(1));
        assert_eq!(rests.end("m#a", START), Some(until));
    }
}
