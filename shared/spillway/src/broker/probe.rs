//! Probes of pools whose failures are expensive: small calls that no caller waits for.

use serde_json::{Map, Value, json};

use super::outages;
use crate::{
    app::App,
    chat::{Format, Input, NativeInput},
    health::TrackedCall,
    model::{Failure, ModelCall},
    outage::PoolFault,
    pool::{Model, Pool},
    units::Millis,
};

/// Maximum duration of a probe. It is shorter than the time that the circuit breaker gives it.
const TIMEOUT: Millis = Millis::from_s(10);

/// Name of the tenant in Bedrock's invocation log. No tenant is charged: a probe costs one output
/// token and a few input tokens.
const TENANT: &str = "spillway";

/// Probes `pool` beside the present request. `call` is the permission.
pub fn start(app: &App, model: &Model, pool: &Pool, call: TrackedCall) {
    let (app, model, pool) = (app.clone(), model.clone(), pool.clone());
    tokio::spawn(async move {
        let input = input(model.format());
        let request = ModelCall { pool: &pool, input: &input, max_tokens: None, tenant: TENANT, request_id: "probe" };
        let ends = app.clock.now() + TIMEOUT.min(pool.first_byte_timeout);
        let answered = tokio::select! {
            biased;
            () = app.clock.sleep_until(ends) => Err(Failure::silent()),
            answered = app.models.answer(&request) => answered,
        };
        let fault = answered.err().map_or(PoolFault::None, |failure| failure.fault());
        match fault {
            // Any reply shows that the pool works, even a refusal.
            PoolFault::None | PoolFault::Throttled => call.succeed(),
            fault => {
                if let Some(outage) = call.fail(fault) {
                    outages::report(&app, &model, &pool, outage);
                }
            }
        }
    });
}

/// A body that costs next to nothing.
fn input(format: Option<Format>) -> Input {
    let body = match format {
        Some(Format::TitanEmbed) => json!({ "inputText": "." }),
        Some(Format::CohereEmbed) => json!({ "texts": ["."], "input_type": "search_query" }),
        _ => json!({
            "messages": [{ "role": "user", "content": [{ "text": "." }] }],
            "inferenceConfig": { "maxTokens": 1 },
        }),
    };
    let body = match body {
        Value::Object(body) => body,
        _ => Map::new(),
    };
    match format {
        Some(Format::TitanEmbed | Format::CohereEmbed) => {
            Input::Native(NativeInput { format, bodies: vec![body], ..NativeInput::default() })
        }
        _ => Input::Converse(body),
    }
}
