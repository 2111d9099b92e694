//! The ways in which a region fails.

use serde_json::{Value, json};

use super::{deployment::Deployment, gate::Mode};

/// Silence of models that are silent. It is longer than every timeout.
pub const SILENCE_MS: u64 = 600_000;

/// A failure of the near region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// It resets each connection once it is made.
    Drops,
    /// It refuses connections.
    Refuses,
    /// It accepts connections and is silent.
    Hangs,
    /// Its models accept calls and are silent.
    Stalls,
    /// It answers with 503.
    Unavailable,
    /// It throttles each call.
    Throttles,
    /// It denies access.
    Denies,
    /// Its provisioned throughput does not exist any more.
    LosesProvisioned,
}

impl Fault {
    /// All failures.
    pub const ALL: [Self; 8] = [
        Self::Drops,
        Self::Refuses,
        Self::Hangs,
        Self::Stalls,
        Self::Unavailable,
        Self::Throttles,
        Self::Denies,
        Self::LosesProvisioned,
    ];

    /// Description for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drops => "resets connections",
            Self::Refuses => "refuses connections",
            Self::Hangs => "accepts connections, is silent",
            Self::Stalls => "models are silent",
            Self::Unavailable => "answers with 503",
            Self::Throttles => "throttles",
            Self::Denies => "denies access",
            Self::LosesProvisioned => "loses its provisioned pool",
        }
    }

    /// Whether the brokers report it as an outage. Pools that throttle are only tried last.
    pub fn is_outage(self) -> bool {
        self != Self::Throttles
    }

    /// Makes the near region fail.
    ///
    /// # Errors
    /// Returns an error if its control API does not answer.
    pub async fn begin(self, deployment: &Deployment) -> anyhow::Result<()> {
        let gate = match self {
            Self::Drops => Mode::Resets,
            Self::Refuses => Mode::Refuses,
            Self::Hangs => Mode::Hangs,
            _ => Mode::Open,
        };
        deployment.near.gate.set(gate);
        let Some(effect) = self.effect() else { return Ok(()) };
        let pools: &[&str] =
            if self == Self::LosesProvisioned { &["near.provisioned"] } else { &super::deployment::NEAR };
        for pool in pools {
            let mut fault = effect.clone();
            fault["model_id"] = json!(pool);
            deployment.near.inject(&fault).await?;
        }
        Ok(())
    }

    /// Makes the near region work again.
    ///
    /// # Errors
    /// Returns an error if its control API does not answer.
    pub async fn end(deployment: &Deployment) -> anyhow::Result<()> {
        deployment.near.clear().await?;
        deployment.near.gate.set(Mode::Open);
        Ok(())
    }

    /// The fault of the simulator's models.
    fn effect(self) -> Option<Value> {
        match self {
            Self::Drops | Self::Refuses | Self::Hangs => None,
            Self::Stalls => Some(json!({ "silent_ms": SILENCE_MS })),
            Self::Unavailable => Some(json!({ "unavailable": true })),
            Self::Throttles => Some(json!({ "throttle": true })),
            Self::Denies => Some(json!({ "error": "AccessDeniedException" })),
            Self::LosesProvisioned => Some(json!({ "error": "ResourceNotFoundException" })),
        }
    }
}
