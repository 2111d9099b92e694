//! Estimate of the input tokens of a request.
//!
//! A real tokenizer needs megabytes of vocabulary, so the text is not tokenized. [`scan`] counts
//! the features of the text in one pass, and [`weights`] gives the cost of each feature in each
//! family of models. `tests/tokenizers` measures the error against the real tokenizers.

mod feature;
mod scan;
mod tokenizer;
mod weights;
mod words;

use serde_json::{Map, Value, json};

pub use tokenizer::Tokenizer;

use feature::{Counts, Feature};

/// Tokens of a request beside its messages. With a message and its block they add up to 12; ctok
/// measured 11 for Claude 4.7, and 7 for earlier models.
const REQUEST_TOKENS: u64 = 4;

/// System message that the format of gpt-oss puts before every conversation (OpenAI, "OpenAI
/// Harmony Response Format"): 61 tokens, and the line that tools add.
const HARMONY_TOKENS: u64 = 80;

/// Tokens of a message or block beside its text.
const BLOCK_TOKENS: u64 = 4;

/// Bytes of a document per token. A page is text and an image, and pages cannot be counted.
const DOCUMENT_BYTES_PER_TOKEN: u64 = 12;

/// Returns the estimated input tokens of a body. In a chat these are its messages, system prompts
/// and tools, in Converse's or the model's native format; in any other body they are all of its
/// fields.
pub fn input_tokens(body: &Map<String, Value>, tokenizer: Tokenizer) -> u64 {
    let mut tally = Tally { tokenizer, tokens: request_tokens(tokenizer), text: [0; Feature::COUNT] };
    if body.contains_key("messages") {
        tally.chat(body);
    } else {
        body.iter().for_each(|(name, value)| tally.field(name, value));
    }
    tally.tokens + weights::millitokens(&tally.text, tokenizer).div_ceil(1_000)
}

struct Tally {
    tokenizer: Tokenizer,
    /// Parts with a known number of tokens.
    tokens: u64,
    /// Features of the text.
    text: Counts,
}

impl Tally {
    fn chat(&mut self, body: &Map<String, Value>) {
        for part in ["messages", "system"] {
            if let Some(value) = body.get(part) {
                self.value(value);
            }
        }
        match body.get("toolConfig") {
            Some(Value::Object(config)) => self.tools(config.get("tools"), config.get("toolChoice")),
            _ => self.tools(body.get("tools"), body.get("tool_choice")),
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.tokens += BLOCK_TOKENS * items.len() as u64;
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(fields) => match fields.get("type").and_then(Value::as_str) {
                // A block in Anthropic's format, or a part in OpenAI's.
                Some("image" | "image_url") => self.field("image", value),
                Some("document") => self.field("document", value),
                _ => fields.iter().for_each(|(name, value)| self.field(name, value)),
            },
            Value::Number(_) | Value::Bool(_) | Value::Null => self.tokens += 1,
        }
    }

    fn field(&mut self, name: &str, value: &Value) {
        match name {
            "image" | "inputImage" => self.tokens += image_tokens(self.tokenizer),
            "document" | "video" | "audio" => self.tokens += binary_bytes(value).div_ceil(DOCUMENT_BYTES_PER_TOKEN),
            // Arguments and results of tools: JSON that reaches the model as text.
            "input" | "json" => self.text(&value.to_string()),
            // These fields describe a block and are not part of the prompt.
            "type" | "cache_control" => {}
            _ => self.value(value),
        }
    }

    fn tools(&mut self, tools: Option<&Value>, choice: Option<&Value>) {
        let Some(Value::Array(tools)) = tools else { return };
        if tools.is_empty() {
            return;
        }
        self.tokens += tool_prompt_tokens(self.tokenizer, choice);
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
