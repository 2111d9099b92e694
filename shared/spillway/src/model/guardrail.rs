//! `ApplyGuardrail`.

use aws_sdk_bedrockruntime::Client;
use bytes::Bytes;

use super::{
    Failure,
    carrier::{self, Carrier},
    failure,
};

pub(super) async fn apply(client: &Client, id: &str, version: &str, body: Bytes) -> Result<Bytes, Failure> {
    let carrier = Carrier::whole();
    let operation = client
        .apply_guardrail()
        .guardrail_identifier(id)
        .guardrail_version(version)
        .customize()
        .mutate_request(carrier::body_of(body.into()))
        .interceptor(carrier.clone());
    match (operation.send().await, carrier.take_bytes().await) {
        (Err(error), _) if failure::is_refused(&error) => Err(failure::classify(&error)),
        (_, Some((_, bytes))) => Ok(bytes),
        (Err(error), None) => Err(failure::classify(&error)),
        (Ok(_), None) => Err(Failure::broken("the guardrail's reply had no body")),
    }
}
