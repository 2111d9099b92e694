//! Settings of the simulator: timing, length of answers, pools and guardrails.

use serde::Deserialize;

use super::{
    body_format::{self, BodyFormat},
    faults::Fault,
};

/// Maximum output tokens of a model whose pool sets no maximum. Bedrock reserves this number for a
/// request without `maxTokens`.
pub const DEFAULT_MAX_OUTPUT_TOKENS: u64 = 64_000;

const DEFAULT_OUTPUT_TOKENS: u64 = 64;

/// Settings of the simulator. `Simulator::default()` answers immediately and serves every model id
/// without limits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Simulator {
    /// Time from the start of a call to its first token.
    pub time_to_first_token_ms: u64,
    /// Tokens per second after the first token; 0 for no delay.
    pub tokens_per_second: u64,
    /// Length of an answer if the prompt requests none; 0 for the default of 64.
    pub output_tokens: u64,
    /// Whether the simulator keeps all calls for `GET /_sim/calls`.
    pub call_log: bool,
    /// Served model ids. If empty, every id is served without limits. Otherwise, ids that are
    /// neither here nor begin with `sim.` get `ResourceNotFoundException`.
    pub pools: Vec<SimulatedPool>,
    /// Guardrails. If empty, every id is a guardrail that blocks `sim-blocked`.
    pub guardrails: Vec<SimulatedGuardrail>,
}

/// A guardrail with all its versions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedGuardrail {
    /// Id without the rest of the ARN.
    pub id: String,
    /// Words that block a text; `sim-blocked` if absent.
    #[serde(default = "default_blocked_words")]
    pub blocked_words: Vec<String>,
    /// Text that replaces a blocked text.
    #[serde(default = "default_message")]
    pub message: String,
}

/// A source of capacity: a model id, an inference profile, or the ARN of a provisioned throughput.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedPool {
    /// Id as clients send it, percent-decoded.
    pub model_id: String,
    /// Quota tokens per minute (see `capacity`); unlimited if absent.
    #[serde(default)]
    pub tokens_per_minute: Option<u64>,
    /// Requests per minute; unlimited if absent.
    #[serde(default)]
    pub requests_per_minute: Option<u64>,
    /// Concurrent requests, as limited by provisioned units; unlimited if absent.
    #[serde(default)]
    pub in_flight: Option<u64>,
    /// Quota tokens per output token at settlement: 5 for Claude 3.7 and later, otherwise 1.
    #[serde(default = "default_burndown")]
    pub burndown: u64,
    /// Maximum `maxTokens` of the model; 64,000 if absent.
    #[serde(default)]
    pub max_output_tokens: Option<u64>,
    /// Overrides [`Simulator::time_to_first_token_ms`].
    #[serde(default)]
    pub time_to_first_token_ms: Option<u64>,
    /// Overrides [`Simulator::tokens_per_second`].
    #[serde(default)]
    pub tokens_per_second: Option<u64>,
    /// Format of its InvokeModel bodies if the id does not determine it: `messages`, `nova`,
    /// `llama`, `chat`, `titan-embed-v1`, `titan-embed-v2`, `cohere-embed-v3`, `cohere-embed-v4`.
    #[serde(default)]
    pub body: Option<BodyFormat>,
    /// Whether CountTokens refuses the model, as it refuses all inference profiles and embedding
    /// models.
    #[serde(default)]
    pub uncountable: bool,
    /// Fault of this pool from the start. Its `model_id` must be absent.
    #[serde(default)]
    pub fault: Option<Fault>,
}

/// Speed at which a call produces tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    /// Time from the start of a call to its first token.
    pub time_to_first_token_ms: u64,
    /// Tokens per second after the first token; 0 for no delay.
    pub tokens_per_second: u64,
}

impl Simulator {
    /// Returns the length of an answer if the prompt requests none.
    pub(super) fn default_output_tokens(&self) -> u64 {
        if self.output_tokens == 0 { DEFAULT_OUTPUT_TOKENS } else { self.output_tokens }
    }

    /// Returns whether the simulator serves a model.
    pub(super) fn serves(&self, model_id: &str) -> bool {
        self.pools.is_empty() || model_id.starts_with("sim.") || self.pool(model_id).is_some()
    }

