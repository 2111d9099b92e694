//! What the simulator is told at start: pace, length of answers, and the pools that it serves.

use serde::Deserialize;

use super::{
    faults::Fault,
    format::{self, Format},
};

/// Output tokens that a model may produce at most, when its pool does not say otherwise. Bedrock reserves this many
/// for a request without `maxTokens`.
pub const MAX_OUTPUT_TOKENS: u64 = 64_000;

const DEFAULT_OUTPUT_TOKENS: u64 = 64;

/// Settings of the whole simulator; `Simulator::default()` answers at once and serves every model id without limits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Simulator {
    /// Time from the start of a call to its first token.
    pub time_to_first_token_ms: u64,
    /// Tokens produced per second after the first; 0 means all at once.
    pub tokens_per_second: u64,
    /// Length of an answer whose prompt asks for none; 0 means the default of 64.
    pub output_tokens: u64,
    /// Whether every call is kept for `GET /_sim/calls`, for as long as the simulator runs.
    pub call_log: bool,
    /// The model ids served. When there are none, any id is served without limits; otherwise an id that is neither
    /// here nor starts with `sim.` is answered with `ResourceNotFoundException`.
    pub pools: Vec<SimulatedPool>,
    /// The guardrails that exist. When there are none, any id is one that blocks `sim-blocked`.
    pub guardrails: Vec<SimulatedGuardrail>,
}

/// A guardrail in all its versions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedGuardrail {
    /// The id, without the rest of its ARN.
    pub id: String,
    /// A text that contains one of these is blocked; `sim-blocked` when absent.
    #[serde(default = "blocked_words")]
    pub blocked_words: Vec<String>,
    /// What is answered instead.
    #[serde(default = "message")]
    pub message: String,
}

/// One source of capacity: a model id, an inference profile, or the ARN of a provisioned throughput.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedPool {
    /// The id as a client names it, percent-decoded.
    pub model_id: String,
    /// Quota tokens per minute (see `capacity`); no limit when absent.
    #[serde(default)]
    pub tokens_per_minute: Option<u64>,
    /// Requests per minute; no limit when absent.
    #[serde(default)]
    pub requests_per_minute: Option<u64>,
    /// Requests at the same time, as provisioned units allow; no limit when absent.
    #[serde(default)]
    pub in_flight: Option<u64>,
    /// Quota tokens per output token at settlement: 5 for Claude 3.7 and later, otherwise 1.
    #[serde(default = "one")]
    pub burndown: u64,
    /// The model's maximum of `maxTokens`; 64,000 when absent.
    #[serde(default)]
    pub max_output_tokens: Option<u64>,
    /// Overrides [`Simulator::time_to_first_token_ms`].
    #[serde(default)]
    pub time_to_first_token_ms: Option<u64>,
    /// Overrides [`Simulator::tokens_per_second`].
    #[serde(default)]
    pub tokens_per_second: Option<u64>,
    /// The format of its InvokeModel bodies, where the id does not tell: `messages`, `nova`, `llama`, `chat`,
    /// `titan-embed-v1`, `titan-embed-v2`, `cohere-embed-v3`, `cohere-embed-v4`.
    #[serde(default)]
    pub body: Option<Format>,
    /// Whether CountTokens refuses the model, as it refuses every inference profile and embeddings.
    #[serde(default)]
    pub uncountable: bool,
    /// What goes wrong on this pool from the start; its `model_id` stays empty.
    #[serde(default)]
    pub fault: Option<Fault>,
}

/// When the tokens of one call come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub time_to_first_token_ms: u64,
    pub tokens_per_second: u64,
}

impl Simulator {
    pub(super) fn default_output_tokens(&self) -> u64 {
        if self.output_tokens == 0 { DEFAULT_OUTPUT_TOKENS } else { self.output_tokens }
    }

    pub(super) fn serves(&self, model_id: &str) -> bool {
        self.pools.is_empty() || model_id.starts_with("sim.") || self.pool(model_id).is_some()
    }

    pub(super) fn max_output_tokens(&self, model_id: &str) -> u64 {
        self.pool(model_id).and_then(|pool| pool.max_output_tokens).unwrap_or(MAX_OUTPUT_TOKENS)
    }

    pub(super) fn pace(&self, model_id: &str) -> Pace {
        let pool = self.pool(model_id);
        let slow = super::faults::behaviour(model_id) == Some("slow");
        let (first_ms, per_second) =
            if slow { (2_000, 10) } else { (self.time_to_first_token_ms, self.tokens_per_second) };
        Pace {
            time_to_first_token_ms: pool.and_then(|pool| pool.time_to_first_token_ms).unwrap_or(first_ms),
            tokens_per_second: pool.and_then(|pool| pool.tokens_per_second).unwrap_or(per_second),
        }
    }

    /// The format of the model's InvokeModel bodies, if any is known.
    pub(super) fn format(&self, model_id: &str) -> Option<Format> {
        self.pool(model_id).and_then(|pool| pool.body).or_else(|| Format::of(model_id))
    }

    pub(super) fn counts_tokens(&self, model_id: &str) -> bool {
        let refuses = self.pool(model_id).is_some_and(|pool| pool.uncountable)
            || super::faults::behaviour(model_id) == Some("uncountable")
            || self.format(model_id).is_some_and(Format::is_embedding);
        !refuses && format::is_countable(model_id)
    }

    pub(super) fn guardrail(&self, id: &str) -> Option<SimulatedGuardrail> {
        if self.guardrails.is_empty() {
            return Some(SimulatedGuardrail { id: id.to_owned(), blocked_words: blocked_words(), message: message() });
        }
        self.guardrails.iter().find(|guardrail| guardrail.id == id).cloned()
    }

    fn pool(&self, model_id: &str) -> Option<&SimulatedPool> {
        self.pools.iter().find(|pool| pool.model_id == model_id)
    }
}

impl Pace {
    /// Milliseconds from the start of the call until `tokens` tokens exist.
    pub fn elapsed_ms(&self, tokens: u64) -> u64 {
        let producing_ms = tokens.saturating_mul(1_000).checked_div(self.tokens_per_second).unwrap_or(0);
        self.time_to_first_token_ms.saturating_add(producing_ms)
    }
}

fn blocked_words() -> Vec<String> {
    vec!["sim-blocked".to_owned()]
}

fn message() -> String {
    "Sorry, the model cannot answer this question.".to_owned()
}

fn one() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toml_file_sets_pools_pace_and_faults() {
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
        assert_eq!(simulator.pace("unit").elapsed_ms(10), 300);
        assert_eq!(simulator.pace("shared").elapsed_ms(10), 400);
        assert_eq!((simulator.pools[0].burndown, simulator.pools[1].burndown), (1, 5));
        assert!(simulator.serves("unit") && simulator.serves("sim.slow") && !simulator.serves("other"));
        assert!(simulator.pools[1].fault.is_some());
        assert_eq!(simulator.format("shared"), Some(Format::TitanEmbedV2));
        assert!(simulator.counts_tokens("unit") && !simulator.counts_tokens("shared"));
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        assert!(toml::from_str::<Simulator>("token_per_second = 1").is_err());
        assert!(toml::from_str::<Simulator>("[[pools]]\nmodel_id = \"a\"\nrpm = 1").is_err());
    }
}
