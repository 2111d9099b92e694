//! `ApplyGuardrail`.

use aws_sdk_bedrockruntime::Client;
use bytes::Bytes;

use super::{Failure, raw_body::RawBody};
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
        raw_body.customize(operation, &body, attempt).send()
    };
    let result = client.send(Attempt::was_stale, send).await;
    let (_, bytes) = raw_body.whole_reply(result, "the guardrail's reply had no body").await?;
    Ok(bytes)
}
