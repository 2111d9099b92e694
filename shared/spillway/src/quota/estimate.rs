//! Estimate of the input of a request: its tokens, and what it can write to the prompt cache.
//!
//! A real tokenizer needs megabytes of vocabulary, so the text is not tokenized. [`scan`] counts
//! the features of the text in one pass, and [`weights`] gives the cost of each feature in each
//! family of models. [`max_weights`] gives an upper bound, for money. `tests/tokenizers` measures
//! both against the real tokenizers.
//!
//! All members of a body count, unless [`members`] lists them as members that no model reads. So
//! text that stands in an unusual place, or in a member that Bedrock adds tomorrow, is reserved.

mod document;
mod feature;
mod inflate;
mod max_weights;
mod members;
mod office;
mod pdf;
mod scan;
mod tokenizer;
mod weights;
mod words;

use serde_json::{Map, Value, json};

pub use tokenizer::Tokenizer;

use crate::price::CacheWrites;
use feature::{Counts, Feature};

/// Tokens of a request beside its messages. With a message and its block they add up to 12; ctok
/// measured 11 for Claude 4.7, and 7 for earlier models.
const REQUEST_TOKENS: u64 = 4;

/// System message that the format of gpt-oss puts before every conversation (OpenAI, "OpenAI
/// Harmony Response Format"): 61 tokens, and the line that tools add.
const HARMONY_TOKENS: u64 = 80;

/// Tokens of a message or block beside its text.
const BLOCK_TOKENS: u64 = 4;

/// Tokens of a tool that the vendor defines, such as `computer_20250124`: its definition and the
/// longer system prompt (Anthropic, "Pricing", Computer use tool).
const PREDEFINED_TOOL_TOKENS: u64 = 1_234;

/// Input of a request, as far as it is known before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputEstimate {
    /// Input tokens, cached or not.
    pub tokens: u64,
    /// Most input tokens that a text with these characters can have. Ordinary text has about half.
    pub max_tokens: u64,
    /// Longest time for which a cache point of the body keeps its prefix.
    pub cache_writes: CacheWrites,
}

/// Estimates the input of a body in Converse's or the model's native format.
pub fn estimate_input(body: &Map<String, Value>, tokenizer: Tokenizer) -> InputEstimate {
    let mut tally = Tally {
        tokenizer,
        tokens: request_tokens(tokenizer),
        text: [0; Feature::COUNT],
        cache_writes: CacheWrites::Nothing,
    };
    tally.body(body);
    let with_text = |millitokens: u64| tally.tokens.saturating_add(millitokens.div_ceil(1_000));
    InputEstimate {
        tokens: with_text(weights::millitokens(&tally.text, tokenizer)),
        max_tokens: with_text(max_weights::millitokens(&tally.text)),
        cache_writes: tally.cache_writes,
    }
}

struct Tally {
    tokenizer: Tokenizer,
    /// Parts with a known number of tokens.
    tokens: u64,
    /// Features of the text.
    text: Counts,
    cache_writes: CacheWrites,
}

