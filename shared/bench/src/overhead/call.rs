//! Measured calls: the same prompt sent to the simulator directly and through the broker.

use serde_json::{Value, json};

use super::deployment::{Deployment, MODEL, MODEL_ID};

/// API that a caller uses, with the direct call that it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiPair {
    /// OpenAI's chat completions. Bedrock does not have this API, so the direct call is Converse.
    OpenAi,
    /// Anthropic's messages, which reach Claude unchanged. The direct call is InvokeModel.
    Anthropic,
    /// Bedrock's Converse. The direct call is Converse too.
    Converse,
}

/// A kind of request.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub api: ApiPair,
    pub body_bytes: usize,
    pub is_stream: bool,
}

/// A request to send.
pub struct Call {
    pub url: String,
    pub key: String,
    pub body: Vec<u8>,
}

/// Maximum output tokens of every request. The simulator's output has 64 tokens.
const MAX_TOKENS: u64 = 256;

impl Case {
    /// Returns all measured cases.
    pub fn every() -> Vec<Self> {
        let mut cases = Vec::new();
        for api in [ApiPair::OpenAi, ApiPair::Anthropic, ApiPair::Converse] {
            for is_stream in [false, true] {
                cases.extend([1_000, 100_000].map(|body_bytes| Self { api, body_bytes, is_stream }));
            }
        }
        cases
    }

    /// Returns its name for tables.
    pub fn name(&self) -> String {
        let api = match self.api {
            ApiPair::OpenAi => "OpenAI",
            ApiPair::Anthropic => "Anthropic",
            ApiPair::Converse => "Converse",
        };
        let whole = if self.is_stream { "streamed" } else { "whole" };
        format!("{api}, {} KB, {whole}", self.body_bytes / 1_000)
    }

    /// Returns the request to the simulator.
    pub fn direct(&self, deployment: &Deployment) -> Call {
        let (path, body): (_, fn(&str) -> Value) = match (self.api, self.is_stream) {
            (ApiPair::OpenAi | ApiPair::Converse, false) => ("converse", converse),
            (ApiPair::OpenAi | ApiPair::Converse, true) => ("converse-stream", converse),
            (ApiPair::Anthropic, false) => ("invoke", claude),
            (ApiPair::Anthropic, true) => ("invoke-with-response-stream", claude),
        };
        let url = format!("{}/model/{MODEL_ID}/{path}", deployment.simulator_url);
        self.call(deployment, url, body)
    }

    /// Returns the request to the broker.
    pub fn brokered(&self, deployment: &Deployment) -> Call {
        let stream = self.is_stream;
        let at = |path: &str| format!("{}{path}", deployment.broker_url);
        match (self.api, stream) {
            (ApiPair::OpenAi, _) => self.call(deployment, at("/v1/chat/completions"), |text| {
                json!({"model": MODEL, "stream": stream, "max_completion_tokens": MAX_TOKENS,
                    "messages": [{"role": "user", "content": text}]})
            }),
            (ApiPair::Anthropic, _) => self.call(deployment, at("/v1/messages"), |text| {
                json!({"model": MODEL, "stream": stream, "max_tokens": MAX_TOKENS,
                    "messages": [{"role": "user", "content": text}]})
            }),
            (ApiPair::Converse, false) => self.call(deployment, at(&format!("/model/{MODEL}/converse")), converse),
            (ApiPair::Converse, true) => {
                self.call(deployment, at(&format!("/model/{MODEL}/converse-stream")), converse)
            }
        }
    }

    /// Returns a call whose text has the length that gives the body exactly the size of this case.
    fn call(&self, deployment: &Deployment, url: String, body: impl Fn(&str) -> Value) -> Call {
        const TEXT: &str = "Provisioned capacity is paid for, so it should be used before any other is bought. ";
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
