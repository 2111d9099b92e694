//! Request events: what an operator learns from the event of a request, and what a caller learns
//! from the answer if it asks.

use reqwest::Client;
use serde_json::{Value, json};
use spillway::telemetry::Telemetry;

use crate::support::{
    Deployment,
    answer::{Answer, deployment, pool, three_chats, within},
    chat,
    jobs::ONE_REQUEST,
    key,
    recorded::Recorded,
    time::eventually,
};

const PATH: &str = "/v1/chat/completions";

async fn start(settings: &str) -> (Deployment, Recorded) {
    let events = Recorded::default();
    let deployment = Deployment::start_with(settings, Telemetry::to(events.clone())).await;
    deployment.advance_to_noon();
    (deployment, events)
}

/// Returns the event of the request that was answered with `answer`.
fn event_of(events: &Recorded, answer: &Answer) -> Value {
    let id = answer.header("x-request-id");
    let found = events.requests().into_iter().find(|event| event["request_id"] == id);
    found.unwrap_or_else(|| panic!("no event of {id}: {}", answer.text()))
}

/// Returns the named fields of `event`.
fn fields(event: &Value, names: &str) -> Value {
    names.split(' ').map(|name| event[name].clone()).collect()
}

/// The pool `first` has room for one request, and a service tier. The pool `second` answers the
/// others.
fn ladder() -> String {
    pool("first", "provisioned", "first", "service_tier = \"reserved\"\nlimits = { requests_per_minute = 1 }")
        + &pool("second", "on_demand", "sim.second", "")
}

