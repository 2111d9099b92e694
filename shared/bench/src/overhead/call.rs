//! What is measured: the same prompt, once to the simulator and once through the broker.

use serde_json::{Value, json};

use super::deployment::{Deployment, MODEL, MODEL_ID};

/// How a caller speaks to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// OpenAI's chat completions. Bedrock does not speak it: the direct call is Converse.
    OpenAi,
    /// Anthropic's messages, which reach Claude as they are. The direct call is InvokeModel.
    Anthropic,
    /// Bedrock's Converse, as the direct call.
    Converse,
}

/// One kind of request.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub speech: Speech,
    pub body_bytes: usize,
    pub is_stream: bool,
}

/// A request that is ready to be sent.
pub struct Call {
    pub url: String,
    pub key: String,
    pub body: Vec<u8>,
}

/// The output limit of every request; the simulator's answer has 64 tokens.
const MAX_TOKENS: u64 = 256;

impl Case {
    /// All that are measured.
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for speech in [Speech::OpenAi, Speech::Anthropic, Speech::Converse] {
            for is_stream in [false, true] {
                cases.extend([1_000, 100_000].map(|body_bytes| Self { speech, body_bytes, is_stream }));
            }
        }
        cases
    }

    /// Its name in tables.
    pub fn name(&self) -> String {
        let speech = match self.speech {
            Speech::OpenAi => "OpenAI",
            Speech::Anthropic => "Anthropic",
            Speech::Converse => "Converse",
        };
        let whole = if self.is_stream { "streamed" } else { "whole" };
        format!("{speech}, {} KB, {whole}", self.body_bytes / 1_000)
    }

    /// The request to the simulator itself.
    pub fn direct(&self, deployment: &Deployment) -> Call {
        let (path, body): (_, fn(&str) -> Value) = match (self.speech, self.is_stream) {
            (Speech::OpenAi | Speech::Converse, false) => ("converse", converse),
            (Speech::OpenAi | Speech::Converse, true) => ("converse-stream", converse),
            (Speech::Anthropic, false) => ("invoke", claude),
            (Speech::Anthropic, true) => ("invoke-with-response-stream", claude),
        };
        let url = format!("{}/model/{MODEL_ID}/{path}", deployment.simulator_url);
        self.call(deployment, url, body)
    }

    /// The request to the broker.
    pub fn brokered(&self, deployment: &Deployment) -> Call {
        let stream = self.is_stream;
        let at = |path: &str| format!("{}{path}", deployment.broker_url);
        match (self.speech, stream) {
            (Speech::OpenAi, _) => self.call(deployment, at("/v1/chat/completions"), |text| {
                json!({"model": MODEL, "stream": stream, "max_completion_tokens": MAX_TOKENS,
                    "messages": [{"role": "user", "content": text}]})
            }),
            (Speech::Anthropic, _) => self.call(deployment, at("/v1/messages"), |text| {
                json!({"model": MODEL, "stream": stream, "max_tokens": MAX_TOKENS,
                    "messages": [{"role": "user", "content": text}]})
            }),
            (Speech::Converse, false) => self.call(deployment, at(&format!("/model/{MODEL}/converse")), converse),
            (Speech::Converse, true) => self.call(deployment, at(&format!("/model/{MODEL}/converse-stream")), converse),
        }
    }

    /// A call whose body has exactly the bytes of this case: its text is as long as that takes.
    fn call(&self, deployment: &Deployment, url: String, body: impl Fn(&str) -> Value) -> Call {
        const TEXT: &str = "Whoever pays for capacity wants to see it used before anything else is bought. ";
        let text_bytes = self.body_bytes.saturating_sub(body("").to_string().len());
        let text: String = TEXT.chars().cycle().take(text_bytes).collect();
        Call { url, key: deployment.key.clone(), body: body(&text).to_string().into_bytes() }
    }
}

fn converse(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": [{"text": text}]}], "inferenceConfig": {"maxTokens": MAX_TOKENS}})
}

fn claude(text: &str) -> Value {
    json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": text}]})
}
