//! The requests that are submitted: small, and in every dialect, whole and streamed.

use serde_json::{Value, json};

/// How a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    OpenAi,
    Anthropic,
    Bedrock,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    pub speech: Speech,
    pub model: String,
    pub is_stream: bool,
    /// How many tokens the simulator answers with.
    pub output_tokens: u64,
    /// Different in every request, so that no answer can be taken for another.
    pub text: String,
}

/// What every request has room for beyond what it will be answered with.
const SPARE_TOKENS: u64 = 16;

impl Request {
    /// The `number`th of a mix of all dialects over `models`.
    pub fn mixed(number: u64, models: &[&str], text: String, output_tokens: u64) -> Self {
        let models_count = models.len().max(1) as u64;
        let speech = [Speech::OpenAi, Speech::Anthropic, Speech::Bedrock][(number % 3) as usize];
        let model = models.get((number / 3 % models_count) as usize).copied().unwrap_or_default();
        let is_stream = number / 3 / models_count % 2 == 1;
        Self { speech, model: model.to_owned(), is_stream, output_tokens, text }
    }

    /// The path that it goes to.
    pub fn path(&self) -> String {
        match (self.speech, self.is_stream) {
            (Speech::OpenAi, _) => "/v1/chat/completions".to_owned(),
            (Speech::Anthropic, _) => "/v1/messages".to_owned(),
            (Speech::Bedrock, false) => format!("/model/{}/converse", self.model),
            (Speech::Bedrock, true) => format!("/model/{}/converse-stream", self.model),
        }
    }

    /// Its body.
    pub fn body(&self) -> Value {
        let text = format!("[[output_tokens={}]] {}", self.output_tokens, self.text);
        let (model, stream, most) = (&self.model, self.is_stream, self.output_tokens + SPARE_TOKENS);
        let messages = json!([{ "role": "user", "content": text }]);
        match self.speech {
            Speech::OpenAi if stream => json!({ "model": model, "max_completion_tokens": most, "messages": messages,
                "stream": true, "stream_options": { "include_usage": true } }),
            Speech::OpenAi => json!({ "model": model, "max_completion_tokens": most, "messages": messages }),
            Speech::Anthropic => {
                json!({ "model": model, "max_tokens": most, "stream": stream, "messages": messages })
            }
            Speech::Bedrock => json!({ "inferenceConfig": { "maxTokens": most },
                "messages": [{ "role": "user", "content": [{ "text": text }] }] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_mix_holds_every_dialect_model_and_way_to_answer() {
        let mix = (0..12).map(|number| Request::mixed(number, &["a", "b"], String::new(), 1));
        let kinds: BTreeSet<_> = mix.map(|request| (request.path(), request.model, request.is_stream)).collect();
        assert_eq!(kinds.len(), 12);
    }
}