#[tokio::test]
async fn an_event_names_the_key_the_status_the_tier_and_the_pools_that_were_skipped() {
    for (path, body) in three_chats(5, Some(8)) {
        let (deployment, events) = start(&deployment("class = \"interactive\"", &ladder())).await;
        let answers = [deployment.ask(path, "t", &body).await, deployment.ask(path, "t", &body).await];
        let [first, second] = answers.each_ref().map(|answer| event_of(&events, answer));
        let names = "outcome status pool tier skipped attempts";
        assert_eq!(fields(&first, names), json!(["answered", 200, "first", "reserved", null, 1]), "{path}");
        let skipped = "first: requests_per_minute";
        assert_eq!(fields(&second, names), json!(["answered", 200, "second", null, skipped, 1]), "{path}");
        let key_id = first["key_id"].as_str().expect("the id of a key");
        assert!(key("t").contains(key_id) && !key("t").ends_with(key_id), "{path}: {key_id}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_limit_its_account_what_is_used_and_when_to_try_again() {
    let parent = format!("[keys]\nt = \"{}\"\n[[tenants]]\nname = \"o\"\nlimits = {{ in_flight = 1 }}\n", key("t"))
        + "[[tenants]]\nname = \"t\"\nparent = \"o\"\nlimits = { in_flight = 7 }\n"
        + &format!("[[models]]\nname = \"m\"\n{}", pool("p", "on_demand", "sim.p", ""));
    let own = deployment("limits = { in_flight = 1 }", &pool("p", "on_demand", "sim.p", ""));
    for (settings, payer) in [(own, "t"), (parent, "o")] {
        for (path, body) in three_chats(5, Some(8)) {
            let (deployment, events) = start(&settings).await;
            let _running = deployment.occupy(payer, ONE_REQUEST, 60_000).await;
            let refused = deployment.ask(path, "t", &body).await;
            assert_eq!(refused.status, 429, "{path}: {}", refused.text());
            let event = event_of(&events, &refused);
            let expected = json!(["refused", 429, "throttled", "in_flight", payer, 1, 1]);
            assert_eq!(fields(&event, "outcome status error limit limit_of used cap"), expected, "{path}");
            assert!(event["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{event}");
        }
    }
}

#[tokio::test]
async fn the_outcome_of_an_event_tells_faults_of_the_caller_from_faults_of_the_service() {
    let (deployment, events) = start(&deployment("", &pool("p", "on_demand", "sim.p", ""))).await;
    for (path, body) in three_chats(5, Some(8)) {
        let is_bedrock = path.starts_with("/model");
        let malformed = deployment.ask(path, "t", &json!({ "messages": 7 })).await;
        let expected = json!(["invalid", 400, "invalid", null]);
        let names = "outcome status error server_errors";
        assert_eq!(fields(&event_of(&events, &malformed), names), expected, "{path}");
        let url = format!("{}{path}", deployment.world.url);
        let unknown = Client::new().post(url).bearer_auth("sk-spill-made-up").json(&body);
        let unknown = Answer::to(unknown).await;
        let unknown = event_of(&events, &unknown);
        let status = if is_bedrock { 403 } else { 401 };
        assert_eq!(fields(&unknown, names), json!(["denied", status, "unauthenticated", null]), "{path}");
        deployment.set_model_faults(&[json!({ "unavailable": true })]).await;
        let failed = event_of(&events, &deployment.ask(path, "t", &body).await);
        assert_eq!(fields(&failed, names), json!(["failed", 503, "unavailable", 1]), "{path}");
        assert_eq!(failed["attempts"], 1, "{path}");
        deployment.set_model_faults(&[]).await;
    }
}

#[tokio::test]
async fn the_event_of_a_request_that_became_a_job_names_the_job() {
    let settings = deployment("limits = { in_flight = 1 }", &pool("p", "on_demand", "sim.p", ""));
    let (deployment, events) = start(&settings).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let accepted = Answer::to(deployment.post(PATH, "t", &chat(5, 8)).header("prefer", "respond-async")).await;
    let event = event_of(&events, &accepted);
    assert_eq!(fields(&event, "outcome status job_id"), json!(["queued", 202, accepted.json()["id"]]));
    let background = json!({ "model": "m", "input": "hello", "background": true });
    let accepted = deployment.ask("/v1/responses", "t", &background).await;
    let event = event_of(&events, &accepted);
    let id = event["job_id"].as_str().expect("the id of a job").replace('-', "");
    assert_eq!(accepted.json()["id"], json!(format!("resp_{id}")), "{event}");
}

#[tokio::test]
async fn an_event_has_the_tokens_that_were_read_from_and_written_to_the_prompt_cache() {
    let (deployment, events) = start(&deployment("", &pool("p", "on_demand", "sim.p", ""))).await;
    let text = "word ".repeat(3_000);
    let system = json!([{ "type": "text", "text": text, "cache_control": { "type": "ephemeral" } }]);
    let messages = json!([{ "role": "user", "content": "[[output_tokens=5]]" }]);
    let body = json!({ "model": "m", "max_tokens": 8, "system": system, "messages": messages });
    let mut cached = Vec::new();
    for stream in [false, true, false] {
        let mut body = body.clone();
        body["stream"] = json!(stream);
        let answer = deployment.ask("/v1/messages", "t", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.header("x-request-id").to_owned();
        let has_event = async || events.requests().iter().any(|event| event["request_id"] == id.as_str());
        eventually("the event", has_event).await;
        let event = event_of(&events, &answer);
        cached.push((event["cache_write_tokens"].as_u64(), event["cache_read_tokens"].as_u64()));
        let all = event["input_tokens"].as_u64().expect("tokens");
        assert!(all > cached[0].0.expect("the first request writes"), "{event}");
    }
    let written = cached[0].0;
    assert_eq!(cached, [(written, None), (None, written), (None, written)]);
}

#[tokio::test]
async fn a_caller_that_asks_learns_which_pools_were_skipped_and_why() {
    let ladder = ladder().replace("\"sim.second\"\n", "\"sim.second\"\nlimits = { in_flight = 1 }\n");
    for (path, body) in three_chats(5, Some(8)) {
        let settings = deployment("class = \"interactive\"", &ladder) + "[simulator]\ntokens_per_second = 1\n";
        let (deployment, _) = start(&settings).await;
        let ask = |explain: &'static str, body: &Value| {
            let request = deployment.post(path, "t", body);
            if explain.is_empty() { request } else { request.header("spillway-explain", explain) }
        };
        let skipped = |answer: &reqwest::Response| {
            answer.headers().get("x-spillway-skipped").map(|value| value.to_str().expect("text").to_owned())
        };
        // The first request has the pool `first`, and the second one keeps the slot of `second`.
        let stream = if path.starts_with("/model") { "/model/m/converse-stream" } else { path };
        let mut streamed = body.clone();
        if stream == path {
            streamed["stream"] = json!(true);
        }
        let mut running = Vec::new();
        for expected in [None, Some("first: requests_per_minute")] {
            let request = deployment.post(stream, "t", &streamed).header("spillway-explain", "true");
            let answer = within(request.send()).await.expect("a stream");
            assert_eq!((answer.status().as_u16(), skipped(&answer).as_deref()), (200, expected), "{path}");
            running.push(answer);
        }
        let full = "first: requests_per_minute, second: in_flight";
        for (explain, status, expected) in
            [("true", 429, Some(full)), ("false", 429, None), ("", 429, None), ("please", 400, None)]
        {
            let refused = within(ask(explain, &body).send()).await.expect("an answer");
            assert_eq!(
                (refused.status().as_u16(), skipped(&refused).as_deref()),
                (status, expected),
                "{path} {explain}"
            );
        }
    }
}
