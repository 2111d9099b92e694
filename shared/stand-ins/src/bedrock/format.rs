//! The bodies that InvokeModel carries: each provider has its own, and the model id says which.

use serde::Deserialize;

/// One format of InvokeModel's bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Anthropic Messages.
    Messages,
    /// Amazon Nova: Converse's members in a body of its own.
    Nova,
    /// Meta Llama: one prompt, one generation.
    Llama,
    /// Chat completions as OpenAI, Mistral, Qwen and DeepSeek speak them.
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

const FORMATS: [(&str, Format); 12] = [
    ("anthropic.", Format::Messages),
    ("amazon.nova-", Format::Nova),
    ("amazon.titan-embed-text-v2", Format::TitanEmbedV2),
    ("amazon.titan-embed-text-", Format::TitanEmbedV1),
    ("amazon.titan-embed-g1-text-", Format::TitanEmbedV1),
    ("cohere.embed-v4", Format::CohereEmbedV4),
    ("cohere.embed-", Format::CohereEmbedV3),
    ("meta.llama", Format::Llama),
    ("openai.", Format::Chat),
    ("mistral.", Format::Chat),
    ("qwen.", Format::Chat),
    ("deepseek.", Format::Chat),
];

impl Format {
    /// The format of a model id, an inference profile or an ARN that names one. An id without a provider (a provisioned
    /// throughput, an application's profile) or of the simulator's own is taken for Messages; nothing is known of the
    /// models of other providers.
    pub(super) fn of(model_id: &str) -> Option<Self> {
        let name = name(model_id);
        if name.starts_with("sim.") || !name.contains('.') {
            return Some(Self::Messages);
        }
        let base = without_geography(name);
        FORMATS.iter().find(|(prefix, _)| base.starts_with(prefix)).map(|(_, format)| *format)
    }

    pub(super) fn is_embedding(self) -> bool {
        matches!(self, Self::TitanEmbedV1 | Self::TitanEmbedV2 | Self::CohereEmbedV3 | Self::CohereEmbedV4)
    }
}

/// Whether CountTokens takes the id: as on Bedrock, those of foundation models only, so no inference profile.
pub(super) fn is_countable(model_id: &str) -> bool {
    let is_foundation = !model_id.starts_with("arn:") || model_id.contains(":foundation-model/");
    is_foundation && without_geography(name(model_id)) == name(model_id)
}

/// What an ARN names, or the id itself.
fn name(model_id: &str) -> &str {
    let resource = model_id.starts_with("arn:").then(|| model_id.rsplit_once('/')).flatten();
    resource.map_or(model_id, |(_, name)| name)
}

const GEOGRAPHIES: [&str; 8] = ["us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"];

/// `eu.amazon.nova-lite-v1:0` is an inference profile of `amazon.nova-lite-v1:0`.
fn without_geography(name: &str) -> &str {
    name.split_once('.').filter(|(first, _)| GEOGRAPHIES.contains(first)).map_or(name, |(_, base)| base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_id_tells_its_format_in_every_form() {
        for (model_id, expected) in [
            ("anthropic.claude-haiku-4-5-20251001-v1:0", Some(Format::Messages)),
            ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", Some(Format::Messages)),
            ("eu.amazon.nova-lite-v1:0", Some(Format::Nova)),
            ("arn:aws:bedrock:eu-west-1::foundation-model/amazon.titan-embed-text-v2:0", Some(Format::TitanEmbedV2)),
            ("amazon.titan-embed-text-v1", Some(Format::TitanEmbedV1)),
            (
                "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.cohere.embed-v4:0",
                Some(Format::CohereEmbedV4),
            ),
            ("cohere.embed-multilingual-v3", Some(Format::CohereEmbedV3)),
            ("us.meta.llama4-scout-17b-instruct-v1:0", Some(Format::Llama)),
            ("openai.gpt-oss-120b-1:0", Some(Format::Chat)),
            ("arn:aws:bedrock:us-east-1:000000000000:provisioned-model/abcdefghijkl", Some(Format::Messages)),
            ("sim.slow", Some(Format::Messages)),
            ("amazon.titan-image-generator-v2:0", None),
            ("ai21.jamba-1-5-large-v1:0", None),
        ] {
            assert_eq!(Format::of(model_id), expected, "{model_id}");
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
