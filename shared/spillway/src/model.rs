//! The only module that calls Bedrock Runtime.
//!
//! The SDK provides the endpoint, the signature, the connection and the error types. Request and
//! response bodies are our own JSON, so a field that this SDK version does not know still passes.
//! The SDK never retries: a second call is a second bill, and the broker decides whether to make
//! it. A call is sent again only if its connection was dead before the call
//! ([`Attempt::was_stale`]).
//!
//! [`Attempt::was_stale`]: crate::connections::Attempt::was_stale

mod converse;
mod count;
mod endpoints;
mod failure;
mod guardrail;
mod invoke;
mod raw_body;
mod stream;

use std::time::Duration;

use aws_sdk_bedrockruntime::{
    Client,
    config::{Builder, Region},
};
use bytes::Bytes;
use serde_json::{Map, Value};

pub use endpoints::RegionalEndpoints;
pub use failure::{Denial, Failure, Quota, UnavailablePool};
pub use stream::EventStream;

use crate::{
    chat::{Answer, Input},
    connections::ResendingClient,
    pool::Pool,
};

/// Time limit of a count of tokens.
const COUNT_TIMEOUT: Duration = Duration::from_secs(20);

/// One call to a model.
#[derive(Debug)]
pub struct ModelCall<'a> {
    /// The pool that is called.
    pub pool: &'a Pool,
    /// The body; the pool's service tier is added to it.
    pub input: &'a Input,
    /// The output limit to put into the body, in tokens; `None` leaves the body as it is.
    pub max_tokens: Option<u64>,
    /// Sent to Bedrock's invocation logs as `requestMetadata.tenant`.
    pub tenant: &'a str,
    /// Sent to Bedrock's invocation logs as `requestMetadata.request_id`.
    pub request_id: &'a str,
}

/// Client of Bedrock Runtime. Calls have no time limit: a caller with a deadline drops the future.
#[derive(Clone)]
pub struct Models {
    client: ResendingClient<Client>,
}

impl Models {
    /// Calls through `client`, which must have stalled-stream protection disabled.
    pub fn new(client: ResendingClient<Client>) -> Self {
        Self { client }
    }

    /// Returns one complete answer (Bedrock's `Converse` or `InvokeModel`).
    ///
    /// # Errors
    /// Returns an error if the call fails. [`Failure`] says whether another pool may be tried.
    pub async fn answer(&self, call: &ModelCall<'_>) -> Result<Answer, Failure> {
        match call.input {
            Input::Converse(body) => converse::answer(&self.client, call, body).await,
            Input::Native(native) => invoke::answer(&self.client, call, native).await,
        }
    }

    /// Starts an answer as a stream (Bedrock's `ConverseStream` or
    /// `InvokeModelWithResponseStream`).
    ///
    /// # Errors
    /// Returns an error if the call fails. [`Failure`] says whether another pool may be tried. A
    /// stream can also fail in its first event, so the broker waits for that event before it
    /// answers.
    pub async fn stream(&self, call: &ModelCall<'_>) -> Result<EventStream, Failure> {
        match call.input {
            Input::Converse(body) => converse::stream(&self.client, call, body).await,
            Input::Native(native) => invoke::stream(&self.client, call, native).await,
        }
    }

    /// Counts the input tokens of `input` for the foundation model `model_id` (Bedrock's
    /// `CountTokens`, which is free of charge). The call goes to the region of `pool`.
    ///
    /// # Errors
    /// Returns an error if Bedrock cannot count for this model ([`Failure::Unsupported`]), rejects
    /// the body, or is unavailable.
    pub async fn count_tokens(&self, pool: &Pool, model_id: &str, input: &Input) -> Result<u64, Failure> {
        let count = count::count(&self.client, pool, model_id, input);
        tokio::time::timeout(COUNT_TIMEOUT, count).await.map_err(|_| Failure::timed_out())?
    }

    /// Applies a guardrail to a text (Bedrock's `ApplyGuardrail`). Returns the JSON body of the
    /// reply as Bedrock sent it.
    ///
    /// # Errors
    /// Returns an error if the guardrail does not exist, or if Bedrock rejects the body, throttles
    /// the call or is unavailable.
    pub async fn apply_guardrail(&self, id: &str, version: &str, body: Bytes) -> Result<Bytes, Failure> {
        guardrail::apply(&self.client, id, version, body).await
    }
}

fn region(pool: &Pool) -> Builder {
    Builder::default().region(pool.region.clone().map(Region::new))
}

/// The caller's pairs for Bedrock's invocation log, and ours, which take precedence.
fn request_metadata(call: &ModelCall<'_>, pairs: &Map<String, Value>) -> Value {
    let mut pairs = pairs.clone();
    pairs.insert("tenant".into(), call.tenant.into());
    pairs.insert("request_id".into(), call.request_id.into());
    Value::Object(pairs)
}
