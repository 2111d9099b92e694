//! Prompt caching: which part of an input is read from a cache and which is written to it.
//!
//! A prompt up to a cache point is remembered per model for the point's time to live, renewed by every use. As on
//! Bedrock a point before [`SMALLEST_TOKENS`] tokens is ignored.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

/// A prompt in the order in which the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Content { tokens: u64, fingerprint: u64 },
    CachePoint { lifetime: Lifetime },
}

/// How long a cache point lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    FiveMinutes,
    OneHour,
}

impl Lifetime {
    pub fn of(ttl: Option<&str>) -> Self {
        if ttl == Some("1h") { Self::OneHour } else { Self::FiveMinutes }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::OneHour => "1h",
        }
    }

    fn ms(self) -> u64 {
        match self {
            Self::FiveMinutes => 300_000,
            Self::OneHour => 3_600_000,
        }
    }
}

/// How an input's tokens are accounted; the three counts are disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InputUse {
    pub input_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    /// The writes by time to live.
    pub writes: Vec<(Lifetime, u64)>,
    checkpoints: Vec<Checkpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Checkpoint {
    fingerprint: u64,
    tokens: u64,
    lifetime: Lifetime,
}

/// Inputs shorter than this are not cached.
pub(super) const SMALLEST_TOKENS: u64 = 1_024;
const ENTRIES: usize = 10_000;

/// Every remembered beginning of a prompt, with the moment at which it is forgotten.
#[derive(Debug, Default)]
pub(super) struct PromptCache {
    expires_at_ms: HashMap<(String, u64), u64>,
}

impl PromptCache {
    /// How this prompt would be accounted now; nothing is remembered yet.
    pub fn look_up(&self, model_id: &str, parts: &[Part], now_ms: u64) -> InputUse {
        let (total, checkpoints) = checkpoints(parts);
        let lives = |point: &&Checkpoint| {
            self.expires_at_ms.get(&(model_id.to_owned(), point.fingerprint)).is_some_and(|at_ms| *at_ms > now_ms)
        };
        let read = checkpoints.iter().rev().find(lives).map_or(0, |point| point.tokens);
        let mut writes = Vec::new();
        let mut written_to = read;
        for point in checkpoints.iter().filter(|point| point.tokens > read) {
            writes.push((point.lifetime, point.tokens - written_to));
            written_to = point.tokens;
        }
        InputUse {
            input_tokens: total - written_to,
            cache_read_tokens: read,
            cache_write_tokens: written_to - read,
            writes,
            checkpoints,
        }
    }

    /// Remembers what an admitted prompt wrote and renews what it read.
    pub fn remember(&mut self, model_id: &str, input: &InputUse, now_ms: u64) {
        if self.expires_at_ms.len() > ENTRIES {
            self.expires_at_ms.retain(|_, at_ms| *at_ms > now_ms);
        }
        if self.expires_at_ms.len() > ENTRIES {
            self.expires_at_ms.clear();
        }
        for point in &input.checkpoints {
            let key = (model_id.to_owned(), point.fingerprint);
            self.expires_at_ms.insert(key, now_ms.saturating_add(point.lifetime.ms()));
        }
    }
}

fn checkpoints(parts: &[Part]) -> (u64, Vec<Checkpoint>) {
    let mut hasher = DefaultHasher::new();
    let mut total = 0;
    let mut found: Vec<Checkpoint> = Vec::new();
    for part in parts {
        match part {
            Part::Content { tokens, fingerprint } => {
                total += tokens;
                fingerprint.hash(&mut hasher);
            }
            Part::CachePoint { lifetime } => {
                let repeated = found.last().is_some_and(|point| point.tokens == total);
                if total >= SMALLEST_TOKENS && !repeated {
                    found.push(Checkpoint { fingerprint: hasher.finish(), tokens: total, lifetime: *lifetime });
                }
            }
        }
    }
    (total, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(tokens: u64, fingerprint: u64) -> Part {
        Part::Content { tokens, fingerprint }
    }

    const POINT: Part = Part::CachePoint { lifetime: Lifetime::FiveMinutes };

    fn counts(input: &InputUse) -> (u64, u64, u64) {
        (input.input_tokens, input.cache_read_tokens, input.cache_write_tokens)
    }

    #[test]
    fn a_beginning_is_written_once_then_read_until_it_expires() {
        let mut cache = PromptCache::default();
        let first = [content(2_000, 1), POINT, content(10, 2)];
        let input = cache.look_up("m", &first, 0);
        assert_eq!(counts(&input), (10, 0, 2_000));
        cache.remember("m", &input, 0);

        let longer = [content(2_000, 1), POINT, content(500, 3), POINT, content(7, 4)];
        let input = cache.look_up("m", &longer, 299_999);
        assert_eq!(counts(&input), (7, 2_000, 500));
        assert_eq!(input.writes, [(Lifetime::FiveMinutes, 500)]);
        assert_eq!(counts(&cache.look_up("m", &longer, 300_000)), (7, 0, 2_500));
        assert_eq!(counts(&cache.look_up("other", &first, 0)), (10, 0, 2_000));
    }

    #[test]
    fn a_short_beginning_is_not_cached() {
        let parts = [content(SMALLEST_TOKENS - 1, 1), POINT, content(1, 2)];
        assert_eq!(counts(&PromptCache::default().look_up("m", &parts, 0)), (SMALLEST_TOKENS, 0, 0));
    }
}
