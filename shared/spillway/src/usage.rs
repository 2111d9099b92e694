//! Token counts, read from every reply of Bedrock that has them.

use serde::Deserialize;
use serde_json::Value;

/// The token usage of a call, the same for every API. `input_tokens` excludes cached tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens that are charged in full.
    pub input_tokens: u64,
    /// Output tokens, including reasoning.
    pub output_tokens: u64,
    /// Input tokens read from the prompt cache.
    pub cache_read_input_tokens: u64,
    /// Input tokens written to the prompt cache.
    pub cache_write_input_tokens: u64,
    /// The part of `cache_write_input_tokens` that is kept for an hour instead of five minutes.
    pub cache_write_1h_input_tokens: u64,
    /// The part of `output_tokens` that is reasoning, if the model reports it.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// All input tokens, cached or not.
    pub fn all_input_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.cache_read_input_tokens).saturating_add(self.cache_write_input_tokens)
    }

    /// The sum, for two calls that make one answer.
    pub fn plus(self, usage: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(usage.input_tokens),
            output_tokens: self.output_tokens.saturating_add(usage.output_tokens),
            cache_read_input_tokens: self.cache_read_input_tokens.saturating_add(usage.cache_read_input_tokens),
            cache_write_input_tokens: self.cache_write_input_tokens.saturating_add(usage.cache_write_input_tokens),
            cache_write_1h_input_tokens: self
                .cache_write_1h_input_tokens
                .saturating_add(usage.cache_write_1h_input_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(usage.reasoning_tokens),
        }
    }

    /// Reads the `usage` object of a Converse reply or metadata event; absent counts are 0.
    pub fn from_converse(usage: &Value) -> Self {
        let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        let details = usage.get("cacheDetails").and_then(Value::as_array).into_iter().flatten();
        let one_hour = details.filter(|detail| detail.get("ttl").and_then(Value::as_str) == Some("1h"));
        let one_hour = one_hour.filter_map(|detail| detail.get("inputTokens").and_then(Value::as_u64));
        Self {
            input_tokens: count("inputTokens"),
            output_tokens: count("outputTokens"),
            cache_read_input_tokens: count("cacheReadInputTokens"),
            cache_write_input_tokens: count("cacheWriteInputTokens"),
            cache_write_1h_input_tokens: one_hour.sum::<u64>().min(count("cacheWriteInputTokens")),
            reasoning_tokens: 0,
        }
    }

    /// Replaces the counts that `reported` has, as in a stream, where every report is the sum so
    /// far.
    pub fn update(&mut self, reported: &Reported) {
        let take = |count: &mut u64, reported: Option<u64>| *count = reported.unwrap_or(*count);
        take(&mut self.input_tokens, reported.input_tokens);
        take(&mut self.output_tokens, reported.output_tokens);
        take(&mut self.cache_read_input_tokens, reported.cache_read_input_tokens);
        take(&mut self.cache_write_input_tokens, reported.cache_creation_input_tokens);
        take(&mut self.cache_write_1h_input_tokens, reported.cache_creation.ephemeral_1h_input_tokens);
        take(&mut self.reasoning_tokens, reported.output_tokens_details.thinking_tokens);
    }
}

/// The `usage` of Anthropic's Messages API, in a reply or in the events of a stream, or
/// InvokeModel's own metrics (`amazon-bedrock-invocationMetrics`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reported {
    #[serde(alias = "inputTokenCount")]
    input_tokens: Option<u64>,
    #[serde(alias = "outputTokenCount")]
    output_tokens: Option<u64>,
    #[serde(alias = "cacheReadInputTokenCount")]
    cache_read_input_tokens: Option<u64>,
    #[serde(alias = "cacheWriteInputTokenCount")]
    cache_creation_input_tokens: Option<u64>,
    cache_creation: CacheCreation,
    output_tokens_details: OutputDetails,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}

impl Reported {
    /// Reads a report; `None` if it has no known counts.
    pub fn read(usage: Value) -> Option<Self> {
        let reported = Self::deserialize(usage).ok()?;
        (reported.input_tokens.is_some() || reported.output_tokens.is_some()).then_some(reported)
    }

    /// Reads the counts in InvokeModel's headers, with `header`; `None` if the headers have none.
    pub fn from_headers<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Option<Self> {
        let count = |name: &str| header(name).and_then(|value| value.parse().ok());
        let reported = Self {
            input_tokens: count("x-amzn-bedrock-input-token-count"),
            output_tokens: count("x-amzn-bedrock-output-token-count"),
            cache_read_input_tokens: count("x-amzn-bedrock-cache-read-input-token-count"),
            cache_creation_input_tokens: count("x-amzn-bedrock-cache-write-input-token-count"),
            ..Self::default()
        };
        (reported.input_tokens.is_some() || reported.output_tokens.is_some()).then_some(reported)
    }
}
