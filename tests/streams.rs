//! Streams: the first tokens arrive immediately, every end is well-formed, and every reservation is
//! settled.

use std::time::Duration;

use aws_sdk_bedrockruntime::{
    operation::converse_stream::ConverseStreamOutput,
    types::{ConverseStreamOutput as Event, InferenceConfiguration},
};
use serde_json::{Value, json};

use crate::support::{
    Deployment,
    answer::{Events, aws_client, aws_message, deployment, pool, used, within},
};

const FIELDS: &str = "limits = { requests_per_minute = 100, tokens_per_minute = 10000, in_flight = 10 }";

/// Tokens that the simulator counts for the prompts of this file.
const PROMPT_TOKENS: u64 = 9;

/// Time within which the broker notices that a connection was closed.
const DISCONNECT_DELAY: Duration = Duration::from_millis(400);

/// One second per token, so that each token needs an advance of the simulator's clock.
const SLOW: &str = "[simulator]\ntokens_per_second = 1\n";

async fn one_pool(model_id: &str, simulator: &str) -> Deployment {
    let pool = pool("only", "on_demand", model_id, "");
    Deployment::start(&(deployment(FIELDS, &pool) + simulator)).await
}

/// Starts a stream of 40 tokens that reserves 500 in the OpenAI or Anthropic dialect.
async fn start(deployment: &Deployment, path: &str) -> reqwest::Response {
    let body = json!({
        "model": "m", "max_tokens": 500, "stream": true, "stream_options": { "include_usage": true },
        "messages": [{ "role": "user", "content": "[[output_tokens=40]]" }],
    });
    let response = within(deployment.post(path, "t", &body).send()).await.expect("a response");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-spillway-pool"], "only");
    response
}

/// Starts the same stream in the Bedrock dialect.
async fn start_bedrock(deployment: &Deployment) -> ConverseStreamOutput {
    let limit = InferenceConfiguration::builder().max_tokens(500).build();
    let call = aws_client(deployment).converse_stream().model_id("m").messages(aws_message("[[output_tokens=40]]"));
    within(call.inference_config(limit).send()).await.expect("a stream")
}

async fn model_calls_in_flight(deployment: &Deployment) -> Value {
    deployment.simulator().await["total"]["in_flight"].clone()
}

fn json_of(data: &str) -> Value {
    serde_json::from_str(data).unwrap_or_else(|_| panic!("not JSON: {data}"))
}

/// Fails unless the request of [`start`] was charged its actual usage.
fn assert_usage_charged(quota: &Value) {
    assert_eq!((used(quota, "in_flight"), used(quota, "tokens_per_minute")), (0, PROMPT_TOKENS + 40), "{quota}");
    assert_eq!((&quota["settled"]["requests"], &quota["settled"]["output_tokens"]), (&json!(1), &json!(40)));
}

/// Fails unless the request of [`start`] has ended with its reservation charged.
fn assert_reservation_charged(quota: &Value) {
    assert_eq!((used(quota, "in_flight"), used(quota, "requests_per_minute")), (0, 1), "{quota}");
    assert!(used(quota, "tokens_per_minute") > 500, "{quota}");
    assert_eq!(quota["settled"]["requests"], 0, "{quota}");
}

