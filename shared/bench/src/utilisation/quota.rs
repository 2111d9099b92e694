//! Shapes of a limit per minute: what a pool may enforce, and the references of the table.

use std::collections::VecDeque;

const MINUTE_MS: u64 = 60_000;

/// A limit of tokens per minute. AWS does not document its shape.
#[derive(Clone)]
pub enum Quota {
    /// No limit.
    Unlimited,
    /// The limit holds in each minute of the clock.
    Minute { limit: u64, minute: u64, used: u64 },
    /// A token bucket that starts full and holds a minute's worth. The level is in units of
    /// 1/60,000, so that the refill per millisecond is an integer.
    Bucket { limit: u64, level: u64, at_ms: u64 },
    /// The limit holds in any 60 seconds.
    Rolling { limit: u64, used: u64, calls: VecDeque<(u64, u64)> },
}

impl Quota {
    /// A limit per minute of the clock.
    pub fn minute(limit: u64) -> Self {
        Self::Minute { limit, minute: 0, used: 0 }
    }

    /// A token bucket.
    pub fn bucket(limit: u64) -> Self {
        Self::Bucket { limit, level: limit * MINUTE_MS, at_ms: 0 }
    }

    /// A limit in any 60 seconds.
    pub fn rolling(limit: u64) -> Self {
        Self::Rolling { limit, used: 0, calls: VecDeque::new() }
    }

    /// Takes `tokens` at `now_ms` if there is room. Times must not go back.
    pub fn takes(&mut self, tokens: u64, now_ms: u64) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Minute { limit, minute, used } => {
                let current = now_ms / MINUTE_MS;
                if current != *minute {
                    (*minute, *used) = (current, 0);
                }
                let fits = *used + tokens <= *limit;
                *used += if fits { tokens } else { 0 };
                fits
            }
            Self::Bucket { limit, level, at_ms } => {
                *level = (*level + (now_ms - *at_ms) * *limit).min(*limit * MINUTE_MS);
                *at_ms = now_ms;
                let fits = tokens * MINUTE_MS <= *level;
                *level -= if fits { tokens * MINUTE_MS } else { 0 };
                fits
            }
            Self::Rolling { limit, used, calls } => {
                while let Some((_, ended)) = calls.pop_front_if(|(at_ms, _)| *at_ms + MINUTE_MS <= now_ms) {
                    *used -= ended;
                }
                let fits = *used + tokens <= *limit;
                if fits {
                    *used += tokens;
                    calls.push_back((now_ms, tokens));
                }
                fits
            }
        }
    }
}
