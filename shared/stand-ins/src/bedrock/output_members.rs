//! Members that decide how much a model generates: the number of answers, and output limits that
//! stand beside the limit of the format.

use serde_json::{Map, Value};

/// Members with the number of answers that are returned: OpenAI and AI21 Jamba, Cohere, Hugging
/// Face, AI21 Jurassic.
const RETURNED: [&str; 4] = ["n", "num_generations", "num_return_sequences", "numResults"];

/// Member with the number of answers that are generated. The best of them are returned, and all are
/// billed (OpenAI API Reference, "Completions"; vLLM, `SamplingParams`).
const GENERATED: &str = "best_of";

/// Names of output limits in the formats of InvokeModel.
const LIMITS: [&str; 9] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "max_gen_len",
    "max_length",
    "max_tokens_to_sample",
    "maxTokens",
    "maxTokenCount",
];

/// Maximum number of answers (OpenAI API Reference, `n`).
const MAX_ANSWERS: u64 = 128;

/// Number of answers to a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerCount {
    /// Answers in the response.
    pub returned: u64,
    /// Answers that are generated and billed.
    pub generated: u64,
}

impl Default for AnswerCount {
    fn default() -> Self {
        Self { returned: 1, generated: 1 }
    }
}

impl AnswerCount {
    /// Reads the number of answers from the members of a body.
    pub fn read(members: &Map<String, Value>) -> Self {
        let count = |name: &str| members.get(name).and_then(Value::as_u64).unwrap_or(1).clamp(1, MAX_ANSWERS);
        let returned = RETURNED.into_iter().map(count).max().unwrap_or(1);
        Self { returned, generated: count(GENERATED).max(returned) }
    }

    /// Reads the largest number of answers from objects at any depth of `value`.
    pub fn read_nested(value: &Value) -> Self {
        objects(value).into_iter().map(Self::read).max_by_key(|count| count.generated).unwrap_or_default()
    }
}

/// Returns the largest output limit at any depth of `value`.
pub(super) fn largest_limit(value: &Value) -> Option<u64> {
    let limit = |members: &Map<String, Value>| LIMITS.iter().filter_map(|name| members.get(*name)?.as_u64()).max();
    objects(value).into_iter().filter_map(limit).max()
}

/// Returns the objects at any depth of `value`, without the definitions of tools, whose schemas can
/// have members of any name.
fn objects(value: &Value) -> Vec<&Map<String, Value>> {
    match value {
        Value::Object(members) => {
            let inner = members.iter().filter(|(name, _)| *name != "tools").flat_map(|(_, member)| objects(member));
            std::iter::once(members).chain(inner).collect()
        }
        Value::Array(elements) => elements.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn more_answers_are_generated_than_returned_if_only_the_best_are_wanted() {
        for (body, returned, generated) in [
            (json!({}), 1, 1),
            (json!({"n": 3}), 3, 3),
            (json!({"num_generations": 5}), 5, 5),
            (json!({"best_of": 20}), 1, 20),
            (json!({"n": 3, "best_of": 2}), 3, 3),
            (json!({"n": 1_000_000}), 128, 128),
            (json!({"a": [{"b": {"num_return_sequences": 4}}]}), 4, 4),
            (json!({"tools": [{"n": 4}]}), 1, 1),
        ] {
            assert_eq!(AnswerCount::read_nested(&body), AnswerCount { returned, generated }, "{body}");
        }
    }

    #[test]
    fn the_largest_of_several_limits_counts() {
        assert_eq!(largest_limit(&json!({"max_tokens": 5, "a": {"b": [{"maxTokens": 9}]}})), Some(9));
        assert_eq!(largest_limit(&json!({"tools": [{"max_tokens": 5}]})), None);
    }
}
