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
    /// Higher prices of requests with a long input; absent if the length does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_context: Option<LongContext>,
}

/// Factors on the prices of a request with a long input. They apply to all of its tokens, not only
/// to the tokens above the threshold (Anthropic, "Pricing", Long context pricing).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongContext {
    /// Input tokens, cached or not, above which the factors apply.
    pub above_input_tokens: u64,
    /// Factor on the prices of input, cache reads and cache writes.
    pub input_factor: f64,
    /// Factor on the price of output.
    pub output_factor: f64,
}

/// The longest time for which a request can write to the prompt cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheWrites {
    /// It writes nothing.
    #[default]
    Nothing,
    /// Five minutes.
    FiveMinutes,
    /// An hour.
    OneHour,
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
        let input = usage.input_tokens as f64 * self.input
            + usage.cache_read_input_tokens as f64 * self.cache_read
            + (usage.cache_write_input_tokens - hour_tokens) as f64 * self.cache_write
            + hour_tokens as f64 * self.cache_write_1h.unwrap_or(self.cache_write * HOUR_TO_FIVE_MINUTES);
        let output = usage.output_tokens as f64 * self.output;
        let cost = match self.long_context {
            Some(long) if usage.all_input_tokens() > long.above_input_tokens => {
                input * long.input_factor + output * long.output_factor
            }
            _ => input + output,
        };
        // Prices such as 0.1 are not exact in binary, so a cost slightly above a whole number is
        // rounded down to it.
        (cost - 1e-6).ceil().max(0.0) as u64
    }

    /// Returns the highest cost of a request with this input and output, in micro-USD: that of the
    /// most expensive way in which its input can be billed. Each input token is plain, read from
    /// the cache, or written to it if `cache_writes` allows that.
    pub fn max_cost_microusd(&self, input_tokens: u64, output_tokens: u64, cache_writes: CacheWrites) -> u64 {
        let none = Usage { output_tokens, ..Usage::default() };
        let plain = Usage { input_tokens, ..none };
        let read = Usage { cache_read_input_tokens: input_tokens, ..none };
        let written = Usage { cache_write_input_tokens: input_tokens, ..none };
        let written_for_an_hour = Usage { cache_write_1h_input_tokens: input_tokens, ..written };
        let possible: &[Usage] = match cache_writes {
            CacheWrites::Nothing => &[plain, read],
            CacheWrites::FiveMinutes => &[plain, read, written],
            CacheWrites::OneHour => &[plain, read, written, written_for_an_hour],
        };
        possible.iter().map(|usage| self.cost_microusd(usage)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_input_makes_all_tokens_of_its_request_more_expensive() {
        let long_context = LongContext { above_input_tokens: 200_000, input_factor: 2.0, output_factor: 1.5 };
        let prices = Prices { input: 3.0, output: 15.0, long_context: Some(long_context), ..Prices::default() };
        let cost = |input_tokens, cache_read_input_tokens| {
            prices.cost_microusd(&Usage {
                input_tokens,
                cache_read_input_tokens,
                output_tokens: 100,
                ..Usage::default()
            })
        };
        assert_eq!(cost(200_000, 0), 600_000 + 1_500);
        assert_eq!(cost(200_001, 0), 1_200_006 + 2_250);
        assert_eq!(cost(100_000, 100_001), 600_000 + 2_250, "cached tokens count towards the length");
    }

    #[test]
    fn the_highest_cost_depends_on_what_the_body_can_write_to_the_cache() {
        let prices = Prices { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75, ..Prices::default() };
        let cost = |cache_writes| prices.max_cost_microusd(1_000, 10, cache_writes);
        let costs = [CacheWrites::Nothing, CacheWrites::FiveMinutes, CacheWrites::OneHour].map(cost);
        assert_eq!(costs, [3_150, 3_900, 6_150]);
        let unpriced = Prices { cache_write: 0.0, ..prices };
        assert_eq!(unpriced.max_cost_microusd(1_000, 10, CacheWrites::OneHour), 3_150, "plain input is dearer");
    }

    fn prices() -> impl Strategy<Value = Prices> {
        let price = || (0u32..2_000).prop_map(|price| f64::from(price) / 100.0);
        let long_context = (0u64..3_000, 1.0..6.0, 1.0..6.0).prop_map(|(above_input_tokens, input, output)| {
            LongContext { above_input_tokens, input_factor: input, output_factor: output }
        });
        let cached = (price(), price(), proptest::option::of(price()));
        (price(), price(), cached, proptest::option::of(long_context)).prop_map(
            |(input, output, (cache_read, cache_write, cache_write_1h), long_context)| Prices {
                input,
                output,
                cache_read,
                cache_write,
                cache_write_1h,
                long_context,
            },
        )
    }

    proptest! {
        #[test]
        fn no_usage_within_the_tokens_of_a_request_costs_more_than_its_highest_cost(
            prices in prices(),
            plain in 0u64..2_000, read in 0u64..2_000, written in 0u64..2_000, hour in 0u64..2_000,
            output_tokens in 0u64..2_000, unused in 0u64..500,
        ) {
            let usage = Usage {
                input_tokens: plain,
                output_tokens,
                cache_read_input_tokens: read,
                cache_write_input_tokens: written,
                cache_write_1h_input_tokens: hour.min(written),
                ..Usage::default()
            };
            let cache_writes = match (written, hour) {
                (0, _) => CacheWrites::Nothing,
                (_, 0) => CacheWrites::FiveMinutes,
                _ => CacheWrites::OneHour,
            };
            let input_tokens = usage.all_input_tokens() + unused;
            let highest = prices.max_cost_microusd(input_tokens, output_tokens + unused, cache_writes);
            prop_assert!(prices.cost_microusd(&usage) <= highest);
        }
    }

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
