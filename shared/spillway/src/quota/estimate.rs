//! How many input tokens a request will count for, before any model has seen it.
//!
//! A real tokenizer carries megabytes of vocabulary, so the text is not tokenized: [`scan`] counts in one pass what it
//! is made of, and [`weights`] says what each of that costs in each family of models. `tests/tokenizers` measures the
//! error against the real tokenizers.

mod feature;
mod scan;
mod tokenizer;
mod weights;
mod words;

use serde_json::{Map, Value};

pub use tokenizer::Tokenizer;

use feature::{Counts, Feature};

/// What every request costs beside its messages. With a message and its block it makes 12; ctok measured 11 for
/// Claude 4.7, and 7 for those before it.
const REQUEST_TOKENS: u64 = 4;

/// The system message that the format of gpt-oss puts before every conversation (OpenAI, "OpenAI Harmony Response
/// Format"): 61 tokens, and the line that tools add.
const HARMONY_TOKENS: u64 = 80;

/// What a message or block costs beside its text.
const BLOCK_TOKENS: u64 = 4;

/// A document page is text and an image; we cannot count pages, so this many bytes of the file make a token.
const DOCUMENT_BYTES_PER_TOKEN: u64 = 12;

/// Estimated input tokens of a Converse body: its messages, system prompts and tools.
pub fn input_tokens(body: &Map<String, Value>, tokenizer: Tokenizer) -> u64 {
    let mut tally = Tally { tokenizer, tokens: request_tokens(tokenizer), text: [0; Feature::COUNT] };
    for part in ["messages", "system"] {
        if let Some(value) = body.get(part) {
            tally.value(value);
        }
    }
    if let Some(Value::Object(config)) = body.get("toolConfig") {
        tally.tools(config);
    }
    tally.tokens + weights::millitokens(&tally.text, tokenizer).div_ceil(1_000)
}

struct Tally {
    tokenizer: Tokenizer,
    /// What is known to cost so many tokens.
    tokens: u64,
    /// What is known only as text.
    text: Counts,
}

impl Tally {
    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.tokens += BLOCK_TOKENS * items.len() as u64;
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(fields) => fields.iter().for_each(|(name, value)| self.field(name, value)),
            Value::Number(_) | Value::Bool(_) | Value::Null => self.tokens += 1,
        }
    }

    fn field(&mut self, name: &str, value: &Value) {
        match name {
            "image" => self.tokens += image_tokens(self.tokenizer),
            "document" | "video" | "audio" => self.tokens += binary_bytes(value).div_ceil(DOCUMENT_BYTES_PER_TOKEN),
            // A tool's arguments and its result: JSON that reaches the model as text.
            "input" | "json" => self.text(&value.to_string()),
            _ => self.value(value),
        }
    }

    fn tools(&mut self, config: &Map<String, Value>) {
        let Some(Value::Array(tools)) = config.get("tools") else { return };
        if tools.is_empty() {
            return;
        }
        self.tokens += tool_prompt_tokens(self.tokenizer, config.get("toolChoice"));
        for tool in tools {
            self.tokens += BLOCK_TOKENS;
            self.text(&tool.to_string());
        }
    }

    fn text(&mut self, text: &str) {
        for (total, count) in self.text.iter_mut().zip(scan::features(text)) {
            *total += count;
        }
    }
}

fn request_tokens(tokenizer: Tokenizer) -> u64 {
    match tokenizer {
        Tokenizer::GptOss | Tokenizer::Unknown => REQUEST_TOKENS + HARMONY_TOKENS,
        _ => REQUEST_TOKENS,
    }
}

/// An image of the largest size that is not scaled down (Anthropic, "Vision"; for Amazon the largest of the examples in
/// "Image understanding", Amazon Nova User Guide).
fn image_tokens(tokenizer: Tokenizer) -> u64 {
    match tokenizer {
        Tokenizer::Claude47 | Tokenizer::Unknown => 4_784,
        Tokenizer::Amazon => 2_600,
        _ => 1_568,
    }
}

/// The system prompt that Claude gets with tools: for each family the longest of its versions, which depends on whether
/// the model may choose freely (Anthropic, "Tool use with Claude", Pricing).
fn tool_prompt_tokens(tokenizer: Tokenizer, choice: Option<&Value>) -> u64 {
    let (free, bound) = match tokenizer {
        Tokenizer::Claude3 => (530, 589),
        Tokenizer::Claude47 | Tokenizer::Unknown => (675, 804),
        _ => (0, 0),
    };
    if choice.is_none_or(|choice| choice.get("auto").is_some()) { free } else { bound }
}

fn binary_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(binary_bytes).sum(),
        Value::Object(fields) => fields.values().map(binary_bytes).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
