//! The only place that calls Bedrock Runtime.
//!
//! The SDK does what it is best at: endpoint, signature, connection, error types. The bodies are ours, as JSON, in both
//! directions, so that a field which this SDK version does not know still passes. The SDK never retries: a second call
//! is a second bill, and whether to make one is the broker's decision.

mod carrier;
mod converse;
mod count;
mod failure;
mod guardrail;
mod invoke;
mod stream;

use std::time::Duration;

use aws_sdk_bedrockruntime::{
    Client,
    config::{Builder, Region},
};
use bytes::Bytes;
use serde_json::{Map, Value};

pub use failure::Failure;
pub use stream::EventStream;

use crate::{
    chat::{Answer, Input},
    pool::Pool,
};

/// One call to make.
#[derive(Debug)]
pub struct Call<'a> {
    /// The pool that takes it.
    pub pool: &'a Pool,
    /// What is sent; the pool's service tier is added to it.
    pub input: &'a Input,
    /// The output limit to put into it, in tokens; `None` leaves it as it is.
    pub max_tokens: Option<u64>,
    /// Goes to Bedrock's invocation logs as `requestMetadata.tenant`.
    pub tenant: &'a str,
    /// Goes to Bedrock's invocation logs as `requestMetadata.request_id`.
    pub request_id: &'a str,
}

/// Bedrock Runtime. Calls take as long as they take: a caller with a deadline drops them.
#[derive(Clone)]
pub struct Models {
    client: Client,
}

impl Models {
    /// Calls through `client`, which must have retries and stalled-stream protection disabled.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// One complete answer (Bedrock's `Converse` or `InvokeModel`).
    ///
    /// # Errors
    /// [`Failure`] says whether another pool may be tried.
    pub async fn answer(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        match call.input {
            Input::Converse(body) => converse::whole(&self.client, call, body).await,
            Input::Native(native) => invoke::whole(&self.client, call, native).await,
        }
    }

    /// An answer as a stream (Bedrock's `ConverseStream` or `InvokeModelWithResponseStream`).
    ///
    /// # Errors
    /// [`Failure`] says whether another pool may be tried. A stream can also fail in its first event, which is why the
    /// broker waits for that one before it answers.
    pub async fn stream(&self, call: &Call<'_>) -> Result<EventStream, Failure> {
        match call.input {
            Input::Converse(body) => converse::start(&self.client, call, body).await,
            Input::Native(native) => invoke::start(&self.client, call, native).await,
        }
    }
}

impl Models {
    /// The input tokens of `input`, as the foundation model `model_id` counts them (Bedrock's `CountTokens`, which is
    /// free of charge); asked where `pool` is.
    ///
    /// # Errors
    /// Bedrock cannot count for this model, finds fault with the body, or cannot be reached.
    pub async fn count_tokens(&self, pool: &Pool, model_id: &str, input: &Input) -> Result<u64, Failure> {
        let counted = count::count(&self.client, pool, model_id, input);
        tokio::time::timeout(COUNT_TIMEOUT, counted).await.map_err(|_| Failure::timed_out())?
    }

    /// What a guardrail says to a text (Bedrock's `ApplyGuardrail`): the JSON body of the reply as Bedrock sent it.
    ///
    /// # Errors
    /// There is no such guardrail, Bedrock finds fault with the body, has no room, or cannot be reached.
    pub async fn apply_guardrail(&self, id: &str, version: &str, body: Bytes) -> Result<Bytes, Failure> {
        guardrail::apply(&self.client, id, version, body).await
    }
}

/// How long a count of tokens may take.
const COUNT_TIMEOUT: Duration = Duration::from_secs(20);

fn region(pool: &Pool) -> Builder {
    Builder::default().region(pool.region.clone().map(Region::new))
}

/// The caller's pairs for Bedrock's invocation log, and ours, which win.
fn request_metadata(call: &Call<'_>, pairs: &Map<String, Value>) -> Value {
    let mut pairs = pairs.clone();
    pairs.insert("tenant".into(), call.tenant.into());
    pairs.insert("request_id".into(), call.request_id.into());
    Value::Object(pairs)
}
