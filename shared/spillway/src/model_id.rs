//! Parsing of Bedrock model ids.

/// Returns the ways to read `id` as a provider and its model: `anthropic.claude-…`, and the same
/// after the region of an inference profile. Accepts the ARNs of both; other ARNs do not name a
/// model.
pub fn provider_and_model(id: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = name(id).and_then(|name| name.split_once('.'));
    parts.into_iter().flat_map(|(first, rest)| [Some((first, rest)), rest.split_once('.')].into_iter().flatten())
}

fn name(id: &str) -> Option<&str> {
    let Some(arn) = id.strip_prefix("arn:") else { return Some(id) };
    let resource = arn.splitn(5, ':').nth(4)?;
    resource.strip_prefix("foundation-model/").or_else(|| resource.strip_prefix("inference-profile/"))
}

/// Regions and groups of regions that inference profiles are named after (Amazon Bedrock User
/// Guide, "Supported Regions and models for inference profiles").
const REGIONS: [&str; 8] = ["us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"];

/// Returns the foundation model of `id`: the id itself, or that of an inference profile without its
/// region; `None` for an ARN that does not name a model.
pub fn foundation_model(id: &str) -> Option<&str> {
    let name = name(id)?;
    match name.split_once('.') {
        Some((region, model)) if REGIONS.contains(&region) => Some(model),
        _ => Some(name),
    }
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
}
