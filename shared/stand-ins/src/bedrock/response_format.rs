//! Formats of a response: a complete body or a stream, in the format of the model.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{event_stream::Event, guardrail::Verdict, model::Answer, prompt_cache::InputUsage, tokens::TOKEN_BYTES};

mod anthropic;
mod chat_completions;
mod converse;
mod llama;
mod nova;

/// Format of a response: the format of Converse, or a format of InvokeModel.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ResponseFormat {
    Converse,
    Messages,
    Nova,
    Llama,
    Chat,
    /// Embeddings, which are never streamed.
    Vectors(Value),
}

/// Data of a response other than the answer.
#[derive(Clone, Debug)]
pub(super) struct CallMetadata {
    /// Model id.
    pub model_id: String,
    /// Id of the message.
    pub message_id: String,
    /// Input tokens by cache use.
    pub input: InputUsage,
    /// Result of the guardrail.
    pub verdict: Option<Verdict>,
    /// Time of the admission, in milliseconds since 1970.
    pub begun_ms: u64,
    /// Time from the admission to the end.
    pub latency_ms: u64,
    /// Time from the admission to the first token.
    pub first_token_ms: u64,
    /// Requested service tier.
    pub service_tier: Option<String>,
    /// Requested latency.
    pub latency: Option<String>,
}

impl CallMetadata {
    /// Returns all tokens of the call, including cached tokens.
    pub fn total_tokens(&self, answer: &Answer) -> u64 {
        let input = &self.input;
        input.input_tokens + input.cache_read_tokens + input.cache_write_tokens + answer.output_tokens
    }
}

/// Output tokens per delta of a stream.
const DELTA_TOKENS: usize = 8;

impl ResponseFormat {
    /// Returns the complete body.
    pub fn body(&self, answer: &Answer, metadata: &CallMetadata) -> Value {
        let body = match self {
            Self::Converse => return converse::body(answer, metadata),
            Self::Messages => anthropic::body(answer, metadata),
            Self::Nova => nova::body(answer, metadata),
            Self::Llama => llama::body(answer, metadata),
            Self::Chat => chat_completions::body(answer, metadata),
            Self::Vectors(vectors) => vectors.clone(),
        };
        with_verdict(body, metadata)
    }

    /// Returns all events of a stream except the last, which depends on how the call ended.
    pub fn events(&self, answer: &Answer, metadata: &CallMetadata) -> Vec<Event> {
        match self {
            Self::Converse => converse::events(answer),
            Self::Messages => anthropic::events(answer, metadata),
            Self::Nova => nova::events(answer),
            Self::Llama => llama::events(answer, metadata),
            Self::Chat => chat_completions::events(answer, metadata),
            Self::Vectors(_) => Vec::new(),
        }
    }

    /// Returns the last event of a stream. For InvokeModel, it has the metrics in every format.
    pub fn last_event(&self, answer: &Answer, metadata: &CallMetadata) -> Event {
        let mut last = match self {
            Self::Converse => return converse::last_event(answer, metadata),
            Self::Messages => anthropic::last_chunk(),
            Self::Nova => nova::last_chunk(answer, metadata),
            Self::Llama => llama::last_chunk(answer),
            Self::Chat => chat_completions::last_chunk(answer, metadata),
            Self::Vectors(vectors) => vectors.clone(),
        };
        last["amazon-bedrock-invocationMetrics"] = json!({
            "inputTokenCount": metadata.input.input_tokens,
            "outputTokenCount": answer.output_tokens,
            "invocationLatency": metadata.latency_ms,
            "firstByteLatency": metadata.first_token_ms,
            "cacheReadInputTokenCount": metadata.input.cache_read_tokens,
            "cacheWriteInputTokenCount": metadata.input.cache_write_tokens,
        });
        Event::chunk(&with_verdict(last, metadata))
    }

    /// Returns the usage headers of InvokeModel. Converse has none.
    pub fn headers(&self, answer: &Answer, metadata: &CallMetadata) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = vec![
            ("x-amzn-bedrock-invocation-latency", metadata.latency_ms),
            ("x-amzn-bedrock-input-token-count", metadata.input.input_tokens),
        ];
        match self {
            Self::Converse => return Vec::new(),
            // Vectors have no output tokens, and embedding models have no cache.
            Self::Vectors(_) => {}
            _ => headers.extend([
                ("x-amzn-bedrock-output-token-count", answer.output_tokens),
                ("x-amzn-bedrock-cache-read-input-token-count", metadata.input.cache_read_tokens),
                ("x-amzn-bedrock-cache-write-input-token-count", metadata.input.cache_write_tokens),
            ]),
        }
        headers.into_iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from(value))).collect()
    }

    /// Returns the headers that echo the service settings of an InvokeModel request. Converse
    /// echoes them in its body.
    pub fn echo_headers(&self, metadata: &CallMetadata) -> Vec<(HeaderName, HeaderValue)> {
        if *self == Self::Converse {
            return Vec::new();
        }
        let echoes = [
            ("x-amzn-bedrock-service-tier", &metadata.service_tier),
            ("x-amzn-bedrock-performanceconfig-latency", &metadata.latency),
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

/// Adds the members that InvokeModel returns for a guardrail.
fn with_verdict(mut body: Value, metadata: &CallMetadata) -> Value {
    if let (Some(members), Some(verdict)) = (body.as_object_mut(), &metadata.verdict) {
        members.extend(verdict.invoke_members());
    }
    body
}

/// Splits a text into deltas. The sum of their tokens equals the tokens of the text.
fn deltas(text: &str) -> impl Iterator<Item = (String, u64)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let to = text.floor_char_boundary(from + DELTA_TOKENS * TOKEN_BYTES);
        let fragment = text.get(from..to).filter(|fragment| !fragment.is_empty())?;
        let tokens = to.div_ceil(TOKEN_BYTES) - from.div_ceil(TOKEN_BYTES);
        from = to;
        Some((fragment.to_owned(), tokens as u64))
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
            let joined: String = deltas(&text).map(|(fragment, _)| fragment).collect();
            let sum: u64 = deltas(&text).map(|(_, tokens)| tokens).sum();
            prop_assert_eq!(sum, tokens::text_tokens(&text));
            prop_assert_eq!(joined, text);
        }
    }
}
