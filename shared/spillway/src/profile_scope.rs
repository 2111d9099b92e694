//! Where Bedrock may process a call: in one region, in the regions of a geography, or anywhere.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::model_id::{foundation_model, geography, has_provider, resource_type};

/// The regions in which Bedrock may process what a pool is called with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProfileScope {
    /// The region that is called. A foundation model, or a provisioned throughput.
    InRegion,
    /// The regions of a geography, such as `eu`: a geographic cross-region inference profile.
    Geography(String),
    /// All commercial regions: a global cross-region inference profile.
    Global,
}

/// Maximum length of the name of a geography. The longest known name is `us-gov`.
const MAX_GEOGRAPHY: usize = 8;

impl ProfileScope {
    /// Returns the scope of a Bedrock model id, an inference profile, or the ARN of either or of a
    /// provisioned throughput. `None` if the id does not show the scope: an application inference
    /// profile can be made of any other profile.
    pub fn for_model_id(id: &str) -> Option<Self> {
        if let Some(geography) = geography(id) {
            return geography.parse().ok();
        }
        match resource_type(id) {
            Some("provisioned-model") => Some(Self::InRegion),
            _ => foundation_model(id).filter(|model| has_provider(model)).map(|_| Self::InRegion),
        }
    }
}

impl FromStr for ProfileScope {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_geography = |name: &str| {
            (2..=MAX_GEOGRAPHY).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        match name {
            "in_region" => Ok(Self::InRegion),
            "global" => Ok(Self::Global),
            geography if is_geography(geography) => Ok(Self::Geography(geography.to_owned())),
            _ => Err(format!(
                "the scope {name:?} must be in_region, global, or the geography of an inference profile, such as \
                 us, eu, apac, jp, au, ca or us-gov"
            )),
        }
    }
}

impl TryFrom<String> for ProfileScope {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<ProfileScope> for String {
    fn from(scope: ProfileScope) -> Self {
        scope.to_string()
    }
}

impl Display for ProfileScope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::InRegion => "in_region",
            Self::Geography(geography) => geography,
            Self::Global => "global",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_follows_from_the_id_or_is_unknown() {
        let arn = |resource: &str| format!("arn:aws:bedrock:eu-west-1:123456789012:{resource}");
        for (id, wanted) in [
            ("anthropic.claude-opus-4-7".to_owned(), Some("in_region")),
            ("zai.glm-4.7".to_owned(), Some("in_region")),
            ("eu.anthropic.claude-opus-4-7".to_owned(), Some("eu")),
            ("us-gov.anthropic.claude-opus-4-7".to_owned(), Some("us-gov")),
            ("mx.anthropic.claude-opus-4-7".to_owned(), Some("mx")),
            ("global.anthropic.claude-opus-4-7".to_owned(), Some("global")),
            (arn("inference-profile/apac.amazon.nova-lite-v1:0"), Some("apac")),
            (arn("inference-profile/global.amazon.nova-2-lite-v1:0"), Some("global")),
            (arn("provisioned-model/abc"), Some("in_region")),
            ("arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-lite-v1:0".to_owned(), Some("in_region")),
            (arn("application-inference-profile/abc"), None),
            (arn("custom-model-deployment/abc"), None),
            ("mx.newcomer.model-1".to_owned(), None),
            ("nothing".to_owned(), None),
        ] {
            let scope = ProfileScope::for_model_id(&id).map(|scope| scope.to_string());
            assert_eq!(scope.as_deref(), wanted, "{id}");
        }
    }

    #[test]
    fn a_name_that_is_no_scope_is_refused() {
        for name in ["", "in-region", "EU", "eu-west-1", "europe west"] {
            assert!(name.parse::<ProfileScope>().is_err(), "{name}");
        }
        let scope: ProfileScope = serde_json::from_str("\"us-gov\"").expect("a geography");
        assert_eq!(serde_json::to_string(&scope).expect("JSON"), "\"us-gov\"");
    }
}
