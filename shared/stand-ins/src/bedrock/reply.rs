//! How an answer is told: in one body or as a stream, in the words of its model.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{cache::InputUse, engine::Answer, events::Event, guardrail::Verdict, tokens::TOKEN_BYTES};

mod anthropic;
mod chat;
mod converse;
mod llama;
mod nova;

/// The shapes of an answer: Converse's own, and those of InvokeModel.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Converse,
    Messages,
    Nova,
    Llama,
    Chat,
    /// Embeddings, which are complete from the start and never streamed.
    Vectors(Value),
}

/// What is known about a call once it has ended.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    pub model_id: String,
    pub message_id: String,
    pub input: InputUse,
    pub verdict: Option<Verdict>,
    pub begun_ms: u64,
    pub latency_ms: u64,
    pub first_token_ms: u64,
    pub service_tier: Option<String>,
    pub latency: Option<String>,
}

impl Receipt {
    /// Every token of the call, cached ones included.
    pub fn total_tokens(&self, answer: &Answer) -> u64 {
        let input = &self.input;
        input.input_tokens + input.cache_read_tokens + input.cache_write_tokens + answer.output_tokens
    }
}

/// Output tokens per delta of a stream.
const DELTA_TOKENS: usize = 8;

impl Shape {
    /// The whole answer as one body.
    pub fn body(&self, answer: &Answer, receipt: &Receipt) -> Value {
        let body = match self {
            Self::Converse => return converse::body(answer, receipt),
            Self::Messages => anthropic::body(answer, receipt),
            Self::Nova => nova::body(answer, receipt),
            Self::Llama => llama::body(answer, receipt),
            Self::Chat => chat::body(answer, receipt),
            Self::Vectors(vectors) => vectors.clone(),
        };
        with_verdict(body, receipt)
    }

    /// All events of a stream but the last, which needs to know how the call ended.
    pub fn events(&self, answer: &Answer, receipt: &Receipt) -> Vec<Event> {
        match self {
            Self::Converse => converse::events(answer),
            Self::Messages => anthropic::events(answer, receipt),
            Self::Nova => nova::events(answer),
            Self::Llama => llama::events(answer, receipt),
            Self::Chat => chat::events(answer, receipt),
            Self::Vectors(_) => Vec::new(),
        }
    }

    /// The last event of a stream; InvokeModel's carries the metrics whatever the format.
    pub fn last_event(&self, answer: &Answer, receipt: &Receipt) -> Event {
        let mut last = match self {
            Self::Converse => return converse::last_event(answer, receipt),
            Self::Messages => anthropic::last(),
            Self::Nova => nova::last(answer, receipt),
            Self::Llama => llama::last(answer),
            Self::Chat => chat::last(answer, receipt),
            Self::Vectors(vectors) => vectors.clone(),
        };
        last["amazon-bedrock-invocationMetrics"] = json!({
            "inputTokenCount": receipt.input.input_tokens,
            "outputTokenCount": answer.output_tokens,
            "invocationLatency": receipt.latency_ms,
            "firstByteLatency": receipt.first_token_ms,
            "cacheReadInputTokenCount": receipt.input.cache_read_tokens,
            "cacheWriteInputTokenCount": receipt.input.cache_write_tokens,
        });
        Event::chunk(&with_verdict(last, receipt))
    }

    /// The headers that InvokeModel reports its usage in; Converse has none.
    pub fn headers(&self, answer: &Answer, receipt: &Receipt) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = vec![
            ("x-amzn-bedrock-invocation-latency", receipt.latency_ms),
            ("x-amzn-bedrock-input-token-count", receipt.input.input_tokens),
        ];
        match self {
            Self::Converse => return Vec::new(),
            // Vectors are made of no tokens, and their models cache nothing.
            Self::Vectors(_) => {}
            _ => headers.extend([
                ("x-amzn-bedrock-output-token-count", answer.output_tokens),
                ("x-amzn-bedrock-cache-read-input-token-count", receipt.input.cache_read_tokens),
                ("x-amzn-bedrock-cache-write-input-token-count", receipt.input.cache_write_tokens),
            ]),
        }
        headers.into_iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from(value))).collect()
    }

    /// The headers that echo how InvokeModel was asked to be served; Converse echoes in its body.
    pub fn echo_headers(&self, receipt: &Receipt) -> Vec<(HeaderName, HeaderValue)> {
        if *self == Self::Converse {
            return Vec::new();
        }
        let echoes = [
            ("x-amzn-bedrock-service-tier", &receipt.service_tier),
            ("x-amzn-bedrock-performanceconfig-latency", &receipt.latency),
        ];
        echoes
            .into_iter()
            .filter_map(|(name, value)| {
                let value = HeaderValue::from_maybe_shared(Bytes::from(value.clone()?)).ok()?;
                Some((HeaderName::from_static(name), value))
            })
            .collect()
    }
}

/// What a guardrail did, beside what the model's own format says.
fn with_verdict(mut body: Value, receipt: &Receipt) -> Value {
    if let (Some(members), Some(verdict)) = (body.as_object_mut(), &receipt.verdict) {
        members.extend(verdict.invoke_members());
    }
    body
}

/// Cuts a text into deltas; their tokens add up to those of the text.
fn deltas(text: &str) -> impl Iterator<Item = (String, u64)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let to = text.floor_char_boundary(from + DELTA_TOKENS * TOKEN_BYTES);
        let piece = text.get(from..to).filter(|piece| !piece.is_empty())?;
        let tokens = to.div_ceil(TOKEN_BYTES) - from.div_ceil(TOKEN_BYTES);
        from = to;
        Some((piece.to_owned(), tokens as u64))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bedrock::tokens;

    proptest! {
        #[test]
        fn deltas_add_up_to_the_text_and_its_tokens(text in any::<String>(), times in 1usize..20) {
            let text = text.repeat(times);
            let pieces: String = deltas(&text).map(|(piece, _)| piece).collect();
            let sum: u64 = deltas(&text).map(|(_, tokens)| tokens).sum();
            prop_assert_eq!(sum, tokens::text_tokens(&text));
            prop_assert_eq!(pieces, text);
        }
    }
}
