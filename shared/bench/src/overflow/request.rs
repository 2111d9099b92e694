//! Submitted requests: small requests in every dialect, whole and streamed.

use serde_json::{Value, json};
use spillway::dialect::Dialect;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub dialect: Dialect,
    pub model: String,
    pub is_stream: bool,
    /// Output tokens of the simulator.
    pub output_tokens: u64,
    /// Unique text, so that responses cannot be confused.
    pub text: String,
}

/// Maximum output tokens of a request beyond its actual output tokens.
const SPARE_TOKENS: u64 = 16;

impl Request {
    /// Returns a request of a mix of all dialects and `models`. `number` selects the combination.
    pub fn mixed(number: u64, models: &[&str], text: String, output_tokens: u64) -> Self {
        let models_count = models.len().max(1) as u64;
        let dialect = [Dialect::OpenAi, Dialect::Anthropic, Dialect::Bedrock][(number % 3) as usize];
        let model = models.get((number / 3 % models_count) as usize).copied().unwrap_or_default();
        let is_stream = number / 3 / models_count % 2 == 1;
        Self { dialect, model: model.to_owned(), is_stream, output_tokens, text }
    }

    /// Returns its path.
    pub fn path(&self) -> String {
        match (self.dialect, self.is_stream) {
            (Dialect::OpenAi, _) => "/v1/chat/completions".to_owned(),
            (Dialect::Anthropic, _) => "/v1/messages".to_owned(),
            (Dialect::Bedrock, false) => format!("/model/{}/converse", self.model),
            (Dialect::Bedrock, true) => format!("/model/{}/converse-stream", self.model),
        }
    }

    /// Returns its body.
    pub fn body(&self) -> Value {
        let text = format!("[[output_tokens={}]] {}", self.output_tokens, self.text);
        let (model, stream, max_tokens) = (&self.model, self.is_stream, self.output_tokens + SPARE_TOKENS);
        let messages = json!([{ "role": "user", "content": text }]);
        match self.dialect {
            Dialect::OpenAi if stream => {
                json!({ "model": model, "max_completion_tokens": max_tokens, "messages": messages,
                "stream": true, "stream_options": { "include_usage": true } })
            }
            Dialect::OpenAi => json!({ "model": model, "max_completion_tokens": max_tokens, "messages": messages }),
            Dialect::Anthropic => {
                json!({ "model": model, "max_tokens": max_tokens, "stream": stream, "messages": messages })
            }
            Dialect::Bedrock => json!({ "inferenceConfig": { "maxTokens": max_tokens },
                "messages": [{ "role": "user", "content": [{ "text": text }] }] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_mix_holds_every_dialect_model_and_response_mode() {
        let mix = (0..12).map(|number| Request::mixed(number, &["a", "b"], String::new(), 1));
        let kinds: BTreeSet<_> = mix.map(|request| (request.path(), request.model, request.is_stream)).collect();
        assert_eq!(kinds.len(), 12);
    }
}
