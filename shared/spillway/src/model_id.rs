//! Parsing of Bedrock model ids.

/// Returns the ways to read `id` as a provider and its model: `anthropic.claude-…`, and the same
/// after the region of an inference profile. Accepts the ARNs of both; other ARNs do not name a
/// model.
pub fn provider_and_model(id: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = model_name(id).and_then(|name| name.split_once('.'));
    parts.into_iter().flat_map(|(first, rest)| [Some((first, rest)), rest.split_once('.')].into_iter().flatten())
}

/// Returns the id of a model or of a cross-region inference profile, without the ARN around it;
/// `None` for an ARN that does not name a model.
pub fn model_name(id: &str) -> Option<&str> {
    let Some(arn) = id.strip_prefix("arn:") else { return Some(id) };
    let resource = arn.splitn(5, ':').nth(4)?;
    resource.strip_prefix("foundation-model/").or_else(|| resource.strip_prefix("inference-profile/"))
}

/// Geographies that cross-region inference profiles are named after (Amazon Bedrock User Guide,
/// "Supported Regions and models for inference profiles"). AWS adds geographies, so another prefix
/// counts as one if a known provider follows it.
const GEOGRAPHIES: [&str; 8] = ["us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"];

/// Providers of foundation models (Amazon Bedrock User Guide, "Supported foundation models in
/// Amazon Bedrock").
const PROVIDERS: [&str; 19] = [
    "ai21",
    "amazon",
    "anthropic",
    "cohere",
    "deepseek",
    "google",
    "luma",
    "meta",
    "minimax",
    "mistral",
    "moonshot",
    "moonshotai",
    "nvidia",
    "openai",
    "qwen",
    "stability",
    "twelvelabs",
    "writer",
    "zai",
];

/// Returns the foundation model of `id`: the id itself, or that of an inference profile without its
/// geography; `None` for an ARN that does not name a model.
pub fn foundation_model(id: &str) -> Option<&str> {
    let name = model_name(id)?;
    Some(split_geography(name).map_or(name, |(_, model)| model))
}

/// Returns the geography that an inference profile is named after, such as `eu` or `global`; `None`
/// if `id` is none of a cross-region inference profile.
pub fn geography(id: &str) -> Option<&str> {
    split_geography(model_name(id)?).map(|(geography, _)| geography)
}

/// Returns the model that `id` calls, for comparison with another id: without its geography and
/// without the length of its context, as in `…-v1:0:200k`. `None` if its provider is not known, or
/// if it is an ARN that does not name a model.
pub fn base_model(id: &str) -> Option<&str> {
    let model = foundation_model(id).filter(|model| has_provider(model))?;
    let context = model.match_indices(':').nth(1).map(|(at, _)| at);
    Some(&model[..context.unwrap_or(model.len())])
}

/// Returns the region in an ARN; `None` for other ids, and for ARNs without a region.
pub fn region_of_arn(id: &str) -> Option<&str> {
    id.strip_prefix("arn:")?.split(':').nth(2).filter(|region| !region.is_empty())
}

/// Returns the type of the resource that an ARN names, such as `provisioned-model`.
pub fn resource_type(id: &str) -> Option<&str> {
    let resource = id.strip_prefix("arn:")?.splitn(5, ':').nth(4)?;
    resource.split_once('/').map(|(resource_type, _)| resource_type)
}

/// Whether `model` begins with a known provider.
pub fn has_provider(model: &str) -> bool {
    model.split_once('.').is_some_and(|(provider, _)| PROVIDERS.contains(&provider))
}

fn split_geography(name: &str) -> Option<(&str, &str)> {
    name.split_once('.').filter(|(first, rest)| GEOGRAPHIES.contains(first) || has_provider(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_names_the_model_after_its_region() {
        assert_eq!(foundation_model("us.anthropic.claude-opus-4-7"), Some("anthropic.claude-opus-4-7"));
        assert_eq!(foundation_model("zai.glm-4.7"), Some("zai.glm-4.7"));
        let arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.amazon.nova-2-lite-v1:0";
        assert_eq!(foundation_model(arn), Some("amazon.nova-2-lite-v1:0"));
        assert_eq!(foundation_model("arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc"), None);
    }

    #[test]
    fn a_prefix_before_a_known_provider_is_a_geography() {
        let arn = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0";
        for (id, wanted) in [
            ("us-gov.anthropic.claude-3-haiku-20240307-v1:0", Some("us-gov")),
            ("global.anthropic.claude-opus-4-7", Some("global")),
            ("sa.amazon.nova-lite-v1:0", Some("sa")),
            (arn, Some("eu")),
            ("anthropic.claude-opus-4-7", None),
            ("zai.glm-4.7", None),
            ("arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-lite-v1:0", None),
            ("arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc", None),
        ] {
            assert_eq!(geography(id), wanted, "{id}");
        }
        assert_eq!(region_of_arn(arn), Some("eu-west-1"));
        assert_eq!((region_of_arn("amazon.nova"), resource_type("amazon.nova-lite-v1:0")), (None, None));
        assert_eq!(resource_type(arn), Some("inference-profile"));
    }

    #[test]
    fn ids_of_one_model_have_the_same_base_model() {
        let haiku = Some("anthropic.claude-3-haiku-20240307-v1:0");
        for id in [
            "anthropic.claude-3-haiku-20240307-v1:0",
            "anthropic.claude-3-haiku-20240307-v1:0:200k",
            "us.anthropic.claude-3-haiku-20240307-v1:0",
            "arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0:48k",
            "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-3-haiku-20240307-v1:0",
        ] {
            assert_eq!(base_model(id), haiku, "{id}");
        }
        assert_eq!(base_model("us.anthropic.claude-opus-4-7"), Some("anthropic.claude-opus-4-7"));
        for unknown in ["arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc", "second", "sim.model"] {
            assert_eq!(base_model(unknown), None, "{unknown}");
        }
    }
}
