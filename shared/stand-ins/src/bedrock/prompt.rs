//! What the simulator understands of a request, whichever body it came in.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::{Map, Value};

use super::{
    cache::{Lifetime, Part},
    guardrail::Attached,
    log::Caller,
    problem::Problem,
    thinking::Thinking,
    tokens,
};

/// A request, reduced to what the answer and the account depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Prompt {
    /// Tools, system prompt and messages, in the order in which the model reads them.
    pub parts: Vec<Part>,
    /// The text of the last user message.
    pub question: String,
    /// Everything said, line by line.
    pub said: String,
    /// What of it was marked for the guardrail.
    pub marked: Option<String>,
    /// The names of the tools that the model may call.
    pub tools: Vec<String>,
    /// The tool that it must call.
    pub forced_tool: Option<String>,
    /// Whether at most one tool may be called in one answer.
    pub one_tool_at_a_time: bool,
    pub thinking: Option<Thinking>,
    /// How hard the model should try: `low` to `max`.
    pub effort: Option<String>,
    /// The JSON schema that the answer must satisfy.
    pub schema: Option<Value>,
    pub guardrail: Option<Attached>,
    pub temperature: Option<f64>,
    pub max_tokens: Option<u64>,
    pub stop_sequences: Vec<String>,
    /// What `requestMetadata` says of who calls.
    pub caller: Caller,
    pub service_tier: Option<String>,
    pub latency: Option<String>,
}

impl Prompt {
    /// A prompt that is answered by vectors, of which none is a token.
    pub fn for_embedding() -> Self {
        Self { max_tokens: Some(0), ..Self::default() }
    }

    /// What a guardrail assesses: the texts that were marked for it, or all if none was.
    pub fn guarded(&self) -> &str {
        self.marked.as_deref().unwrap_or(&self.said)
    }

    /// Every token of the input, cached or not.
    pub fn input_tokens(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| match part {
            Part::Content { tokens, .. } => sum + tokens,
            Part::CachePoint { .. } => sum,
        })
    }

    pub fn fingerprint(&self) -> u64 {
        let fingerprints: Vec<u64> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Content { fingerprint, .. } => *fingerprint,
                Part::CachePoint { .. } => 0,
            })
            .collect();
        fingerprint(&fingerprints)
    }

    pub fn add_message(&mut self, role: &str) {
        self.add(tokens::MESSAGE_TOKENS, &role);
    }

    pub fn add_text(&mut self, text: &str) {
        self.said.push_str(text);
        self.said.push('\n');
        self.add(tokens::text_tokens(text), &text);
    }

    /// A text that is marked for the guardrail.
    pub fn add_marked_text(&mut self, text: &str) {
        self.add_text(text);
        let marked = self.marked.get_or_insert_default();
        marked.push_str(text);
        marked.push('\n');
    }

    /// An image that is given as a text, such as a data URL.
    pub fn add_image(&mut self, image: &str) {
        self.add(tokens::IMAGE_TOKENS, &image);
    }

    pub fn add_json(&mut self, value: &Value) {
        self.add(tokens::json_tokens(value), &value.to_string());
    }

    pub fn add_fixed(&mut self, tokens: u64, block: &Map<String, Value>) {
        self.add(tokens, &Value::Object(block.clone()).to_string());
    }

    pub fn add_tool_use(&mut self, name: &str, input: &Value) {
        let input = input.to_string();
        self.add(tokens::tool_use_tokens(name, &input), &(name, &input));
    }

    pub fn add_cache_point(&mut self, ttl: Option<&str>) {
        self.parts.push(Part::CachePoint { lifetime: Lifetime::of(ttl) });
    }

    fn add(&mut self, tokens: u64, content: &impl Hash) {
        self.parts.push(Part::Content { tokens, fingerprint: fingerprint(content) });
    }
}

fn fingerprint(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// Checks the pairs that go to the invocation log and finds the caller among them.
pub(super) fn caller_of(metadata: &BTreeMap<String, String>) -> Result<Caller, Problem> {
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
    Ok(Caller { tenant: named("tenant"), request_id: named("request_id"), app: None })
}
