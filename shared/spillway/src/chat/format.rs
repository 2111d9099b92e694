//! Formats of the bodies that models take from InvokeModel, and the place of the output limit in
//! each.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::model_id::provider_and_model;

/// The format of a model's own bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Anthropic's Messages.
    Messages,
    /// Amazon Nova, which is shaped like Converse.
    Nova,
    /// Amazon Titan Text.
    TitanText,
    /// Meta Llama.
    Llama,
    /// OpenAI's chat completions: gpt-oss, Mistral, DeepSeek, Qwen and most others.
    ChatCompletions,
    /// Amazon Titan Embeddings.
    TitanEmbed,
    /// Cohere Embed.
    CohereEmbed,
}

/// Whether the output of a call has a limit in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputBound {
    /// The body has a limit, or takes one.
    Limit,
    /// The call has no output that is counted in tokens.
    Nothing,
    /// The place of the limit is not known.
    Unknown,
}

impl Format {
    /// The format for a Bedrock model id, an inference profile id, or the ARN of either; `None` if
    /// the id does not determine it.
    pub fn for_model_id(id: &str) -> Option<Self> {
        provider_and_model(id).find_map(|(provider, model)| {
            let is = |prefix: &str| model.starts_with(prefix);
            match provider {
                "anthropic" => Some(Self::Messages),
                "amazon" if is("nova-2-multimodal-embeddings") => None,
                "amazon" if is("nova-canvas") || is("nova-reel") || is("nova-sonic") => None,
                "amazon" if is("nova") => Some(Self::Nova),
                "amazon" if is("titan-embed") => Some(Self::TitanEmbed),
                "amazon" if is("titan-text") => Some(Self::TitanText),
                "meta" if is("llama") => Some(Self::Llama),
                "cohere" if is("embed") => Some(Self::CohereEmbed),
                "cohere" if is("rerank") => None,
                "cohere" | "ai21" | "mistral" | "deepseek" | "qwen" | "openai" | "moonshot" | "minimax" | "zai" => {
                    Some(Self::ChatCompletions)
                }
                _ => None,
            }
        })
    }

    /// The path to the output limit; empty if there is no output.
    fn path(self) -> &'static [&'static str] {
        match self {
            Self::Messages | Self::ChatCompletions => &["max_tokens"],
            Self::Nova => &["inferenceConfig", "maxTokens"],
            Self::TitanText => &["textGenerationConfig", "maxTokenCount"],
            Self::Llama => &["max_gen_len"],
            Self::TitanEmbed | Self::CohereEmbed => &[],
        }
    }

    /// Another name for the last member of [`path`](Self::path).
    fn alias(self) -> Option<&'static str> {
        match self {
            Self::ChatCompletions => Some("max_completion_tokens"),
            Self::Nova => Some("max_new_tokens"),
            _ => None,
        }
    }

    /// Returns the output limit in `body`, with the path to it.
    pub fn max_tokens(self, body: &Map<String, Value>) -> Option<(String, &Value)> {
        let (last, parents) = self.path().split_last()?;
        let members = parents.iter().try_fold(body, |members, name| members.get(*name)?.as_object())?;
        let name = [Some(*last), self.alias()].into_iter().flatten().find(|name| members.contains_key(*name))?;
        let path = parents.iter().copied().chain([name]).collect::<Vec<_>>().join(".");
        members.get(name).filter(|value| !value.is_null()).map(|value| (path, value))
    }

    /// Returns the top-level member of `body` in which the output limit is `max_tokens`.
    pub fn with_max_tokens(self, body: &Map<String, Value>, max_tokens: u64) -> Option<(&'static str, Value)> {
        let name = match self.max_tokens(body) {
            Some((path, _)) if self.alias().is_some_and(|alias| path.ends_with(alias)) => self.alias()?,
            _ => *self.path().last()?,
        };
        match self.path() {
            [_] => Some((name, json!(max_tokens))),
            [parent, _] => Some((parent, with_member(body.get(*parent), name, max_tokens))),
            _ => None,
        }
    }

    /// Whether the output of a call in this format has a limit.
    pub fn output_bound(self) -> OutputBound {
        if self.path().is_empty() { OutputBound::Nothing } else { OutputBound::Limit }
    }
}

/// A copy of the object `config` whose member `name` is `max_tokens`.
pub(super) fn with_member(config: Option<&Value>, name: &str, max_tokens: u64) -> Value {
    let mut members = config.and_then(Value::as_object).cloned().unwrap_or_default();
    members.insert(name.to_owned(), max_tokens.into());
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_from_the_model_id() {
        let format = |id| Format::for_model_id(id);
        assert_eq!(format("us.anthropic.claude-opus-4-7"), Some(Format::Messages));
        assert_eq!(format("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"), Some(Format::Nova));
        assert_eq!(format("amazon.nova-canvas-v1:0"), None);
        assert_eq!(format("amazon.titan-embed-text-v2:0"), Some(Format::TitanEmbed));
        assert_eq!(format("cohere.embed-v4:0"), Some(Format::CohereEmbed));
        assert_eq!(format("openai.gpt-oss-120b-1:0"), Some(Format::ChatCompletions));
        assert_eq!(format("arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc"), None);
        assert_eq!(format("stability.sd3-large-v1:0"), None);
    }

    #[test]
    fn the_output_limit_is_read_and_set_where_the_model_takes_it() {
        let cases = [
            (Format::Messages, json!({"max_tokens": 7}), json!({"max_tokens": 9})),
            (Format::ChatCompletions, json!({"max_completion_tokens": 7}), json!({"max_completion_tokens": 9})),
            (
                Format::Nova,
                json!({"inferenceConfig": {"maxTokens": 7, "topP": 1}}),
                json!({"inferenceConfig": {"maxTokens": 9, "topP": 1}}),
            ),
            (
                Format::TitanText,
                json!({"textGenerationConfig": {"maxTokenCount": 7}}),
                json!({"textGenerationConfig": {"maxTokenCount": 9}}),
            ),
            (Format::Llama, json!({"max_gen_len": 7}), json!({"max_gen_len": 9})),
        ];
        for (format, before, after) in cases {
            let before = before.as_object().expect("an object");
            assert_eq!(format.max_tokens(before).map(|(_, value)| value), Some(&json!(7)), "{format:?}");
            let (name, value) = format.with_max_tokens(before, 9).expect("a limit");
            assert_eq!(json!({ name: value }), after, "{format:?}");
            let (name, value) = format.with_max_tokens(&Map::new(), 9).expect("a limit");
            let set = json!({ name: value });
            assert_eq!(format.max_tokens(set.as_object().expect("an object")).map(|(_, value)| value), Some(&json!(9)));
        }
        assert_eq!(Format::TitanEmbed.with_max_tokens(&Map::new(), 9), None);
    }
}
