//! Prompt caching: the parts of an input that are read from the cache and written to it.
//!
//! The cache stores the prompt up to each cache point, per model, for the time to live of the
//! point. Each use renews it. As on Bedrock, a cache point before [`MIN_CACHED_TOKENS`] tokens is
//! ignored.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

/// A part of a prompt, in the order in which the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PromptPart {
    Content { tokens: u64, fingerprint: u64 },
    CachePoint { ttl: CacheTtl },
}

/// Time to live of a cache point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheTtl {
    FiveMinutes,
    OneHour,
}

impl CacheTtl {
    /// Parses a `ttl` member; five minutes if absent.
    pub fn from_name(name: Option<&str>) -> Self {
        if name == Some("1h") { Self::OneHour } else { Self::FiveMinutes }
    }

    /// Returns the name on the wire.
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

/// Input tokens by cache use; the three counts are disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InputUsage {
    /// Tokens that are neither read from the cache nor written to it.
    pub input_tokens: u64,
    /// Tokens read from the cache.
    pub cache_read_tokens: u64,
    /// Tokens written to the cache.
    pub cache_write_tokens: u64,
    /// Cache writes by time to live.
    pub writes: Vec<(CacheTtl, u64)>,
    checkpoints: Vec<Checkpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Checkpoint {
    fingerprint: u64,
    tokens: u64,
    ttl: CacheTtl,
}

/// Minimum number of tokens before a cache point.
pub(super) const MIN_CACHED_TOKENS: u64 = 1_024;
const MAX_ENTRIES: usize = 10_000;

/// Fingerprints of the cached prompts with their expiry.
#[derive(Debug, Default)]
pub(super) struct PromptCache {
    expires_at_ms: HashMap<(String, u64), u64>,
}

impl PromptCache {
    /// Returns the cache use of a prompt without a change of the cache.
    pub fn look_up(&self, model_id: &str, parts: &[PromptPart], now_ms: u64) -> InputUsage {
        let (total, checkpoints) = checkpoints(parts);
        let lives = |point: &&Checkpoint| {
            self.expires_at_ms.get(&(model_id.to_owned(), point.fingerprint)).is_some_and(|at_ms| *at_ms > now_ms)
        };
        let read = checkpoints.iter().rev().find(lives).map_or(0, |point| point.tokens);
        let mut writes = Vec::new();
        let mut written_to = read;
        for point in checkpoints.iter().filter(|point| point.tokens > read) {
            writes.push((point.ttl, point.tokens - written_to));
            written_to = point.tokens;
        }
        InputUsage {
            input_tokens: total - written_to,
            cache_read_tokens: read,
            cache_write_tokens: written_to - read,
            writes,
            checkpoints,
        }
    }

    /// Stores the writes of an admitted prompt and renews its reads.
    pub fn remember(&mut self, model_id: &str, input: &InputUsage, now_ms: u64) {
        if self.expires_at_ms.len() > MAX_ENTRIES {
            self.expires_at_ms.retain(|_, at_ms| *at_ms > now_ms);
        }
        if self.expires_at_ms.len() > MAX_ENTRIES {
            self.expires_at_ms.clear();
        }
        for point in &input.checkpoints {
            let key = (model_id.to_owned(), point.fingerprint);
            self.expires_at_ms.insert(key, now_ms.saturating_add(point.ttl.ms()));
        }
    }
}

fn checkpoints(parts: &[PromptPart]) -> (u64, Vec<Checkpoint>) {
    let mut hasher = DefaultHasher::new();
    let mut total = 0;
    let mut found: Vec<Checkpoint> = Vec::new();
    for part in parts {
        match part {
            PromptPart::Content { tokens, fingerprint } => {
                total += tokens;
                fingerprint.hash(&mut hasher);
            }
            PromptPart::CachePoint { ttl } => {
                let is_repeated = found.last().is_some_and(|point| point.tokens == total);
                if total >= MIN_CACHED_TOKENS && !is_repeated {
                    found.push(Checkpoint { fingerprint: hasher.finish(), tokens: total, ttl: *ttl });
                }
            }
        }
    }
    (total, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(tokens: u64, fingerprint: u64) -> PromptPart {
        PromptPart::Content { tokens, fingerprint }
    }

    const POINT: PromptPart = PromptPart::CachePoint { ttl: CacheTtl::FiveMinutes };

    fn counts(input: &InputUsage) -> (u64, u64, u64) {
        (input.input_tokens, input.cache_read_tokens, input.cache_write_tokens)
    }

    #[test]
    fn a_prefix_is_written_once_and_then_read_until_it_expires() {
        let mut cache = PromptCache::default();
        let first = [content(2_000, 1), POINT, content(10, 2)];
        let input = cache.look_up("m", &first, 0);
        assert_eq!(counts(&input), (10, 0, 2_000));
        cache.remember("m", &input, 0);

        let longer = [content(2_000, 1), POINT, content(500, 3), POINT, content(7, 4)];
        let input = cache.look_up("m", &longer, 299_999);
        assert_eq!(counts(&input), (7, 2_000, 500));
        assert_eq!(input.writes, [(CacheTtl::FiveMinutes, 500)]);
        assert_eq!(counts(&cache.look_up("m", &longer, 300_000)), (7, 0, 2_500));
        assert_eq!(counts(&cache.look_up("other", &first, 0)), (10, 0, 2_000));
    }

    #[test]
    fn a_short_prefix_is_not_cached() {
        let parts = [content(MIN_CACHED_TOKENS - 1, 1), POINT, content(1, 2)];
        assert_eq!(counts(&PromptCache::default().look_up("m", &parts, 0)), (MIN_CACHED_TOKENS, 0, 0));
    }
}
