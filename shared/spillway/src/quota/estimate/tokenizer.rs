//! Tokenizers of models.

use serde::{Deserialize, Serialize};

use crate::model_id::provider_and_model;

/// Families of models that tokenize text alike.
///
/// `tests/tokenizers` measures the estimate for the first eight against their tokenizers. For
/// Claude that is [ctok], which reconstructs the counts of Anthropic's `count_tokens`. All other
/// vendors publish their tokenizers.
///
/// [ctok]: https://github.com/sanderland/ctok
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// Claude 3 to Claude 4.6.
    Claude3,
    /// Claude 4.7 and later, which makes about 30 % more tokens of the same text (Anthropic,
    /// "Glossary").
    Claude47,
    /// Llama 3 to 3.3.
    Llama3,
    /// Mistral's first models, up to Mistral Large 2 and Pixtral Large: 32,768 tokens.
    Mistral32k,
    /// Mistral's later models: Tekken, 131,072 tokens.
    MistralTekken,
    /// DeepSeek R1 and V3.
    Deepseek,
    /// Qwen 3.
    Qwen3,
    /// The gpt-oss models.
    GptOss,
    /// Amazon Nova and Titan. Amazon publishes no tokenizer, only a ratio of 6 characters per token
    /// ("Prepare data for fine-tuning your models", Amazon Bedrock User Guide). Each feature of the
    /// text costs as much as in the published tokenizer in which it costs most.
    Amazon,
    /// Any other tokenizer. Each feature costs as much as in the measured family in which it costs
    /// most.
    Unknown,
}

impl Tokenizer {
    /// Returns the tokenizer for a Bedrock model id, an inference profile id, or the ARN of either;
    /// `None` for other ARNs, which do not name a model, and for models whose tokenizer is unknown.
    pub fn for_model_id(id: &str) -> Option<Self> {
        provider_and_model(id).find_map(|(provider, model)| Self::for_provider(provider, model))
    }

    /// Returns a tokenizer that makes at least as many tokens of any text as `self` and
    /// `tokenizer`.
    pub fn max(self, tokenizer: Self) -> Self {
        match (self, tokenizer) {
            _ if self == tokenizer => self,
            (Self::Claude3 | Self::Claude47, Self::Claude3 | Self::Claude47) => Self::Claude47,
            _ => Self::Unknown,
        }
    }

    fn for_provider(provider: &str, model: &str) -> Option<Self> {
        let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| model.starts_with(prefix));
        match provider {
            "anthropic" => Some(for_claude(model)),
            "amazon" if is(&["nova", "titan"]) => Some(Self::Amazon),
            "meta" if is(&["llama3"]) => Some(Self::Llama3),
            "mistral" if is(&MISTRAL_32K) => Some(Self::Mistral32k),
            "mistral" => Some(Self::MistralTekken),
            "deepseek" => Some(Self::Deepseek),
            "qwen" if is(&["qwen3"]) => Some(Self::Qwen3),
            "openai" if is(&["gpt-oss"]) => Some(Self::GptOss),
            _ => None,
        }
    }
}

/// Prefixes of the models with Mistral's tokenizers v1 to v7 (Mistral AI, "Tokenization").
const MISTRAL_32K: [&str; 5] = ["mistral-7b", "mixtral", "mistral-small-2402", "mistral-large-24", "pixtral-large"];

/// Returns the tokenizer of a Claude model. Versions are written as `claude-3-7-sonnet-…` or
/// `claude-opus-4-7`; an eight-digit date follows. A Claude without a version counts as the latest.
fn for_claude(model: &str) -> Tokenizer {
    let mut version =
        model.split(['-', ':']).filter(|part| part.len() <= 2).filter_map(|part| part.parse::<u32>().ok());
    match (version.next(), version.next()) {
        (Some(..=3), _) | (Some(4), None | Some(..=6)) => Tokenizer::Claude3,
        _ => Tokenizer::Claude47,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, wanted: impl Into<Option<Tokenizer>>) {
        assert_eq!(Tokenizer::for_model_id(id), wanted.into(), "{id}");
    }

    #[test]
    fn a_model_id_determines_the_tokenizer() {
        check("anthropic.claude-3-haiku-20240307-v1:0", Tokenizer::Claude3);
        check("anthropic.claude-3-7-sonnet-20250219-v1:0", Tokenizer::Claude3);
        check("anthropic.claude-opus-4-20250514-v1:0", Tokenizer::Claude3);
        check("anthropic.claude-opus-4-6-v1", Tokenizer::Claude3);
        check("anthropic.claude-opus-4-7", Tokenizer::Claude47);
        check("anthropic.claude-sonnet-5", Tokenizer::Claude47);
        check("anthropic.claude-mythos-preview", Tokenizer::Claude47);
        check("meta.llama3-3-70b-instruct-v1:0", Tokenizer::Llama3);
        check("mistral.mistral-large-2407-v1:0", Tokenizer::Mistral32k);
        check("mistral.ministral-3-8b-instruct", Tokenizer::MistralTekken);
        check("deepseek.v3-v1:0", Tokenizer::Deepseek);
        check("qwen.qwen3-coder-480b-a35b-v1:0", Tokenizer::Qwen3);
        check("openai.gpt-oss-120b-1:0", Tokenizer::GptOss);
        check("amazon.nova-lite-v1:0", Tokenizer::Amazon);
        check("amazon.titan-text-express-v1", Tokenizer::Amazon);
    }

    #[test]
    fn inference_profiles_and_arns_determine_the_tokenizer() {
        check("us.amazon.nova-micro-v1:0", Tokenizer::Amazon);
        check("global.anthropic.claude-sonnet-4-5-20250929-v1:0", Tokenizer::Claude3);
        check("us-gov.anthropic.claude-3-5-sonnet-20240620-v1:0", Tokenizer::Claude3);
        check("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-7", Tokenizer::Claude47);
        let profile = "inference-profile/us.meta.llama3-1-8b-instruct-v1:0";
        check(&format!("arn:aws:bedrock:us-east-1:123456789012:{profile}"), Tokenizer::Llama3);
    }

    #[test]
    fn an_id_without_a_measured_model_has_no_tokenizer() {
        check("arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc123", None);
        check("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123", None);
        check("arn:aws:bedrock", None);
        check("meta.llama4-scout-17b-instruct-v1:0", None);
        check("cohere.command-r-plus-v1:0", None);
        check("m", None);
        check("", None);
    }

    #[test]
    fn the_larger_of_two_tokenizers_makes_at_least_as_many_tokens_as_both() {
        assert_eq!(Tokenizer::Claude3.max(Tokenizer::Claude47), Tokenizer::Claude47);
        assert_eq!(Tokenizer::Qwen3.max(Tokenizer::Qwen3), Tokenizer::Qwen3);
        assert_eq!(Tokenizer::Claude3.max(Tokenizer::Amazon), Tokenizer::Unknown);
    }
}
