//! `InvokeModel` and `InvokeModelWithResponseStream`.

use aws_sdk_bedrockruntime::Client;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Call, EventStream, Failure,
    carrier::{self, Carrier, Headers},
    failure, region, request_metadata,
};
use crate::{
    chat::{Answer, Native, NativeReply, Output, Overlaid},
    usage::{Reported, Usage},
};

/// How many bodies of one request are under way at once.
const AT_ONCE: usize = 8;

/// Sends all bodies. The first goes alone: as long as nothing was billed, another pool can take the request.
pub(super) async fn whole(client: &Client, call: &Call<'_>, native: &Native) -> Result<Answer, Failure> {
    let Some((first, rest)) = native.bodies.split_first() else {
        return Err(Failure::broken("there was nothing to send"));
    };
    let first = one(client, call, native, first).await?;
    let rest: Vec<_> = rest.iter().map(|body| one(client, call, native, body)).collect();
    let rest: Vec<_> = stream::iter(rest)
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .map_err(|failure| Failure::Failed(failure.into_problem()))?;
    let (replies, usages): (Vec<_>, Vec<_>) = std::iter::once(first).chain(rest).unzip();
    let usage = usages.into_iter().reduce(|sum, usage| Some(sum?.plus(usage?))).flatten();
    Ok(Answer { output: Output::Native(replies), usage })
}

async fn one(
    client: &Client,
    call: &Call<'_>,
    native: &Native,
    body: &Map<String, Value>,
) -> Result<(NativeReply, Option<Usage>), Failure> {
    let carrier = Carrier::whole();
    let operation = client
        .invoke_model()
        .model_id(&call.pool.model_id)
        .customize()
        .mutate_request(carrier::body_of(payload(call, body)))
        .mutate_request(carrier::headers_of(headers(call, native, "accept")))
        .interceptor(carrier.clone())
        .config_override(region(call.pool));
    match (operation.send().await, carrier.take_bytes().await) {
        (Err(error), _) if failure::is_refused(&error) => Err(failure::classify(&error)),
        (_, Some((headers, body))) => {
            let usage = usage(&headers, &body);
            Ok((NativeReply { headers, body }, usage))
        }
        (Err(error), None) => Err(failure::classify(&error)),
        (Ok(_), None) => Err(Failure::broken("the model's reply had no body")),
    }
}

pub(super) async fn start(client: &Client, call: &Call<'_>, native: &Native) -> Result<EventStream, Failure> {
    let body = native.bodies.first().ok_or_else(|| Failure::broken("there was nothing to send"))?;
    let carrier = Carrier::stream();
    let operation = client
        .invoke_model_with_response_stream()
        .model_id(&call.pool.model_id)
        .customize()
        .mutate_request(carrier::body_of(payload(call, body)))
        .mutate_request(carrier::headers_of(headers(call, native, "x-amzn-bedrock-accept")))
        .interceptor(carrier.clone())
        .config_override(region(call.pool));
    match (operation.send().await, carrier.take()) {
        (Ok(_), Some((headers, body))) => Ok(EventStream::new(headers, body)),
        (Ok(_), None) => Err(Failure::broken("the model's reply was not an event stream")),
        (Err(error), _) => Err(failure::classify(&error)),
    }
}

/// What InvokeModel takes in headers (Amazon Bedrock API Reference, "InvokeModel"); `accept` is the name of one of them.
fn headers(call: &Call<'_>, native: &Native, accept: &'static str) -> Vec<(&'static str, String)> {
    let options = &native.options;
    let metadata = request_metadata(call, &options.request_metadata).to_string();
    [
        (accept, Some(options.accept.as_deref().unwrap_or("application/json"))),
        ("x-amzn-bedrock-guardrailidentifier", options.guardrail_id.as_deref()),
        ("x-amzn-bedrock-guardrailversion", options.guardrail_version.as_deref()),
        ("x-amzn-bedrock-trace", options.trace.as_deref()),
        ("x-amzn-bedrock-service-tier", call.pool.service_tier.as_deref()),
        ("x-amzn-bedrock-request-metadata", Some(&metadata)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?.to_owned())))
    .collect()
}

fn payload(call: &Call<'_>, body: &Map<String, Value>) -> Vec<u8> {
    let members = call.max_tokens.and_then(|max_tokens| call.input.with_max_tokens(body, max_tokens));
    // Strings, numbers and JSON values always serialize.
    serde_json::to_vec(&Overlaid { body, members: members.into_iter().collect() }).unwrap_or_default()
}

/// What a reply says it used: in its headers, and in its body where that is Anthropic's, which tells more.
fn usage(headers: &Headers, body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Reply {
        usage: Value,
    }
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let of_headers = Reported::from_headers(header);
    let of_body = serde_json::from_slice::<Reply>(body).ok().and_then(|reply| Reported::read(reply.usage));
    let mut usage = None::<Usage>;
    for reported in [of_headers, of_body].into_iter().flatten() {
        usage.get_or_insert_default().update(&reported);
    }
    usage
}
