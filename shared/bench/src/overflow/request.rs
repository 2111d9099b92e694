//! Submitted requests: small requests to every API, whole and streamed.

use serde_json::{Value, json};

/// API of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    OpenAi,
    Anthropic,
    Bedrock,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub api: Api,
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
    /// Returns a request of a mix of all APIs and `models`. `number` selects the combination.
    pub fn mixed(number: u64, models: &[&str], text: String, output_tokens: u64) -> Self {
        let models_count = models.len().max(1) as u64;
        let api = [Api::OpenAi, Api::Anthropic, Api::Bedrock][(number % 3) as usize];
        let model = models.get((number / 3 % models_count) as usize).copied().unwrap_or_default();
        let is_stream = number / 3 / models_count % 2 == 1;
        Self { api, model: model.to_owned(), is_stream, output_tokens, text }
    }

    /// Returns its path.
    pub fn path(&self) -> String {
        match (self.api, self.is_stream) {
            (Api::OpenAi, _) => "/v1/chat/completions".to_owned(),
            (Api::Anthropic, _) => "/v1/messages".to_owned(),
            (Api::Bedrock, false) => format!("/model/{}/converse", self.model),
            (Api::Bedrock, true) => format!("/model/{}/converse-stream", self.model),
        }
    }

    /// Returns its body.
    pub fn body(&self) -> Value {
        let text = format!("[[output_tokens={}]] {}", self.output_tokens, self.text);
        let (model, stream, max_tokens) = (&self.model, self.is_stream, self.output_tokens + SPARE_TOKENS);
        let messages = json!([{ "role": "user", "content": text }]);
        match self.api {
            Api::OpenAi if stream => json!({ "model": model, "max_completion_tokens": max_tokens, "messages": messages,
                "stream": true, "stream_options": { "include_usage": true } }),
            Api::OpenAi => json!({ "model": model, "max_completion_tokens": max_tokens, "messages": messages }),
            Api::Anthropic => {
                json!({ "model": model, "max_tokens": max_tokens, "stream": stream, "messages": messages })
            }
            Api::Bedrock => json!({ "inferenceConfig": { "maxTokens": max_tokens },
                "messages": [{ "role": "user", "content": [{ "text": text }] }] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_mix_holds_every_api_model_and_response_mode() {
        let mix = (0..12).map(|number| Request::mixed(number, &["a", "b"], String::new(), 1));
        let kinds: BTreeSet<_> = mix.map(|request| (request.path(), request.model, request.is_stream)).collect();
        assert_eq!(kinds.len(), 12);
    }
}
