//! `InvokeModel` and `InvokeModelWithResponseStream`.

use aws_sdk_bedrockruntime::Client;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    EventStream, Failure, ModelCall, Quota,
    raw_body::{self, RawBody},
    region, request_metadata,
};
use crate::{
    chat::{Answer, NativeInput, NativeReply, Output, Overlaid},
    connections::{Attempt, ResendingClient},
    pool::ServiceTier,
    stored_headers::StoredHeaders,
    units::Millis,
    usage::{Reported, Usage},
};

/// Maximum number of bodies of one request that are sent concurrently.
const MAX_CONCURRENT_BODIES: usize = 8;

/// Pause before a throttled body is sent again, and its maximum: each pause is twice the last.
const THROTTLED_PAUSE: Millis = Millis::from_ms(500);
const MAX_THROTTLED_PAUSE: Millis = Millis::from_s(5);

/// Sends all bodies. The first goes alone: until a body is billed, another pool can take the
/// request. From then on, a throttled body is sent again, so that the billed answers are not lost.
pub(super) async fn answer(
    client: &ResendingClient<Client>,
    call: &ModelCall<'_>,
    native: &NativeInput,
) -> Result<Answer, Failure> {
    let Some((first, rest)) = native.bodies.split_first() else {
        return Err(Failure::broken("there was nothing to send"));
    };
    let first = send_body(client, call, native, first).await?;
    let rest: Vec<_> = rest.iter().map(|body| send_until_admitted(client, call, native, body)).collect();
    let rest: Vec<_> = stream::iter(rest)
        .buffered(MAX_CONCURRENT_BODIES)
        .try_collect()
        .await
        .map_err(|failure| Failure::Failed(failure.fault(), failure.into_problem()))?;
    let (replies, usages): (Vec<_>, Vec<_>) = std::iter::once(first).chain(rest).unzip();
    let usage = usages.into_iter().reduce(|sum, usage| Some(sum?.plus(usage?))).flatten();
    Ok(Answer { output: Output::Native(replies), usage })
}

/// Sends a body until Bedrock does not throttle it. The caller's deadline ends this. The quota of a
/// day does not free in time.
async fn send_until_admitted(
    client: &ResendingClient<Client>,
    call: &ModelCall<'_>,
    native: &NativeInput,
    body: &Map<String, Value>,
) -> Result<(NativeReply, Option<Usage>), Failure> {
    let mut pause = THROTTLED_PAUSE;
    loop {
        match send_body(client, call, native, body).await {
            Err(Failure::Throttled(Quota::Minute)) => {}
            ended => return ended,
        }
        // Bodies that were throttled together are not sent together again.
        let jitter = Millis::from_ms(fastrand::u64(0..=pause.as_ms() / 2));
        tokio::time::sleep((pause + jitter).into()).await;
        pause = (pause * 2).min(MAX_THROTTLED_PAUSE);
    }
}

async fn send_body(
    client: &ResendingClient<Client>,
    call: &ModelCall<'_>,
    native: &NativeInput,
    body: &Map<String, Value>,
) -> Result<(NativeReply, Option<Usage>), Failure> {
    let raw_body = RawBody::whole();
    let payload = payload(call, body);
    let send = |client: &Client, attempt: &Attempt| {
        let operation = client.invoke_model().model_id(&call.pool.model_id).customize();
        raw_body
            .customize(operation, &payload, attempt)
            .mutate_request(raw_body::add_headers(headers(call, native, "accept")))
            .config_override(region(call.pool))
            .send()
    };
    let result = client.send(Attempt::was_stale, send).await;
    let (headers, body) = raw_body.whole_reply(result, "the model's reply had no body").await?;
    let usage = usage(&headers, &body);
    Ok((NativeReply { headers, body }, usage))
}

pub(super) async fn stream(
    client: &ResendingClient<Client>,
    call: &ModelCall<'_>,
    native: &NativeInput,
) -> Result<EventStream, Failure> {
    let body = native.bodies.first().ok_or_else(|| Failure::broken("there was nothing to send"))?;
    let raw_body = RawBody::stream();
    let payload = payload(call, body);
    let send = |client: &Client, attempt: &Attempt| {
        let operation = client.invoke_model_with_response_stream().model_id(&call.pool.model_id).customize();
        raw_body
            .customize(operation, &payload, attempt)
            .mutate_request(raw_body::add_headers(headers(call, native, "x-amzn-bedrock-accept")))
            .config_override(region(call.pool))
            .send()
    };
    let (reply, in_progress) = client.send_streamed(Attempt::was_stale, send).await;
    let (headers, body) = raw_body.streamed_reply(reply)?;
    Ok(EventStream::new(headers, body, call.pool.idle_timeout, in_progress))
}

/// The options that InvokeModel takes in headers (Amazon Bedrock API Reference, "InvokeModel").
/// `accept` is the name of the header for the content type.
fn headers(call: &ModelCall<'_>, native: &NativeInput, accept: &'static str) -> Vec<(&'static str, String)> {
    let options = &native.options;
    let metadata = request_metadata(call, &options.request_metadata).to_string();
    [
        (accept, Some(options.accept.as_deref().unwrap_or("application/json"))),
        ("x-amzn-bedrock-guardrailidentifier", options.guardrail_id.as_deref()),
        ("x-amzn-bedrock-guardrailversion", options.guardrail_version.as_deref()),
        ("x-amzn-bedrock-trace", options.trace.as_deref()),
        ("x-amzn-bedrock-service-tier", call.pool.service_tier.as_ref().map(ServiceTier::as_str)),
        ("x-amzn-bedrock-request-metadata", Some(&metadata)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?.to_owned())))
    .collect()
}

fn payload(call: &ModelCall<'_>, body: &Map<String, Value>) -> Bytes {
    let members = call.max_tokens.map(|max_tokens| call.input.with_max_tokens(body, max_tokens)).unwrap_or_default();
    // Strings, numbers and JSON values always serialize.
    serde_json::to_vec(&Overlaid { body, members }).unwrap_or_default().into()
}

/// Reads the token usage of a reply: from its headers, and from its body if that is Anthropic's,
/// which reports more.
fn usage(headers: &StoredHeaders, body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct ReplyWithUsage {
        usage: Value,
    }
    let from_headers = Reported::from_headers(|name| headers.get(name));
    let reply = serde_json::from_slice::<ReplyWithUsage>(body).ok();
    let from_body = reply.and_then(|reply| Reported::read(reply.usage));
    let mut usage = None::<Usage>;
    for reported in [from_headers, from_body].into_iter().flatten() {
        usage.get_or_insert_default().update(&reported);
    }
    usage
}
