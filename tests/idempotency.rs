//! Idempotency: a call is charged once, however often its client sends it.

mod across_processes;
mod sdk;

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use spillway::{retention, units::Millis};

use crate::support::{
    Deployment,
    answer::{Answer, Events, used, within},
    chat,
    jobs::two_tenants,
    recorded::Recorded,
    time::{assert_refused, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const CONVERSE: &str = "/model/m/converse";

/// One second per token, so that each token needs an advance of the simulator's clock.
const SLOW: &str = "[simulator]\ntokens_per_second = 1\n";

/// A model that sends nothing for a minute of its clock.
const SILENT: &str = "[simulator]\ntime_to_first_token_ms = 60000\n";

/// Time within which the broker notices that a connection was closed.
const DISCONNECT_DELAY: Duration = Duration::from_millis(400);

const LIMITS: &str = "limits = { requests_per_minute = 100, tokens_per_minute = 100000, in_flight = 10 }";

struct Observed {
    deployment: Deployment,
    recorded: Recorded,
}

impl std::ops::Deref for Observed {
    type Target = Deployment;

    fn deref(&self) -> &Deployment {
        &self.deployment
    }
}

async fn start(fields: &str, simulator: &str) -> Observed {
    let recorded = Recorded::default();
    let telemetry = spillway::telemetry::Telemetry::to(recorded.clone());
    let deployment = Deployment::start_with(&(two_tenants(fields) + simulator), telemetry).await;
    deployment.advance_to_noon();
    Observed { deployment, recorded }
}

impl Observed {
    /// Returns the number of all calls of the simulator, and of its running calls.
    async fn calls(&self) -> (u64, u64) {
        let total = self.simulator().await["total"].clone();
        let count = |name: &str| total[name].as_u64().expect("a count");
        (count("requests"), count("in_flight"))
    }

    /// Returns the outcomes of the requests, in the order of their ends.
    fn outcomes(&self) -> Vec<String> {
        let events = self.recorded.requests();
        events.iter().map(|event| event["outcome"].as_str().expect("text").to_owned()).collect()
    }

    /// Advances the clock until the model finishes. DynamoDB has the same clock and must not delete
    /// the claim yet.
    fn finish(&self) {
        self.world.stand_in_clock.advance(61_000);
    }

    /// Sends `request` and disconnects once the model runs.
    async fn abandon(&self, request: RequestBuilder) {
        let (calls, _) = self.calls().await;
        let sent = tokio::spawn(request.send());
        self.simulator_when(|account| account["total"]["requests"] == calls + 1).await;
        sent.abort();
        assert!(sent.await.is_err_and(|error| error.is_cancelled()));
    }

    /// Fails unless the tenant was charged for one call with 40 output tokens and has nothing in
    /// flight.
    async fn assert_charged_once(&self, tenant: &str) {
        let quota = self.quota_when(tenant, |quota| used(quota, "in_flight") == 0).await;
        assert_eq!(used(&quota, "requests_per_minute"), 1, "{quota}");
        let settled = (&quota["settled"]["requests"], &quota["settled"]["output_tokens"]);
        assert_eq!(settled, (&json!(1), &json!(40)), "{quota}");
    }
}

/// Adds the headers of an AWS SDK for attempt `n` of the call `id`.
fn attempt(request: RequestBuilder, id: &str, n: u32) -> RequestBuilder {
    request.header("amz-sdk-invocation-id", id).header("amz-sdk-request", format!("attempt={n}; max=3"))
}

/// Adds the headers of the Python clients of OpenAI and Anthropic for the `n`th retry of a call.
fn counted(request: RequestBuilder, n: u32) -> RequestBuilder {
    request.header("x-stainless-retry-count", n.to_string()).header("x-stainless-read-timeout", "600")
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("x-spillway-replayed") == "true"
}

fn body(path: &str) -> Value {
    let prompt = "[[output_tokens=40]]";
    match path {
        CONVERSE => json!({ "messages": [{ "role": "user", "content": [{ "text": prompt }] }] }),
        _ => chat(40, 500),
    }
}

#[tokio::test]
async fn a_retry_joins_the_call_in_progress_and_is_charged_once() {
    for path in [CHAT, MESSAGES, CONVERSE] {
        for header in ["invocation", "idempotency", "counted"] {
            let observed = start(LIMITS, SLOW).await;
            let ask = |n: u32| {
                let request = observed.post(path, "t", &body(path));
                match header {
                    "invocation" => attempt(request, "one", n),
                    "idempotency" => request.header("idempotency-key", "one"),
                    _ => counted(request, n - 1),
                }
            };
            observed.abandon(ask(1)).await;
            tokio::time::sleep(DISCONNECT_DELAY).await;
            let joined = tokio::spawn(Answer::to(ask(2)));
            // The retry is in progress. If it arrived after the end, it would get the same answer.
            tokio::time::sleep(DISCONNECT_DELAY).await;
            observed.finish();
            let joined = within(joined).await.expect("no panic");
            assert!(joined.status == 200 && is_replayed(&joined), "{path} {header}: {}", joined.text());
            assert_eq!(observed.calls().await, (1, 0), "{path} {header}");
            observed.assert_charged_once("t").await;
            assert_eq!(observed.outcomes(), ["answered", "replayed"], "{path} {header}");
            let [answered, replayed] = &observed.recorded.requests()[..] else { panic!("two events") };
            assert_eq!(replayed["answer_of"], answered["request_id"]);
            assert_eq!((&replayed["tenant"], &replayed["cost_microusd"]), (&json!("t"), &Value::Null));
        }
    }
}

#[tokio::test]
async fn a_retry_of_an_answered_call_gets_the_same_answer_without_any_store_request() {
    let observed = start(LIMITS, "").await;
    let ask = |n| Answer::to(attempt(observed.post(MESSAGES, "t", &body(MESSAGES)), "one", n));
    let first = ask(1).await;
    assert!(first.status == 200 && !is_replayed(&first));
    assert!(!first.header("ratelimit").is_empty() && !first.header("content-length").is_empty());
    let before = observed.dynamodb_operations().await;
    let second = ask(2).await;
    assert!(is_replayed(&second));
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    assert_eq!(first.header("x-request-id"), second.header("x-request-id"), "the id of the charged call");
    assert_eq!(second.header("ratelimit"), "", "the limits have changed");
    assert_eq!(observed.dynamodb_operations().await, before);
    assert_eq!(
        before["PutItem"],
        start(LIMITS, "").await.dynamodb_operations().await["PutItem"],
        "nothing was claimed"
    );
    observed.assert_charged_once("t").await;
}

#[tokio::test]
async fn a_retry_of_a_stream_reads_it_from_the_start_while_it_runs() {
    for path in [CHAT, MESSAGES] {
        let observed = start(LIMITS, SLOW).await;
        let mut body = body(path);
        body["stream"] = json!(true);
        let ask = |n| attempt(observed.post(path, "t", &body), "one", n).send();
        let mut first = Events::of(within(ask(1)).await.expect("a stream"));
        let begun = first.next().await.expect("a first event");
        drop(first);
        let second = within(ask(2)).await.expect("a stream");
        assert_eq!(second.headers()["x-spillway-replayed"], "true");
        let mut second = Events::of(second);
        assert_eq!(second.next().await.expect("a first event"), begun);
        assert_eq!(observed.calls().await, (1, 1), "the model has not finished");
        observed.finish();
        let rest = second.rest().await;
        let last = rest.last().expect("an end");
        assert!(last.1 == "[DONE]" || last.0 == "message_stop", "{last:?}");
        let third = Answer::read(within(ask(3)).await.expect("a stream")).await;
        assert!(is_replayed(&third) && third.text().ends_with(&format!("data: {}\n\n", last.1)));
        observed.assert_charged_once("t").await;
        assert_eq!(observed.outcomes(), ["answered", "replayed", "replayed"], "no disconnect cancelled the call");
    }
}

#[tokio::test]
async fn a_retry_of_a_failed_request_runs() {
    let observed = start("limits = { requests_per_minute = 1 }", "").await;
    assert_eq!(observed.chat("t", 5, 5).await.status(), 200);
    for header in ["amz-sdk-invocation-id", "idempotency-key"] {
        let ask = || observed.post(CHAT, "t", &chat(5, 5)).header(header, "one").send();
        let wait_ms = assert_refused(&ask().await.expect("an answer"), "requests_per_minute");
        observed.world.advance(wait_ms);
        let answer = Answer::read(ask().await.expect("an answer")).await;
        assert!(answer.status == 200 && !is_replayed(&answer), "{}", answer.text());
    }
    assert_eq!(observed.calls().await.0, 3);
}

#[tokio::test]
async fn a_broken_stream_is_not_replayed_to_a_retry() {
    let observed = start(LIMITS, "").await;
    for (n, header) in ["amz-sdk-invocation-id", "idempotency-key"].into_iter().enumerate() {
        let mut body = chat(40, 500);
        (body["model"], body["stream"]) = (json!("breaks"), json!(true));
        for _ in 0..2 {
            let answer = Answer::to(observed.post(CHAT, "t", &body).header(header, "one")).await;
            assert!(answer.text().contains("model_error") && !is_replayed(&answer), "{}", answer.text());
        }
        assert_eq!(observed.calls().await.0, 2 * (n as u64 + 1));
    }
}

#[tokio::test]
async fn only_the_same_request_of_the_same_tenant_is_a_retry() {
    let observed = start(LIMITS, "").await;
    let ask = async |tenant: &str, path: &str, body: &Value| {
        let request = observed.post(path, tenant, body);
        Answer::to(attempt(counted(request, 1), "one", 2)).await
    };
    let other_body = chat(6, 500);
    for (tenant, path, body) in
        [("t", CHAT, &chat(5, 500)), ("u", CHAT, &chat(5, 500)), ("t", CHAT, &other_body), ("t", MESSAGES, &other_body)]
    {
        let answer = ask(tenant, path, body).await;
        assert!(answer.status == 200 && !is_replayed(&answer), "{tenant} {path}");
    }
    assert_eq!(observed.calls().await.0, 4);
    assert!(is_replayed(&ask("t", CHAT, &other_body).await));
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_request_of_one_tenant() {
    let observed = start(LIMITS, "").await;
    let ask = |tenant: &str, path: &str, body: &Value, key: &str| {
        Answer::to(observed.post(path, tenant, body).header("idempotency-key", key))
    };
    assert_eq!(ask("t", CHAT, &chat(5, 500), "one").await.status, 200);
    assert!(!is_replayed(&ask("u", CHAT, &chat(5, 500), "one").await), "keys of other tenants are unknown");
    for (path, body, key) in [(CHAT, body(CHAT), "one"), (CONVERSE, body(CONVERSE), "one"), (CHAT, body(CHAT), "a b")] {
        let refused = ask("t", path, &body, key).await;
        assert!(refused.status == 400 && refused.text().contains("Idempotency-Key"), "{}", refused.text());
    }
    assert!(is_replayed(&ask("t", CHAT, &chat(5, 500), "\"one\"").await), "the quoted form of the IETF draft");
    assert_eq!(observed.outcomes(), ["answered", "answered", "invalid", "invalid", "invalid", "replayed"]);
}

#[tokio::test]
async fn a_tenant_that_opts_out_pays_for_each_attempt() {
    let observed = start(&format!("{LIMITS}\nretries = \"run\""), "").await;
    for n in 1..=2 {
        let request = observed.post(CHAT, "t", &chat(5, 5)).header("idempotency-key", "one");
        assert!(!is_replayed(&Answer::to(counted(attempt(request, "one", n), n)).await));
    }
    assert_eq!(observed.calls().await.0, 2);
}

#[tokio::test]
async fn equal_requests_are_separate_calls_unless_a_caller_has_disconnected() {
    let observed = start(LIMITS, SLOW).await;
    let ask = |n| tokio::spawn(Answer::to(counted(observed.post(CHAT, "t", &body(CHAT)), n)));
    let (first, second) = (ask(0), ask(0));
    observed.simulator_when(|account| account["total"]["in_flight"] == 2).await;
    let retry = ask(1);
    observed.simulator_when(|account| account["total"]["in_flight"] == 3).await;
    observed.finish();
    for answer in [first, second, retry] {
        assert!(!is_replayed(&within(answer).await.expect("no panic")), "both callers still wait");
    }
    let late_retry = within(ask(1)).await.expect("no panic");
    assert!(!is_replayed(&late_retry), "all callers have their answers");
}

#[tokio::test]
async fn a_retry_of_a_request_that_became_a_job_gets_the_same_job() {
    let observed = start("limits = { requests_per_minute = 1 }", "").await;
    assert_eq!(observed.chat("t", 5, 5).await.status(), 200);
    let ask = |n| {
        let request = observed.post(CHAT, "t", &chat(5, 5)).header("prefer", "respond-async");
        Answer::to(attempt(request, "one", n))
    };
    let (first, second) = (ask(1).await, ask(2).await);
    assert_eq!((first.status, second.status), (202, 202));
    assert_eq!(first.header("location"), second.header("location"));
    assert_eq!(observed.outcomes(), ["answered", "queued", "replayed"]);
}

#[tokio::test]
async fn an_answer_is_replayed_for_a_limited_time_and_up_to_a_maximum_size() {
    let observed = start(LIMITS, "").await;
    let ask =
        async |id: &str, body: &Value| is_replayed(&Answer::to(attempt(observed.post(CHAT, "t", body), id, 1)).await);
    let small = chat(5, 5);
    assert!(!ask("small", &small).await);
    observed.world.advance((retention::ANSWER - Millis::from_s(1)).as_ms());
    assert!(ask("small", &small).await);
    observed.world.advance(1_000);
    assert!(!ask("small", &small).await, "the answer has expired");
    let mut large = chat(60_000, 60_000);
    large["stream"] = json!(true);
    assert!(!ask("large", &large).await);
    assert!(!ask("large", &large).await, "the answer is larger than a megabyte");
}

#[tokio::test]
async fn a_caller_that_disconnects_and_never_retries_is_charged_its_usage() {
    let observed = start(LIMITS, SLOW).await;
    observed.abandon(attempt(observed.post(CHAT, "t", &body(CHAT)), "one", 1)).await;
    observed.finish();
    observed.assert_charged_once("t").await;
    eventually("the call is recorded", async || observed.outcomes() == ["answered"]).await;
}
