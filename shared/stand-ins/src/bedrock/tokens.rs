//! The simulator's one way to count tokens, for what comes in and for what goes out.
//!
//! A text is one token per four bytes of UTF-8, rounded up per text. A message costs [`MESSAGE_TOKENS`] on top, a tool
//! call [`TOOL_USE_TOKENS`]. An image is [`IMAGE_TOKENS`]; a document, video or sound [`DOCUMENT_TOKENS`]. A cache
//! point costs nothing. Everything else (tool definitions, reasoning, JSON results) is counted as its compact JSON.

use serde_json::Value;

/// Bytes of text per token.
pub const TOKEN_BYTES: usize = 4;
/// Every message costs this much besides its content.
pub const MESSAGE_TOKENS: u64 = 4;
/// Every tool call costs this much besides its name and its input.
pub const TOOL_USE_TOKENS: u64 = 4;
/// An image of any size.
pub const IMAGE_TOKENS: u64 = 1_500;
/// A document, a video or a sound of any size.
pub const DOCUMENT_TOKENS: u64 = 3_000;

const FILLER: &str = " the quick brown fox jumps over the lazy dog and then";

/// Tokens of one text.
pub fn text_tokens(text: &str) -> u64 {
    text.len().div_ceil(TOKEN_BYTES) as u64
}

/// Tokens of a JSON value, counted as its compact text.
pub fn json_tokens(value: &Value) -> u64 {
    text_tokens(&value.to_string())
}

/// Tokens of a tool call.
pub fn tool_use_tokens(name: &str, input: &str) -> u64 {
    TOOL_USE_TOKENS + text_tokens(name) + text_tokens(input)
}

/// A text that, as the only user message of a Converse request without a system prompt or tools, counts exactly
/// `input_tokens` and is answered with exactly `output_tokens`. When `input_tokens` is less than the directive itself
/// needs, the text is the directive alone and counts what [`prompt_tokens`] says.
pub fn prompt_of(input_tokens: u64, output_tokens: u64) -> String {
    let mut prompt = format!("[[output_tokens={output_tokens}]]");
    let wanted = usize::try_from(input_tokens.saturating_sub(MESSAGE_TOKENS)).unwrap_or(usize::MAX);
    let missing = wanted.saturating_mul(TOKEN_BYTES).saturating_sub(prompt.len());
    if missing > 0 {
        prompt.extend(FILLER.chars().cycle().take(missing - 1));
        prompt.push('.');
    }
    prompt
}

/// Input tokens of a Converse request whose only message is this text.
pub fn prompt_tokens(text: &str) -> u64 {
    MESSAGE_TOKENS + text_tokens(text)
}

/// ASCII text of exactly `tokens` tokens that begins with `beginning` (ASCII) as far as there is room.
pub(super) fn text_of(beginning: &str, tokens: u64) -> String {
    let length = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(TOKEN_BYTES);
    let mut text: String = beginning.chars().chain(FILLER.chars().cycle()).take(length).collect();
    // A full stop at the end, since clients trim trailing blanks and would count less than was billed.
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
    fn a_text_costs_a_token_per_four_bytes_rounded_up() {
        assert_eq!([0, 1, 4, 5].map(|length| text_tokens(&"x".repeat(length))), [0, 1, 1, 2]);
        assert_eq!(text_tokens("äöü"), 2);
    }

    #[test]
    fn a_prompt_smaller_than_its_directive_is_the_directive() {
        assert_eq!(prompt_of(0, 7), "[[output_tokens=7]]");
        assert_eq!(prompt_tokens(&prompt_of(0, 7)), 9);
    }

    proptest! {
        #[test]
        fn a_prompt_counts_exactly_what_was_asked_for(input in 0u64..5_000, output in 0u64..100_000) {
            let smallest = prompt_tokens(&format!("[[output_tokens={output}]]"));
            prop_assert_eq!(prompt_tokens(&prompt_of(input, output)), input.max(smallest));
        }

        #[test]
        fn a_text_of_n_tokens_counts_n(tokens in 0u64..3_000, beginning in "[ -~]{0,80}") {
            prop_assert_eq!(text_tokens(&text_of(&beginning, tokens)), tokens);
        }
    }
}
