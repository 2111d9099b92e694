//! Extended thinking: the settings of a request, the length of the thinking, and its signature.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{prompt::Prompt, tokens};

/// Settings of extended thinking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Thinking {
    /// `budget_tokens`; absent if the model decides.
    pub budget_tokens: Option<u64>,
}

const MIN_BUDGET_TOKENS: u64 = 1_024;

/// Parses a `thinking` member of Anthropic's Messages format.
///
/// # Errors
/// Returns the error message of Anthropic.
pub(super) fn parse(thinking: &Value) -> Result<Option<Thinking>, &'static str> {
    match thinking["type"].as_str() {
        None if thinking.is_null() => Ok(None),
        Some("disabled") => Ok(None),
        Some("adaptive") => Ok(Some(Thinking::default())),
        Some("enabled") => match thinking["budget_tokens"].as_u64() {
            None => Err("thinking.enabled.budget_tokens: Field required"),
            Some(budget) if budget < MIN_BUDGET_TOKENS => {
                Err("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
            }
            budget_tokens => Ok(Some(Thinking { budget_tokens })),
        },
        _ => Err("thinking: Input tag found using 'type' does not match any of the expected tags: 'adaptive', \
                  'disabled', 'enabled'"),
    }
}

/// Checks that the settings of a prompt are compatible with thinking.
///
/// # Errors
/// Returns the error message of Anthropic.
pub(super) fn check(prompt: &Prompt, max_tokens: u64) -> Result<(), &'static str> {
    let Some(thinking) = prompt.thinking else { return Ok(()) };
    if thinking.budget_tokens.is_some_and(|budget| budget >= max_tokens) {
        return Err("`max_tokens` must be greater than `thinking.budget_tokens`.");
    }
    if prompt.forced_tool.is_some() {
        return Err("Thinking may not be enabled when tool_choice forces tool use.");
    }
    #[expect(clippy::float_cmp, reason = "only exactly 1 is allowed")]
    if prompt.temperature.is_some_and(|temperature| temperature != 1.0) {
        return Err("`temperature` may only be set to 1 when thinking is enabled.");
    }
    Ok(())
}

/// Returns the thinking text. Its length is `requested_tokens`, or depends on the effort, and is
/// limited by the budget and by `max_tokens`.
pub(super) fn thinking_text(prompt: &Prompt, requested_tokens: Option<u64>, max_tokens: u64) -> String {
    let Some(thinking) = prompt.thinking else { return String::new() };
    let by_effort = match prompt.effort.as_deref() {
        Some("low") => 8,
        Some("medium") => 16,
        Some("xhigh" | "max") => 64,
        _ => 32,
    };
    let wanted = requested_tokens.unwrap_or(by_effort);
    let length = wanted.min(thinking.budget_tokens.unwrap_or(max_tokens)).min(max_tokens);
    tokens::sized_text("Let me think:", length)
}

/// Returns the signature of a thinking text. A request must send it back with the text.
pub(super) fn signature(thinking_text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    thinking_text.hash(&mut hasher);
    STANDARD.encode(format!("thoughts {:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn thinking_is_read_as_anthropic_defines_it() {
        assert_eq!(parse(&Value::Null), Ok(None));
        assert_eq!(parse(&json!({"type": "disabled"})), Ok(None));
        assert_eq!(parse(&json!({"type": "adaptive"})), Ok(Some(Thinking { budget_tokens: None })));
        let enabled = json!({"type": "enabled", "budget_tokens": 2_000});
        assert_eq!(parse(&enabled), Ok(Some(Thinking { budget_tokens: Some(2_000) })));
        assert!(parse(&json!({"type": "enabled", "budget_tokens": 1_023})).unwrap_err().contains("1024"));
        assert!(parse(&json!({"type": "deep"})).is_err());
    }

    #[test]
    fn thinking_excludes_forced_tools_a_small_max_tokens_and_other_temperatures() {
        let prompt = Prompt { thinking: Some(Thinking { budget_tokens: Some(2_000) }), ..Prompt::default() };
        assert_eq!(check(&prompt, 2_001), Ok(()));
        assert!(check(&prompt, 2_000).is_err());
        assert!(check(&Prompt { forced_tool: Some("t".into()), ..prompt.clone() }, 4_000).is_err());
        assert!(check(&Prompt { temperature: Some(0.5), ..prompt }, 4_000).is_err());
    }

    #[test]
    fn the_effort_sets_the_length_of_the_thinking_within_its_budget() {
        let prompt = Prompt { thinking: Some(Thinking { budget_tokens: Some(1_024) }), ..Prompt::default() };
        let low = Prompt { effort: Some("low".into()), ..prompt.clone() };
        assert_eq!(tokens::text_tokens(&thinking_text(&low, None, 9_000)), 8);
        assert_eq!(tokens::text_tokens(&thinking_text(&prompt, None, 9_000)), 32);
        assert_eq!(tokens::text_tokens(&thinking_text(&prompt, Some(5_000), 9_000)), 1_024);
        assert_eq!(thinking_text(&Prompt::default(), Some(5), 9_000), "");
    }
}
