//! Formats of the bodies that models take from InvokeModel, and the places of the output limit in
//! each.

use serde::{Deserialize, Serialize};

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

    /// The paths at which a body may have its output limit; none if there is no output. The first
    /// is set if the body has no limit.
    pub fn limit_paths(self) -> &'static [&'static str] {
        match self {
            Self::Messages => &["max_tokens"],
            Self::ChatCompletions => &["max_tokens", "max_completion_tokens"],
            Self::Nova => &["inferenceConfig.maxTokens", "inferenceConfig.max_new_tokens"],
            Self::TitanText => &["textGenerationConfig.maxTokenCount"],
            Self::Llama => &["max_gen_len"],
            Self::TitanEmbed | Self::CohereEmbed => &[],
        }
    }

    /// Whether the output of a call in this format has a limit.
    pub fn output_bound(self) -> OutputBound {
        if self.limit_paths().is_empty() { OutputBound::Nothing } else { OutputBound::Limit }
    }
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
}