impl Tally {
    fn body(&mut self, body: &Map<String, Value>) {
        for (name, value) in body {
            match (name.as_str(), value) {
                (name, _) if members::is_setting(name) => {}
                ("toolConfig", Value::Object(config)) => {
                    self.tools(config.get("tools").unwrap_or(&Value::Null), config.get("toolChoice"));
                }
                ("tools", tools) => self.tools(tools, body.get("tool_choice")),
                // Members of the model's own format that Converse does not have.
                ("additionalModelRequestFields", Value::Object(fields)) => self.body(fields),
                (name, value) => self.field(name, value),
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.tokens += BLOCK_TOKENS * items.len() as u64;
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(fields) => self.block(value, fields),
            Value::Number(number) => self.text(&number.to_string()),
            Value::Bool(_) | Value::Null => self.tokens += 1,
        }
    }

    fn block(&mut self, block: &Value, fields: &Map<String, Value>) {
        match fields.get("type").and_then(Value::as_str) {
            // A block in Anthropic's format, or a part in OpenAI's.
            Some("image" | "image_url") => {
                self.field("image", block);
                self.cache_point(fields.get("cache_control").unwrap_or(&Value::Null));
            }
            Some("document") => self.document(block),
            Some(kind) if !members::is_plain_block(kind) => self.json(block),
            _ => fields.iter().for_each(|(name, value)| self.field(name, value)),
        }
    }

    fn field(&mut self, name: &str, value: &Value) {
        match name {
            "type" => {}
            "cache_control" | "cachePoint" => self.cache_point(value),
            _ if value.is_null() => self.tokens += 1,
            "image" | "inputImage" => self.tokens += image_tokens(self.tokenizer),
            "images" => self.tokens += image_tokens(self.tokenizer) * value.as_array().map_or(1, Vec::len) as u64,
            "document" => self.document(value),
            "video" | "audio" => self.media(value),
            // Arguments and results of tools: JSON that reaches the model as text.
            "input" | "json" => self.text(&value.to_string()),
            name if members::is_container(name) => self.value(value),
            _ => {
                self.text(name);
                self.json(value);
            }
        }
    }

    fn tools(&mut self, tools: &Value, choice: Option<&Value>) {
        let Value::Array(tools) = tools else { return self.json(tools) };
        if tools.is_empty() {
            return;
        }
        self.tokens += tool_prompt_tokens(self.tokenizer, choice);
        for tool in tools {
            self.tokens += BLOCK_TOKENS;
            if tool.get("type").is_some_and(|kind| kind != "custom" && kind != "function") {
                self.tokens += PREDEFINED_TOOL_TOKENS;
            }
            self.json(tool);
        }
    }

    /// Counts a value that may reach the model as JSON text, cache points in it included.
    fn json(&mut self, value: &Value) {
        self.cache_points_in(value);
        self.text(&value.to_string());
    }

    fn text(&mut self, text: &str) {
        for (total, count) in self.text.iter_mut().zip(scan::features(text)) {
            *total += count;
        }
    }

    fn cache_points_in(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.cache_points_in(item)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    if matches!(name.as_str(), "cache_control" | "cachePoint") {
                        self.cache_point(value);
                    }
                    self.cache_points_in(value);
                }
            }
            _ => {}
        }
    }

    /// Notes a cache point. A time that is not known may be an hour.
    fn cache_point(&mut self, point: &Value) {
        let kept_for = match (point, point.get("ttl").map(Value::as_str)) {
            (Value::Null, _) => CacheWrites::Nothing,
            (_, None | Some(Some("5m"))) => CacheWrites::FiveMinutes,
            _ => CacheWrites::OneHour,
        };
        self.cache_writes = self.cache_writes.max(kept_for);
    }
}

fn request_tokens(tokenizer: Tokenizer) -> u64 {
    match tokenizer {
        Tokenizer::GptOss | Tokenizer::Unknown => REQUEST_TOKENS + HARMONY_TOKENS,
        _ => REQUEST_TOKENS,
    }
}

/// Returns the tokens of an image of the largest size that is not scaled down (Anthropic,
/// "Vision"). For Amazon it is the largest example in "Image understanding" (Amazon Nova User
/// Guide).
fn image_tokens(tokenizer: Tokenizer) -> u64 {
    match tokenizer {
        Tokenizer::Claude47 | Tokenizer::Unknown => 4_784,
        Tokenizer::Amazon => 2_600,
        _ => 1_568,
    }
}

/// Returns the tokens of the system prompt that Claude gets with tools: the longest version of each
/// family. It is longer if the model must call a tool (Anthropic, "Tool use with Claude", Pricing).
fn tool_prompt_tokens(tokenizer: Tokenizer, choice: Option<&Value>) -> u64 {
    let (auto, forced) = match tokenizer {
        Tokenizer::Claude3 => (530, 589),
        Tokenizer::Claude47 | Tokenizer::Unknown => (675, 804),
        _ => (0, 0),
    };
    let is_auto = |choice: &Value| choice.get("auto").is_some() || choice.get("type") == Some(&json!("auto"));
    if choice.is_none_or(is_auto) { auto } else { forced }
}

#[cfg(test)]
mod tests;