#[tokio::test]
async fn openai_callers_read_the_first_tokens_before_the_model_has_finished() {
    let deployment = one_pool("sim.model", SLOW).await;
    let mut events = Events::of(start(&deployment, "/v1/chat/completions").await);
    let mut text = String::new();
    while text.is_empty() {
        let (_, data) = events.next().await.expect("a chunk");
        text.push_str(json_of(&data)["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    assert_eq!(model_calls_in_flight(&deployment).await, 1, "the model has not finished");

    deployment.world.stand_in_clock.advance(3_600_000);
    let rest = events.rest().await;
    let [.., (_, stop), (_, usage), (_, done)] = &rest[..] else { panic!("too few chunks: {rest:?}") };
    assert_eq!(json_of(stop)["choices"][0]["finish_reason"], "stop");
    assert_eq!((&json_of(usage)["choices"], &json_of(usage)["usage"]["completion_tokens"]), (&json!([]), &json!(40)));
    assert_eq!(done, "[DONE]");
    assert_usage_charged(&deployment.quota("t").await);
}

#[tokio::test]
async fn anthropic_callers_read_the_first_tokens_before_the_model_has_finished() {
    let deployment = one_pool("sim.model", SLOW).await;
    let mut events = Events::of(start(&deployment, "/v1/messages").await);
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "content_block_delta") {
        names.push(events.next().await.expect("an event").0);
    }
    assert_eq!(names, ["message_start", "content_block_start", "content_block_delta"]);
    assert_eq!(model_calls_in_flight(&deployment).await, 1, "the model has not finished");

    deployment.world.stand_in_clock.advance(3_600_000);
    let rest = events.rest().await;
    let [.., (block_stop, _), (message_delta, delta), (message_stop, _)] = &rest[..] else { panic!("{rest:?}") };
    let ends = [block_stop, message_delta, message_stop].map(String::as_str);
    assert_eq!(ends, ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(json_of(delta)["usage"]["output_tokens"], 40);
    assert_usage_charged(&deployment.quota("t").await);
}

#[tokio::test]
async fn aws_sdks_read_the_first_tokens_before_the_model_has_finished() {
    let deployment = one_pool("sim.model", SLOW).await;
    let mut stream = start_bedrock(&deployment).await.stream;
    let mut events = Vec::new();
    while !events.last().is_some_and(Event::is_content_block_delta) {
        events.push(within(stream.recv()).await.expect("an event").expect("no end yet"));
    }
    assert!(events[0].is_message_start());
    assert_eq!(model_calls_in_flight(&deployment).await, 1, "the model has not finished");

    deployment.world.stand_in_clock.advance(3_600_000);
    while let Some(event) = within(stream.recv()).await.expect("an event") {
        events.push(event);
    }
    let [.., stop, metadata] = &events[..] else { panic!("too few events") };
    assert!(stop.is_message_stop());
    let usage = metadata.as_metadata().expect("the last event").usage().expect("usage");
    assert_eq!(usage.output_tokens(), 40);
    assert_usage_charged(&deployment.quota("t").await);
}

/// Model ids whose streams fail after their first tokens, with OpenAI's code and Anthropic's type
/// of the error.
const FAILING: [(&str, &str, &str); 2] = [
    ("sim.breaks", "model_error", "api_error"),
    ("sim.throttles-mid-stream", "rate_limit_exceeded", "rate_limit_error"),
];

#[tokio::test]
async fn openai_callers_read_an_error_when_a_stream_fails() {
    for (model_id, code, _) in FAILING {
        let deployment = one_pool(model_id, "").await;
        let events = Events::of(start(&deployment, "/v1/chat/completions").await).rest().await;
        let (_, last) = events.last().expect("an event");
        assert_eq!(json_of(last)["error"]["code"], code, "{last}");
        assert!(events.len() > 2 && events.iter().all(|(_, data)| data != "[DONE]"), "{events:?}");
        assert_reservation_charged(&deployment.quota("t").await);
    }
}

#[tokio::test]
async fn anthropic_callers_read_an_error_when_a_stream_fails() {
    for (model_id, _, class) in FAILING {
        let deployment = one_pool(model_id, "").await;
        let events = Events::of(start(&deployment, "/v1/messages").await).rest().await;
        let (name, last) = events.last().expect("an event");
        assert_eq!((name.as_str(), &json_of(last)["error"]["type"]), ("error", &json!(class)));
        assert!(events.iter().any(|(name, _)| name == "content_block_delta"), "{events:?}");
        assert!(events.iter().all(|(name, _)| name != "message_stop"), "{events:?}");
        assert_reservation_charged(&deployment.quota("t").await);
    }
}

#[tokio::test]
async fn aws_sdks_read_an_exception_when_a_stream_fails() {
    for (model_id, ..) in FAILING {
        let deployment = one_pool(model_id, "").await;
        let mut stream = start_bedrock(&deployment).await.stream;
        let mut deltas = 0;
        let error = loop {
            match within(stream.recv()).await {
                Ok(event) => deltas += u64::from(event.expect("an error at the end").is_content_block_delta()),
                Err(error) => break error.into_service_error(),
            }
        };
        assert!(deltas > 0, "the first tokens were sent");
        let is_expected = match model_id {
            "sim.breaks" => error.is_model_stream_error_exception(),
            _ => error.is_throttling_exception(),
        };
        assert!(is_expected, "{model_id}: {error:?}");
        assert_reservation_charged(&deployment.quota("t").await);
    }
}

#[tokio::test]
async fn a_stream_that_fails_at_its_first_event_comes_from_the_next_pool() {
    let pools = pool("first", "provisioned", "first", "limits = { in_flight = 1, tokens_per_minute = 100000 }")
        + &pool("only", "on_demand", "second", "");
    let simulator = "[[simulator.pools]]\nmodel_id = \"first\"\nfault = { throttle_mid_stream = 0 }\n\
                     [[simulator.pools]]\nmodel_id = \"second\"\n";
    let deployment = Deployment::start(&(deployment(FIELDS, &pools) + simulator)).await;
    for calls in [1, 2] {
        let events = Events::of(start(&deployment, "/v1/chat/completions").await).rest().await;
        assert_eq!(events.last().expect("an event").1, "[DONE]");
        let simulator = deployment.simulator().await;
        assert_eq!(simulator["models"]["first"]["requests"], calls, "the reservation of the first pool was released");
    }
    let quota = deployment.quota("t").await;
    assert_eq!((used(&quota, "in_flight"), used(&quota, "requests_per_minute")), (0, 2));
    assert_eq!(used(&quota, "tokens_per_minute"), 2 * (PROMPT_TOKENS + 40));
}

#[tokio::test]
async fn a_stream_that_is_cut_before_its_first_event_is_not_retried_because_it_may_be_billed() {
    let pools = pool("first", "provisioned", "first", "") + &pool("second", "on_demand", "second", "");
    let simulator = "[[simulator.pools]]\nmodel_id = \"first\"\nfault = { cut_stream_after_events = 0 }\n\
                     [[simulator.pools]]\nmodel_id = \"second\"\n";
    let deployment = Deployment::start(&(deployment(FIELDS, &pools) + simulator)).await;
    let body =
        json!({ "model": "m", "max_tokens": 500, "stream": true, "messages": [{ "role": "user", "content": "a" }] });
    let answer = deployment.ask("/v1/chat/completions", "t", &body).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (502, &json!("model_error")), "{}", answer.text());
    assert_eq!(deployment.simulator().await["models"].get("second"), None);
    assert_reservation_charged(&deployment.quota("t").await);
}

#[tokio::test]
async fn a_stream_is_read_to_its_end_and_settled_when_its_caller_disconnects() {
    let deployment = one_pool("sim.model", SLOW).await;
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let mut events = Events::of(start(&deployment, path).await);
        events.next().await.expect("the first event");
    }
    drop(start_bedrock(&deployment).await);
    assert_eq!(model_calls_in_flight(&deployment).await, 3);

    deployment.world.stand_in_clock.advance(3_600_000);
    let quota = deployment.quota_when("t", |quota| used(quota, "in_flight") == 0).await;
    assert_eq!(
        (&quota["settled"]["requests"], &quota["settled"]["output_tokens"]),
        (&json!(3), &json!(120)),
        "{quota}"
    );
    assert_eq!(used(&quota, "tokens_per_minute"), 3 * (PROMPT_TOKENS + 40));
    let total = &deployment.simulator().await["total"];
    assert_eq!((&total["output_tokens"], &total["clients_vanished"]), (&json!(120), &json!(0)));
}

#[tokio::test]
async fn an_answer_is_awaited_and_settled_when_its_caller_disconnects() {
    let deployment = one_pool("sim.model", SLOW).await;
    let body =
        json!({ "model": "m", "max_tokens": 500, "messages": [{ "role": "user", "content": "[[output_tokens=40]]" }] });
    let sent = tokio::spawn(deployment.post("/v1/chat/completions", "t", &body).send());
    deployment.simulator_when(|account| account["total"]["in_flight"] == 1).await;
    sent.abort();
    assert!(sent.await.is_err_and(|error| error.is_cancelled()));
    tokio::time::sleep(DISCONNECT_DELAY).await;

    deployment.world.stand_in_clock.advance(3_600_000);
    assert_usage_charged(&deployment.quota_when("t", |quota| used(quota, "in_flight") == 0).await);
    assert_eq!(deployment.simulator().await["total"]["clients_vanished"], 0);
}

#[tokio::test]
async fn a_held_request_is_not_run_when_its_caller_disconnects() {
    let fields = "hold_ms = 50000\nlimits = { requests_per_minute = 1, in_flight = 10 }";
    let settings = deployment(fields, &pool("only", "on_demand", "sim.model", ""));
    let deployment = Deployment::start(&settings).await;
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "[[output_tokens=40]]" }] });
    assert_eq!(deployment.ask("/v1/chat/completions", "t", &body).await.status, 200);

    // The end of the minute is now near enough to wait for.
    deployment.world.advance(20_000);
    let before = deployment.dynamodb_operations().await["UpdateItem"].clone();
    let held = tokio::spawn(deployment.post("/v1/chat/completions", "t", &body).send());
    while deployment.dynamodb_operations().await["UpdateItem"] == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    held.abort();
    assert!(held.await.is_err_and(|error| error.is_cancelled()));
    tokio::time::sleep(DISCONNECT_DELAY).await;
    deployment.world.advance(3_600_000);
    tokio::time::sleep(DISCONNECT_DELAY).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
    assert_eq!(used(&deployment.quota("t").await, "requests_per_minute"), 0);
}

#[tokio::test]
async fn a_stream_over_http_2_arrives_as_the_model_generates_it() {
    let mut deployment = one_pool("sim.model", SLOW).await;
    // The stand-ins speak HTTP/2 on their ports as well.
    deployment.http = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let response = start(&deployment, "/v1/chat/completions").await;
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    let mut events = Events::of(response);
    events.next().await.expect("a first chunk");
    assert_eq!(model_calls_in_flight(&deployment).await, 1, "the model has not finished");
    deployment.world.stand_in_clock.advance(3_600_000);
    assert_eq!(events.rest().await.last().expect("an end").1, "[DONE]");
}
