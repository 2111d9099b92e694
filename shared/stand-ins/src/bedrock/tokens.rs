//! Token counts of the simulator, for input and output.
//!
//! A text has one token per four bytes of UTF-8, rounded up. Each message adds [`MESSAGE_TOKENS`],
//! and each tool call adds [`TOOL_USE_TOKENS`]. An image has [`IMAGE_TOKENS`]; a page of a PDF,
//! another file, a video or a sound has [`PAGE_TOKENS`]. A cache point has no tokens. All other
//! content (tool definitions, reasoning, JSON results) counts as its compact JSON.

use serde_json::Value;

/// Bytes of text per token.
pub const TOKEN_BYTES: usize = 4;
/// Tokens of a message in addition to its content.
pub const MESSAGE_TOKENS: u64 = 4;
/// Tokens of a tool call in addition to its name and input.
pub const TOOL_USE_TOKENS: u64 = 4;
/// Tokens of an image of any size.
pub const IMAGE_TOKENS: u64 = 1_500;
/// Tokens of a page of a PDF, or of another document, a video or a sound of any size.
pub const PAGE_TOKENS: u64 = 3_000;

const FILLER: &str = " the quick brown fox jumps over the lazy dog and then";

/// Returns the tokens of a text.
pub fn text_tokens(text: &str) -> u64 {
    text.len().div_ceil(TOKEN_BYTES) as u64
}

/// Returns the tokens of the compact JSON of a value.
pub fn json_tokens(value: &Value) -> u64 {
    text_tokens(&value.to_string())
}

/// Returns the tokens of a tool call.
pub fn tool_use_tokens(name: &str, input: &str) -> u64 {
    TOOL_USE_TOKENS + text_tokens(name) + text_tokens(input)
}

/// Returns a text that has exactly `input_tokens` and is answered with exactly `output_tokens`, if
/// it is the only user message of a Converse request without a system prompt or tools. If
/// `input_tokens` is less than the directive needs, the text is the directive alone and has
/// [`prompt_tokens`] tokens.
pub fn sized_prompt(input_tokens: u64, output_tokens: u64) -> String {
    let mut prompt = format!("[[output_tokens={output_tokens}]]");
    let wanted = usize::try_from(input_tokens.saturating_sub(MESSAGE_TOKENS)).unwrap_or(usize::MAX);
    let missing = wanted.saturating_mul(TOKEN_BYTES).saturating_sub(prompt.len());
    if missing > 0 {
        prompt.extend(FILLER.chars().cycle().take(missing - 1));
        prompt.push('.');
    }
    prompt
}

/// Returns the input tokens of a Converse request whose only message is this text.
pub fn prompt_tokens(text: &str) -> u64 {
    MESSAGE_TOKENS + text_tokens(text)
}

/// Returns an ASCII text of exactly `tokens` tokens that begins with as much of `beginning` (ASCII)
/// as fits.
pub(super) fn sized_text(beginning: &str, tokens: u64) -> String {
    let length = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(TOKEN_BYTES);
    let mut text: String = beginning.chars().chain(FILLER.chars().cycle()).take(length).collect();
    // Ends with a full stop, because clients trim trailing blanks and would count fewer tokens than
    // were billed.
    if text.pop().is_some() {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_has_a_token_per_four_bytes_rounded_up() {
        assert_eq!([0, 1, 4, 5].map(|length| text_tokens(&"x".repeat(length))), [0, 1, 1, 2]);
        assert_eq!(text_tokens("äöü"), 2);
    }

    #[test]
    fn a_prompt_is_at_least_its_directive() {
        assert_eq!(sized_prompt(0, 7), "[[output_tokens=7]]");
        assert_eq!(prompt_tokens(&sized_prompt(0, 7)), 9);
    }

    proptest! {
        #[test]
        fn a_sized_prompt_has_the_requested_tokens(input in 0u64..5_000, output in 0u64..100_000) {
            let smallest = prompt_tokens(&format!("[[output_tokens={output}]]"));
            prop_assert_eq!(prompt_tokens(&sized_prompt(input, output)), input.max(smallest));
        }

        #[test]
        fn a_sized_text_has_the_requested_tokens(tokens in 0u64..3_000, beginning in "[ -~]{0,80}") {
            prop_assert_eq!(text_tokens(&sized_text(&beginning, tokens)), tokens);
        }
    }
}
