//! Service tiers of Bedrock.

use serde::{Deserialize, Serialize};

/// Value of `serviceTier.type` (Amazon Bedrock API Reference, "ServiceTier").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// The standard tier.
    Default,
    /// Half the price, for requests that may be delayed.
    Flex,
    /// A higher price, for requests that are served first.
    Priority,
    /// Reserved capacity.
    Reserved,
    /// Any other value. It makes the entry invalid.
    #[serde(untagged)]
    Unknown(String),
}

impl ServiceTier {
    /// Returns the value as Bedrock spells it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Default => "default",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Reserved => "reserved",
            Self::Unknown(tier) => tier,
        }
    }

    /// Returns the price as a multiple of the default tier's.
    pub(super) fn price(&self) -> f64 {
        match self {
            Self::Flex => 0.5,
            Self::Priority => 1.75,
            Self::Default | Self::Reserved | Self::Unknown(_) => 1.0,
        }
    }
}
