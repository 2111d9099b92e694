//! Body formats of InvokeModel. Each provider has its format, and the model id determines the
//! provider.

use serde::Deserialize;

/// A body format of InvokeModel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BodyFormat {
    /// Anthropic Messages.
    Messages,
    /// Amazon Nova: the members of Converse.
    Nova,
    /// Meta Llama: a prompt and a generated text.
    Llama,
    /// Chat completions, as used by OpenAI, Mistral, Qwen and DeepSeek.
    Chat,
    /// Amazon Titan Text Embeddings G1.
    TitanEmbedV1,
    /// Amazon Titan Text Embeddings V2.
    TitanEmbedV2,
    /// Cohere Embed v3.
    CohereEmbedV3,
    /// Cohere Embed v4.
    CohereEmbedV4,
}

const FORMATS: [(&str, BodyFormat); 12] = [
    ("anthropic.", BodyFormat::Messages),
    ("amazon.nova-", BodyFormat::Nova),
    ("amazon.titan-embed-text-v2", BodyFormat::TitanEmbedV2),
    ("amazon.titan-embed-text-", BodyFormat::TitanEmbedV1),
    ("amazon.titan-embed-g1-text-", BodyFormat::TitanEmbedV1),
    ("cohere.embed-v4", BodyFormat::CohereEmbedV4),
    ("cohere.embed-", BodyFormat::CohereEmbedV3),
    ("meta.llama", BodyFormat::Llama),
    ("openai.", BodyFormat::Chat),
    ("mistral.", BodyFormat::Chat),
    ("qwen.", BodyFormat::Chat),
    ("deepseek.", BodyFormat::Chat),
];

impl BodyFormat {
    /// Returns the format for a model id, an inference profile or an ARN. Ids without a provider (a
    /// provisioned throughput, an application inference profile) and ids of the simulator use
    /// Messages. Other providers have no format.
    pub(super) fn for_model(model_id: &str) -> Option<Self> {
        let name = resource_name(model_id);
        if name.starts_with("sim.") || !name.contains('.') {
            return Some(Self::Messages);
        }
        let base = without_geography(name);
        FORMATS.iter().find(|(prefix, _)| base.starts_with(prefix)).map(|(_, format)| *format)
    }

    /// Returns whether the format is for embeddings.
    pub(super) fn is_embedding(self) -> bool {
        matches!(self, Self::TitanEmbedV1 | Self::TitanEmbedV2 | Self::CohereEmbedV3 | Self::CohereEmbedV4)
    }
}

/// Returns whether CountTokens accepts the id. As on Bedrock, it accepts foundation models and no
/// inference profiles.
pub(super) fn is_countable(model_id: &str) -> bool {
    let is_foundation = !model_id.starts_with("arn:") || model_id.contains(":foundation-model/");
    is_foundation && without_geography(resource_name(model_id)) == resource_name(model_id)
}

/// Returns the resource name of an ARN, or the id itself.
fn resource_name(model_id: &str) -> &str {
    let resource = model_id.starts_with("arn:").then(|| model_id.rsplit_once('/')).flatten();
    resource.map_or(model_id, |(_, name)| name)
}

const GEOGRAPHIES: [&str; 8] = ["us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"];

/// Returns the model id of an inference profile: `amazon.nova-lite-v1:0` for
/// `eu.amazon.nova-lite-v1:0`.
fn without_geography(name: &str) -> &str {
    name.split_once('.').filter(|(first, _)| GEOGRAPHIES.contains(first)).map_or(name, |(_, base)| base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_model_id_has_its_format() {
        for (model_id, expected) in [
            ("anthropic.claude-haiku-4-5-20251001-v1:0", Some(BodyFormat::Messages)),
            ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", Some(BodyFormat::Messages)),
            ("eu.amazon.nova-lite-v1:0", Some(BodyFormat::Nova)),
            (
                "arn:aws:bedrock:eu-west-1::foundation-model/amazon.titan-embed-text-v2:0",
                Some(BodyFormat::TitanEmbedV2),
            ),
            ("amazon.titan-embed-text-v1", Some(BodyFormat::TitanEmbedV1)),
            (
                "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.cohere.embed-v4:0",
                Some(BodyFormat::CohereEmbedV4),
            ),
            ("cohere.embed-multilingual-v3", Some(BodyFormat::CohereEmbedV3)),
            ("us.meta.llama4-scout-17b-instruct-v1:0", Some(BodyFormat::Llama)),
            ("openai.gpt-oss-120b-1:0", Some(BodyFormat::Chat)),
            ("arn:aws:bedrock:us-east-1:000000000000:provisioned-model/abcdefghijkl", Some(BodyFormat::Messages)),
            ("sim.slow", Some(BodyFormat::Messages)),
            ("amazon.titan-image-generator-v2:0", None),
            ("ai21.jamba-1-5-large-v1:0", None),
        ] {
            assert_eq!(BodyFormat::for_model(model_id), expected, "{model_id}");
        }
    }

    #[test]
    fn only_foundation_models_are_countable() {
        assert!(is_countable("anthropic.claude-haiku-4-5-20251001-v1:0") && is_countable("m"));
        assert!(is_countable("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0"));
        assert!(!is_countable("us.anthropic.claude-haiku-4-5-20251001-v1:0"));
        assert!(!is_countable("arn:aws:bedrock:us-east-1:000000000000:provisioned-model/abcdefghijkl"));
    }
}
