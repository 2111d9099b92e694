//! `CountTokens`.

use aws_sdk_bedrockruntime::Client;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{Failure, carrier, failure, region};
use crate::{
    chat::{Input, Overlaid},
    pool::Pool,
};

/// The input tokens of `input`, as the foundation model `model_id` counts them; called where `pool` is.
pub(super) async fn count(client: &Client, pool: &Pool, model_id: &str, input: &Input) -> Result<u64, Failure> {
    let sent = client
        .count_tokens()
        .model_id(model_id)
        .customize()
        .mutate_request(carrier::body_of(payload(input)))
        .config_override(region(pool))
        .send()
        .await;
    let counted = sent.map_err(|error| failure::classify(&error))?;
    u64::try_from(counted.input_tokens).map_err(|_| Failure::broken("it counted fewer than no tokens"))
}

fn payload(input: &Input) -> Vec<u8> {
    let empty = Map::new();
    let body = input.bodies().first().unwrap_or(&empty);
    let counted = match input {
        Input::Converse(body) => json!({"converse": counted_members(body)}),
        Input::Native(_) => {
            // InvokeModel wants an output limit, which does not count.
            let members = input.with_max_tokens(body, 1).into_iter().collect();
            // Strings, numbers and JSON values always serialize.
            let native = serde_json::to_vec(&Overlaid { body, members }).unwrap_or_default();
            json!({"invokeModel": {"body": STANDARD.encode(native)}})
        }
    };
    json!({"input": counted}).to_string().into_bytes()
}

/// What CountTokens takes of a Converse body (Amazon Bedrock API Reference, "ConverseTokensRequest").
fn counted_members(body: &Map<String, Value>) -> Map<String, Value> {
    const COUNTED: [&str; 4] = ["messages", "system", "toolConfig", "additionalModelRequestFields"];
    let members = COUNTED.into_iter().filter_map(|name| Some((name.to_owned(), body.get(name)?.clone())));
    members.collect()
}
