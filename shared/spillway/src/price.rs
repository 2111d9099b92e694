//! What tokens cost: in money, and in a pool's quota.

use serde::{Deserialize, Serialize};

use crate::chat::Usage;

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
    /// Input tokens written to the prompt cache.
    #[serde(default)]
    pub cache_write: f64,
}

impl Prices {
    /// The cost of `usage` in micro-USD, rounded up.
    pub fn cost_microusd(&self, usage: &Usage) -> u64 {
        let cost = usage.input_tokens as f64 * self.input
            + usage.output_tokens as f64 * self.output
            + usage.cache_read_input_tokens as f64 * self.cache_read
            + usage.cache_write_input_tokens as f64 * self.cache_write;
        // Prices such as 0.1 are not exact in binary: a cost a hair above a whole number is that number.
        (cost - 1e-6).ceil().max(0.0) as u64
    }
}

/// What `usage` takes from a quota in the end: input + cache writes + output × burndown; cache reads are free
/// (Amazon Bedrock User Guide, "How tokens are counted in Amazon Bedrock").
pub fn quota_tokens(usage: &Usage, burndown: u64) -> u64 {
    usage
        .input_tokens
        .saturating_add(usage.cache_write_input_tokens)
        .saturating_add(usage.output_tokens.saturating_mul(burndown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_of_the_quota_guide_holds() {
        let usage = |output_tokens| Usage {
            input_tokens: 1_500,
            output_tokens,
            cache_read_input_tokens: 500,
            cache_write_input_tokens: 0,
        };
        assert_eq!(quota_tokens(&usage(300), 5), 3_000);
        assert_eq!(quota_tokens(&usage(1_000), 5), 6_500);
        assert_eq!(quota_tokens(&usage(4_096), 5), 21_980);
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
