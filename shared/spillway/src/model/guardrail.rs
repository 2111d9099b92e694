//! `ApplyGuardrail`.

use aws_sdk_bedrockruntime::Client;
use bytes::Bytes;

use super::{
    Failure, failure,
    raw_body::{self, RawBody},
};

pub(super) async fn apply(client: &Client, id: &str, version: &str, body: Bytes) -> Result<Bytes, Failure> {
    let raw_body = RawBody::whole();
    let operation = client
        .apply_guardrail()
        .guardrail_identifier(id)
        .guardrail_version(version)
        .customize()
        .mutate_request(raw_body::set_body(body.into()))
        .interceptor(raw_body.clone());
    match (operation.send().await, raw_body.take_bytes().await) {
        (Err(error), _) if failure::is_refused(&error) => Err(failure::classify(&error)),
        (_, Some((_, bytes))) => Ok(bytes),
        (Err(error), None) => Err(failure::classify(&error)),
        (Ok(_), None) => Err(Failure::broken("the guardrail's reply had no body")),
    }
}
