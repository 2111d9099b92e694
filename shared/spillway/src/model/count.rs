//! `CountTokens`.

use std::collections::BTreeMap;

use aws_sdk_bedrockruntime::Client;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Failure, failure, raw_body, region};
use crate::{
    chat::{Input, Overlaid},
    connections::{Attempt, ResendingClient},
    pool::Pool,
    problem::Kind,
};

/// Counts the input tokens of `input` for the foundation model `model_id`, in the region of `pool`.
pub(super) async fn count(
    client: &ResendingClient<Client>,
    pool: &Pool,
    model_id: &str,
    input: &Input,
) -> Result<u64, Failure> {
    let payload = payload(input);
    let send = |client: &Client, attempt: &Attempt| {
        let operation = client.count_tokens().model_id(model_id).customize();
        operation
            .mutate_request(raw_body::set_body(payload.clone()))
            .mutate_request(attempt.observe())
            .config_override(region(pool))
            .send()
    };
    // A count is free of charge, so a second one does no harm.
    let result = client.send(Attempt::broke_soon, send).await;
    let count = result.map_err(|error| match failure::classify(&error) {
        Failure::Rejected(problem) if problem.kind == Kind::Invalid && failure::is_unsupported(&error) => {
            Failure::Unsupported(problem)
        }
        failure => failure,
    })?;
    u64::try_from(count.input_tokens).map_err(|_| Failure::broken("it had a negative count of tokens"))
}

/// The input of a call (Amazon Bedrock API Reference, "CountTokensInput"), without a copy of a
/// Converse body.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Countable<'i> {
    Converse(BTreeMap<&'static str, &'i Value>),
    InvokeModel { body: String },
}

fn payload(input: &Input) -> Bytes {
    let empty = Map::new();
    let body = input.bodies().first().unwrap_or(&empty);
    // Strings, numbers and JSON values always serialize.
    let countable = match input {
        Input::Converse(body) => Countable::Converse(countable_members(body)),
        Input::Native(_) => {
            // InvokeModel requires an output limit, which does not count.
            let members = input.with_max_tokens(body, 1);
            let native = serde_json::to_vec(&Overlaid { body, members }).unwrap_or_default();
            Countable::InvokeModel { body: STANDARD.encode(native) }
        }
    };
    serde_json::to_vec(&BTreeMap::from([("input", countable)])).unwrap_or_default().into()
}

/// The members of a Converse body that CountTokens takes (Amazon Bedrock API Reference,
/// "ConverseTokensRequest").
fn countable_members(body: &Map<String, Value>) -> BTreeMap<&'static str, &Value> {
    const COUNTABLE: [&str; 4] = ["messages", "system", "toolConfig", "additionalModelRequestFields"];
    COUNTABLE.into_iter().filter_map(|name| Some((name, body.get(name)?))).collect()
}
