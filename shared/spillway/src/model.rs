//! The only place that calls Bedrock Runtime.
//!
//! The SDK does what it is best at: endpoint, signature, connection, error types. The bodies are ours, as JSON, in both
//! directions, so that a field which this SDK version does not know still passes. The SDK never retries: a second call
//! is a second bill, and whether to make one is the broker's decision.

mod carrier;
mod failure;
mod stream;

use std::time::Duration;

use aws_sdk_bedrockruntime::{
    Client,
    config::{Builder, Region},
};
use serde_json::{Map, Value, json};

pub use failure::Failure;
pub use stream::EventStream;

use crate::{
    chat::{Answer, Usage},
    pool::Pool,
};
use carrier::Carrier;

/// One call to make.
#[derive(Debug)]
pub struct Call<'a> {
    /// The pool that takes it.
    pub pool: &'a Pool,
    /// The Converse body; the pool's service tier is added to it.
    pub body: &'a Map<String, Value>,
    /// Goes to Bedrock's invocation logs as `requestMetadata.tenant`.
    pub tenant: &'a str,
    /// Goes to Bedrock's invocation logs as `requestMetadata.request_id`.
    pub request_id: &'a str,
    /// How long the call may take.
    pub timeout: Duration,
}

/// Bedrock Runtime.
#[derive(Clone)]
pub struct Models {
    client: Client,
}

impl Models {
    /// Calls through `client`, which must have retries and stalled-stream protection disabled.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// One complete answer (Bedrock's `Converse`).
    ///
    /// # Errors
    /// [`Failure`] says whether another pool may be tried.
    pub async fn converse(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let carrier = Carrier::whole();
        let operation = self
            .client
            .converse()
            .model_id(&call.pool.model_id)
            .customize()
            .mutate_request(carrier::body_of(payload(call)))
            .interceptor(carrier.clone())
            .config_override(region(call.pool));
        let sent = tokio::time::timeout(call.timeout, operation.send()).await.map_err(|_| Failure::timed_out())?;
        let bytes = match (sent, carrier.take_bytes()) {
            (Err(error), _) if failure::is_refused(&error) => return Err(failure::classify(&error)),
            // The SDK may find fault with a body that we can use: it knows fewer fields than Bedrock sends.
            (_, Some(bytes)) => bytes,
            (Err(error), None) => return Err(failure::classify(&error)),
            (Ok(_), None) => return Err(Failure::broken("the model's reply had no body")),
        };
        let body: Value =
            serde_json::from_slice(&bytes).map_err(|_| Failure::broken("the model's reply was not valid JSON"))?;
        match body.get("usage") {
            Some(usage) if body.get("output").is_some() => Ok(Answer { usage: Usage::from_converse(usage), body }),
            _ => Err(Failure::broken("the model's reply had no output or no usage")),
        }
    }

    /// An answer as a stream (Bedrock's `ConverseStream`).
    ///
    /// # Errors
    /// [`Failure`] says whether another pool may be tried. A stream can also fail in its first event, which is why the
    /// broker waits for that one before it answers.
    pub async fn converse_stream(&self, call: &Call<'_>) -> Result<EventStream, Failure> {
        let carrier = Carrier::stream();
        let operation = self
            .client
            .converse_stream()
            .model_id(&call.pool.model_id)
            .customize()
            .mutate_request(carrier::body_of(payload(call)))
            .interceptor(carrier.clone())
            .config_override(region(call.pool));
        let sent = tokio::time::timeout(call.timeout, operation.send()).await.map_err(|_| Failure::timed_out())?;
        match (sent, carrier.take_stream()) {
            (Ok(_), Some(body)) => Ok(EventStream::new(body)),
            (Ok(_), None) => Err(Failure::broken("the model's reply was not an event stream")),
            (Err(error), _) => Err(failure::classify(&error)),
        }
    }
}

fn region(pool: &Pool) -> Builder {
    Builder::default().region(pool.region.clone().map(Region::new))
}

fn payload(call: &Call<'_>) -> Vec<u8> {
    let mut body = call.body.clone();
    if let Some(tier) = &call.pool.service_tier {
        body.insert("serviceTier".into(), json!({ "type": tier }));
    }
    let metadata = body.entry("requestMetadata").or_insert_with(|| json!({}));
    if let Value::Object(metadata) = metadata {
        metadata.insert("tenant".into(), call.tenant.into());
        metadata.insert("request_id".into(), call.request_id.into());
    }
    Value::Object(body).to_string().into_bytes()
}
