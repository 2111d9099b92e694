//! `Converse` and `ConverseStream`.

use aws_sdk_bedrockruntime::Client;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{EventStream, Failure, ModelCall, raw_body::RawBody, region, request_metadata};
use crate::{
    chat::{Answer, Output, Overlaid},
    connections::{Attempt, ResendingClient},
    stored_headers::StoredHeaders,
    usage::Usage,
};

pub(super) async fn answer(
    client: &ResendingClient<Client>,
    call: &ModelCall<'_>,
    body: &Map<String, Value>,
) -> Result<Answer, Failure> {
    let raw_body = RawBody::whole();
    let payload = payload(call, body);
    let send = |client: &Client, attempt: &Attempt| {
        let operation = client.converse().model_id(&call.pool.model_id).customize();
        raw_body.customize(operation, &payload, attempt).config_override(region(call.pool)).send()
    };
    let result = client.send(Attempt::was_stale, send).await;
    let (_, bytes) = raw_body.whole_reply(result, "the model's reply had no body").await?;
    let body: Value =
        serde_json::from_slice(&bytes).map_err(|_| Failure::broken("the model's reply was not valid JSON"))?;
    match body.get("usage") {
        Some(usage) if body.get("output").is_some() => {
            Ok(Answer { usage: Some(Usage::from_converse(usage)), output: Output::Converse(body) })
        }
        _ => Err(Failure::broken("the model's reply had no output or no usage")),
    }
}

pub(super) async fn stream(
    client: &ResendingClient<Client>,
    call: &ModelCall<'_>,
    body: &Map<String, Value>,
) -> Result<EventStream, Failure> {
    let raw_body = RawBody::stream();
    let payload = payload(call, body);
    let send = |client: &Client, attempt: &Attempt| {
        let operation = client.converse_stream().model_id(&call.pool.model_id).customize();
        raw_body.customize(operation, &payload, attempt).config_override(region(call.pool)).send()
    };
    let (reply, in_progress) = client.send_streamed(Attempt::was_stale, send).await;
    let (_, body) = raw_body.streamed_reply(reply)?;
    Ok(EventStream::new(StoredHeaders::default(), body, call.pool.idle_timeout, in_progress))
}

fn payload(call: &ModelCall<'_>, body: &Map<String, Value>) -> Bytes {
    let pairs = body.get("requestMetadata").and_then(Value::as_object);
    let mut members = vec![("requestMetadata", request_metadata(call, pairs.unwrap_or(&Map::new())))];
    members.extend(call.max_tokens.into_iter().flat_map(|max_tokens| call.input.with_max_tokens(body, max_tokens)));
    members.extend(call.pool.service_tier.as_ref().map(|tier| ("serviceTier", json!({ "type": tier }))));
    // Strings, numbers and JSON values always serialize.
    serde_json::to_vec(&Overlaid { body, members }).unwrap_or_default().into()
}
