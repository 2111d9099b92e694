//! `ApplyGuardrail`.

use aws_sdk_bedrockruntime::Client;
use bytes::Bytes;

use super::{
    Failure, failure,
    raw_body::{self, RawBody},
};
use crate::connections::{Attempt, ResendingClient};

pub(super) async fn apply(
    client: &ResendingClient<Client>,
    id: &str,
    version: &str,
    body: Bytes,
) -> Result<Bytes, Failure> {
    let raw_body = RawBody::whole();
    let send = |client: &Client, attempt: &Attempt| {
        let operation = client.apply_guardrail().guardrail_identifier(id).guardrail_version(version).customize();
        operation
            .mutate_request(raw_body::set_body(body.clone()))
            .mutate_request(attempt.observe())
            .interceptor(raw_body.clone())
            .send()
    };
    match (client.send(Attempt::was_stale, send).await, raw_body.take_bytes().await) {
        (Err(error), _) if failure::is_refused(&error) => Err(failure::classify(&error)),
        (_, Some((_, bytes))) => Ok(bytes),
        (Err(error), None) => Err(failure::classify(&error)),
        (Ok(_), None) => Err(Failure::broken("the guardrail's reply had no body")),
    }
}
