//! Prompt: the parts of a request that the simulator uses, independent of the body format.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::{Map, Value};

use super::{
    call_log::Caller,
    guardrail::GuardrailReference,
    output_members::AnswerCount,
    problem::Problem,
    prompt_cache::{CacheTtl, PromptPart},
    thinking::Thinking,
    tokens,
};

/// Parts of a request that determine the answer and the statistics.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Prompt {
    /// Tools, system prompt and messages, in the order in which the model reads them.
    pub parts: Vec<PromptPart>,
    /// Text of the last user message.
    pub question: String,
    /// Complete text, line by line.
    pub text: String,
    /// Text that is marked for the guardrail.
    pub marked_text: Option<String>,
    /// Names of the tools that the model may call.
    pub tools: Vec<String>,
    /// Name of the tool that the model must call.
    pub forced_tool: Option<String>,
    /// Whether an answer may have at most one tool call.
    pub single_tool: bool,
    /// Extended thinking, if enabled.
    pub thinking: Option<Thinking>,
    /// Effort of the model: `low` to `max`.
    pub effort: Option<String>,
    /// JSON schema that the answer must satisfy.
    pub schema: Option<Value>,
    /// Selected guardrail.
    pub guardrail: Option<GuardrailReference>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Maximum output tokens of an answer.
    pub max_tokens: Option<u64>,
    /// Number of answers.
    pub answers: AnswerCount,
    /// Sequences that end the answer.
    pub stop_sequences: Vec<String>,
    /// Caller, from `requestMetadata`.
    pub caller: Caller,
    /// Requested service tier.
    pub service_tier: Option<String>,
    /// Requested latency.
    pub latency: Option<String>,
}

impl Prompt {
    /// Creates a prompt for embeddings, whose response has no output tokens.
    pub fn for_embedding() -> Self {
        Self { max_tokens: Some(0), ..Self::default() }
    }

    /// Returns the text that a guardrail checks: the marked text, or the complete text without
    /// marks.
    pub fn guarded_text(&self) -> &str {
        self.marked_text.as_deref().unwrap_or(&self.text)
    }

    /// Returns all input tokens, cached or not.
    pub fn input_tokens(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| match part {
            PromptPart::Content { tokens, .. } => sum + tokens,
            PromptPart::CachePoint { .. } => sum,
        })
    }

    /// Returns a hash of the content.
    pub fn fingerprint(&self) -> u64 {
        let fingerprints: Vec<u64> = self
            .parts
            .iter()
            .map(|part| match part {
                PromptPart::Content { fingerprint, .. } => *fingerprint,
                PromptPart::CachePoint { .. } => 0,
            })
            .collect();
        fingerprint(&fingerprints)
    }

    /// Adds the start of a message.
    pub fn add_message(&mut self, role: &str) {
        self.add(tokens::MESSAGE_TOKENS, &role);
    }

    /// Adds a text.
    pub fn add_text(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
        self.add(tokens::text_tokens(text), &text);
    }

    /// Adds a text that is marked for the guardrail.
    pub fn add_marked_text(&mut self, text: &str) {
        self.add_text(text);
        let marked = self.marked_text.get_or_insert_default();
        marked.push_str(text);
        marked.push('\n');
    }

    /// Adds an image that is given as a text, such as a data URL.
    pub fn add_image(&mut self, image: &str) {
        self.add(tokens::IMAGE_TOKENS, &image);
    }

    /// Adds a JSON value.
    pub fn add_json(&mut self, value: &Value) {
        self.add(tokens::json_tokens(value), &value.to_string());
    }

    /// Adds a block with a fixed number of tokens.
    pub fn add_fixed(&mut self, tokens: u64, block: &Map<String, Value>) {
        self.add(tokens, &Value::Object(block.clone()).to_string());
    }

    /// Adds a tool call.
    pub fn add_tool_use(&mut self, name: &str, input: &Value) {
        let input = input.to_string();
        self.add(tokens::tool_use_tokens(name, &input), &(name, &input));
    }

    /// Adds a cache point.
    pub fn add_cache_point(&mut self, ttl: Option<&str>) {
        self.parts.push(PromptPart::CachePoint { ttl: CacheTtl::from_name(ttl) });
    }

    fn add(&mut self, tokens: u64, content: &impl Hash) {
        self.parts.push(PromptPart::Content { tokens, fingerprint: fingerprint(content) });
    }
}

fn fingerprint(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// Reads the caller from request metadata.
///
/// # Errors
/// Returns an error if Bedrock does not accept the metadata.
pub(super) fn parse_caller(metadata: &BTreeMap<String, String>) -> Result<Caller, Problem> {
    let fits = |text: &str| {
        text.len() <= 256 && text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || ":_@$#=/+,-.".contains(c))
    };
    let pairs_fit = metadata.iter().all(|(key, value)| !key.is_empty() && fits(key) && fits(value));
    if metadata.is_empty() || metadata.len() > 16 || !pairs_fit {
        return Err(Problem::invalid(
            "1 validation error detected: Value at 'requestMetadata' failed to satisfy constraint: Map must have \
             between 1 and 16 pairs, keys of 1 to 256 and values of 0 to 256 letters, digits, blanks or :_@$#=/+,-.",
        ));
    }
    let named = |name: &str| metadata.get(name).cloned();
    Ok(Caller { tenant: named("tenant"), request_id: named("request_id"), ..Caller::default() })
}
