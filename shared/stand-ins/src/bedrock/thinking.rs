//! Extended thinking: what a request asks for, how much the model thinks, and the signature that proves its thoughts.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{prompt::Prompt, tokens};

/// That a request asks the model to think before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Thinking {
    /// `budget_tokens`; absent where the model decides by itself.
    pub budget_tokens: Option<u64>,
}

const SMALLEST_BUDGET_TOKENS: u64 = 1_024;

/// Reads a `thinking` member of Anthropic's Messages format.
///
/// # Errors
/// In Anthropic's words.
pub(super) fn read(thinking: &Value) -> Result<Option<Thinking>, &'static str> {
    match thinking["type"].as_str() {
        None if thinking.is_null() => Ok(None),
        Some("disabled") => Ok(None),
        Some("adaptive") => Ok(Some(Thinking::default())),
        Some("enabled") => match thinking["budget_tokens"].as_u64() {
            None => Err("thinking.enabled.budget_tokens: Field required"),
            Some(budget) if budget < SMALLEST_BUDGET_TOKENS => {
                Err("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
            }
            budget_tokens => Ok(Some(Thinking { budget_tokens })),
        },
        _ => Err("thinking: Input tag found using 'type' does not match any of the expected tags: 'adaptive', \
                  'disabled', 'enabled'"),
    }
}

/// What does not go together with thinking.
///
/// # Errors
/// In Anthropic's words.
pub(super) fn check(prompt: &Prompt, max_tokens: u64) -> Result<(), &'static str> {
    let Some(thinking) = prompt.thinking else { return Ok(()) };
    if thinking.budget_tokens.is_some_and(|budget| budget >= max_tokens) {
        return Err("`max_tokens` must be greater than `thinking.budget_tokens`.");
    }
    if prompt.forced_tool.is_some() {
        return Err("Thinking may not be enabled when tool_choice forces tool use.");
    }
    #[expect(clippy::float_cmp, reason = "exactly 1 is what is allowed")]
    if prompt.temperature.is_some_and(|temperature| temperature != 1.0) {
        return Err("`temperature` may only be set to 1 when thinking is enabled.");
    }
    Ok(())
}

/// The thoughts of `asked_tokens`, or of a length by the request's effort, within its budget and `max_tokens`.
pub(super) fn thoughts(prompt: &Prompt, asked_tokens: Option<u64>, max_tokens: u64) -> String {
    let Some(thinking) = prompt.thinking else { return String::new() };
    let by_effort = match prompt.effort.as_deref() {
        Some("low") => 8,
        Some("medium") => 16,
        Some("xhigh" | "max") => 64,
        _ => 32,
    };
    let wanted = asked_tokens.unwrap_or(by_effort);
    let length = wanted.min(thinking.budget_tokens.unwrap_or(max_tokens)).min(max_tokens);
    tokens::text_of("Let me think:", length)
}

/// The signature of thoughts, without which they may not be sent back.
pub(super) fn signature(thoughts: &str) -> String {
    let mut hasher = DefaultHasher::new();
    thoughts.hash(&mut hasher);
    STANDARD.encode(format!("thoughts {:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn thinking_is_read_as_anthropic_defines_it() {
        assert_eq!(read(&Value::Null), Ok(None));
        assert_eq!(read(&json!({"type": "disabled"})), Ok(None));
        assert_eq!(read(&json!({"type": "adaptive"})), Ok(Some(Thinking { budget_tokens: None })));
        let enabled = json!({"type": "enabled", "budget_tokens": 2_000});
        assert_eq!(read(&enabled), Ok(Some(Thinking { budget_tokens: Some(2_000) })));
        assert!(read(&json!({"type": "enabled", "budget_tokens": 1_023})).unwrap_err().contains("1024"));
        assert!(read(&json!({"type": "deep"})).is_err());
    }

    #[test]
    fn thinking_does_not_go_with_a_forced_tool_a_small_maximum_or_another_temperature() {
        let prompt = Prompt { thinking: Some(Thinking { budget_tokens: Some(2_000) }), ..Prompt::default() };
        assert_eq!(check(&prompt, 2_001), Ok(()));
        assert!(check(&prompt, 2_000).is_err());
        assert!(check(&Prompt { forced_tool: Some("t".into()), ..prompt.clone() }, 4_000).is_err());
        assert!(check(&Prompt { temperature: Some(0.5), ..prompt }, 4_000).is_err());
    }

    #[test]
    fn effort_decides_how_long_the_model_thinks_within_its_budget() {
        let prompt = Prompt { thinking: Some(Thinking { budget_tokens: Some(1_024) }), ..Prompt::default() };
        let low = Prompt { effort: Some("low".into()), ..prompt.clone() };
        assert_eq!(tokens::text_tokens(&thoughts(&low, None, 9_000)), 8);
        assert_eq!(tokens::text_tokens(&thoughts(&prompt, None, 9_000)), 32);
        assert_eq!(tokens::text_tokens(&thoughts(&prompt, Some(5_000), 9_000)), 1_024);
        assert_eq!(thoughts(&Prompt::default(), Some(5), 9_000), "");
    }
}