    /// Returns the maximum `maxTokens` of a model.
    pub(super) fn max_output_tokens(&self, model_id: &str) -> u64 {
        self.pool(model_id).and_then(|pool| pool.max_output_tokens).unwrap_or(DEFAULT_MAX_OUTPUT_TOKENS)
    }

    /// Returns the token speed of a model.
    pub(super) fn timing(&self, model_id: &str) -> Timing {
        let pool = self.pool(model_id);
        let is_slow = super::faults::behaviour(model_id) == Some("slow");
        let (first_ms, per_second) =
            if is_slow { (2_000, 10) } else { (self.time_to_first_token_ms, self.tokens_per_second) };
        Timing {
            time_to_first_token_ms: pool.and_then(|pool| pool.time_to_first_token_ms).unwrap_or(first_ms),
            tokens_per_second: pool.and_then(|pool| pool.tokens_per_second).unwrap_or(per_second),
        }
    }

    /// Returns the format of the InvokeModel bodies of a model, if it is known.
    pub(super) fn format(&self, model_id: &str) -> Option<BodyFormat> {
        self.pool(model_id).and_then(|pool| pool.body).or_else(|| BodyFormat::for_model(model_id))
    }

    /// Returns whether CountTokens accepts a model.
    pub(super) fn counts_tokens(&self, model_id: &str) -> bool {
        let refuses = self.pool(model_id).is_some_and(|pool| pool.uncountable)
            || super::faults::behaviour(model_id) == Some("uncountable")
            || self.format(model_id).is_some_and(BodyFormat::is_embedding);
        !refuses && body_format::is_countable(model_id)
    }

    /// Returns a guardrail.
    pub(super) fn guardrail(&self, id: &str) -> Option<SimulatedGuardrail> {
        if self.guardrails.is_empty() {
            return Some(SimulatedGuardrail {
                id: id.to_owned(),
                blocked_words: default_blocked_words(),
                message: default_message(),
            });
        }
        self.guardrails.iter().find(|guardrail| guardrail.id == id).cloned()
    }

    fn pool(&self, model_id: &str) -> Option<&SimulatedPool> {
        self.pools.iter().find(|pool| pool.model_id == model_id)
    }
}

impl Timing {
    /// Returns the milliseconds from the start of the call until `tokens` tokens are produced.
    pub fn elapsed_ms(&self, tokens: u64) -> u64 {
        let producing_ms = tokens.saturating_mul(1_000).checked_div(self.tokens_per_second).unwrap_or(0);
        self.time_to_first_token_ms.saturating_add(producing_ms)
    }
}

fn default_blocked_words() -> Vec<String> {
    vec!["sim-blocked".to_owned()]
}

fn default_message() -> String {
    "Sorry, the model cannot answer this question.".to_owned()
}

fn default_burndown() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_toml() {
        let simulator: Simulator = toml::from_str(
            r#"
            time_to_first_token_ms = 200
            tokens_per_second = 50
            [[pools]]
            model_id = "unit"
            in_flight = 4
            tokens_per_second = 100
            [[pools]]
            model_id = "shared"
            tokens_per_minute = 90_000
            burndown = 5
            body = "titan-embed-v2"
            fault = { throttle = 0.25, times = 3 }
            "#,
        )
        .unwrap();
        assert_eq!(simulator.timing("unit").elapsed_ms(10), 300);
        assert_eq!(simulator.timing("shared").elapsed_ms(10), 400);
        assert_eq!((simulator.pools[0].burndown, simulator.pools[1].burndown), (1, 5));
        assert!(simulator.serves("unit") && simulator.serves("sim.slow") && !simulator.serves("other"));
        assert!(simulator.pools[1].fault.is_some());
        assert_eq!(simulator.format("shared"), Some(BodyFormat::TitanEmbedV2));
        assert!(simulator.counts_tokens("unit") && !simulator.counts_tokens("shared"));
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        assert!(toml::from_str::<Simulator>("token_per_second = 1").is_err());
        assert!(toml::from_str::<Simulator>("[[pools]]\nmodel_id = \"a\"\nrpm = 1").is_err());
    }
}
