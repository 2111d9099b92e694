//! Cost of tokens, in money and in quota.

use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// Prices in USD per million tokens, which is the same number as micro-USD per token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Input tokens.
    #[serde(default)]
    pub input: f64,
    /// Output tokens.
    #[serde(default)]
    pub output: f64,
    /// Input tokens read from the prompt cache.
    #[serde(default)]
    pub cache_read: f64,
    /// Input tokens written to the prompt cache for five minutes.
    #[serde(default)]
    pub cache_write: f64,
    /// Input tokens written to the prompt cache for an hour; 1.6 times `cache_write` if absent.
    /// That follows Anthropic's prices: twice the input price for an hour, 1.25 times for five
    /// minutes (Anthropic, "Prompt caching").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<f64>,
}

/// Ratio of the price of an hour in the cache to the price of five minutes.
const HOUR_TO_FIVE_MINUTES: f64 = 1.6;

impl Prices {
    /// Returns the cost per token of a typical request, for comparing pools: three input tokens for
    /// each output token.
    pub fn typical(&self) -> f64 {
        (3.0 * self.input + self.output) / 4.0
    }

    /// Returns the cost of `usage` in micro-USD, rounded up.
    pub fn cost_microusd(&self, usage: &Usage) -> u64 {
        let hour_tokens = usage.cache_write_1h_input_tokens.min(usage.cache_write_input_tokens);
        let cost = usage.input_tokens as f64 * self.input
            + usage.output_tokens as f64 * self.output
            + usage.cache_read_input_tokens as f64 * self.cache_read
            + (usage.cache_write_input_tokens - hour_tokens) as f64 * self.cache_write
            + hour_tokens as f64 * self.cache_write_1h.unwrap_or(self.cache_write * HOUR_TO_FIVE_MINUTES);
        // Prices such as 0.1 are not exact in binary, so a cost slightly above a whole number is
        // rounded down to it.
        (cost - 1e-6).ceil().max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_in_the_cache_has_its_own_price() {
        let usage = Usage { cache_write_input_tokens: 1_000, cache_write_1h_input_tokens: 400, ..Usage::default() };
        let prices = Prices { cache_write: 3.75, ..Prices::default() };
        assert_eq!(prices.cost_microusd(&usage), 2_250 + 2_400);
        assert_eq!(Prices { cache_write_1h: Some(10.0), ..prices }.cost_microusd(&usage), 2_250 + 4_000);
    }

    #[test]
    fn a_cost_is_rounded_up_once() {
        let prices = Prices { input: 0.1, output: 0.5, ..Prices::default() };
        let cost = |input_tokens, output_tokens| {
            prices.cost_microusd(&Usage { input_tokens, output_tokens, ..Usage::default() })
        };
        assert_eq!(cost(10, 0), 1);
        assert_eq!(cost(30, 0), 3);
        assert_eq!(cost(11, 0), 2);
        assert_eq!(cost(0, 0), 0);
        assert_eq!(cost(1_000_000, 1_000_000), 600_000);
    }
}
