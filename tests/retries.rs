//! A call is paid once, however often its client sends it.

mod elsewhere;
mod sdk;

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use spillway::idempotency::KEPT_MS;

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

/// A second per token: what is not sent at once is not sent before the simulator's clock is
/// advanced.
const SLOW: &str = "[simulator]\ntokens_per_second = 1\n";

/// How long it takes the broker to notice that a connection was closed.
const NOTICED: Duration = Duration::from_millis(400);

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
    /// How many calls the simulator was asked for, and how many it runs.
    async fn calls(&self) -> (u64, u64) {
        let total = self.simulator().await["total"].clone();
        let count = |name: &str| total[name].as_u64().expect("a count");
        (count("requests"), count("in_flight"))
    }

    /// How requests ended, in the order in which they did.
    fn outcomes(&self) -> Vec<String> {
        let events = self.recorded.events();
        events.iter().map(|event| event["outcome"].as_str().expect("text").to_owned()).collect()
    }

    /// Fails unless one request was answered, and all others got its answer.
    fn is_answered_once(&self) {
        let outcomes = self.outcomes();
        assert_eq!(outcomes[0], "answered");
        assert!(outcomes.len() > 1 && outcomes[1..].iter().all(|outcome| outcome == "replayed"), "{outcomes:?}");
    }

    /// Lets the model finish. DynamoDB has the same clock, and must not delete yet what is claimed.
    fn finish(&self) {
        self.world.stand_in_clock.advance(61_000);
    }

    /// Sends `request`, and hangs up when the model is at work.
    async fn abandon(&self, request: RequestBuilder) {
        let (calls, _) = self.calls().await;
        let asked = tokio::spawn(request.send());
        self.simulator_when(|account| account["total"]["requests"] == calls + 1).await;
        asked.abort();
        assert!(asked.await.is_err_and(|error| error.is_cancelled()));
    }

    /// Fails unless the tenant was charged for one call with 40 tokens of output, and nothing is
    /// held any more.
    async fn is_charged_once(&self, tenant: &str) {
        let quota = self.quota_when(tenant, |quota| used(quota, "in_flight") == 0).await;
        assert_eq!(used(&quota, "requests_per_minute"), 1, "{quota}");
        let settled = (&quota["settled"]["requests"], &quota["settled"]["output_tokens"]);
        assert_eq!(settled, (&json!(1), &json!(40)), "{quota}");
    }
}

/// What an AWS SDK sends with attempt `n` at the call `id`.
fn attempt(request: RequestBuilder, id: &str, n: u32) -> RequestBuilder {
    request.header("amz-sdk-invocation-id", id).header("amz-sdk-request", format!("attempt={n}; max=3"))
}

/// What the Python clients of OpenAI and Anthropic send with the `n`th repetition of a call.
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
async fn a_retry_joins_the_call_under_way_and_is_paid_once() {
    for path in [CHAT, MESSAGES, CONVERSE] {
        for named in ["invocation", "idempotency", "counted"] {
            let observed = start(LIMITS, SLOW).await;
            let ask = |n: u32| {
                let request = observed.post(path, "t", &body(path));
                match named {
                    "invocation" => attempt(request, "one", n),
                    "idempotency" => request.header("idempotency-key", "one"),
                    _ => counted(request, n - 1),
                }
            };
            observed.abandon(ask(1)).await;
            tokio::time::sleep(NOTICED).await;
            let joined = tokio::spawn(Answer::to(ask(2)));
            // On its way; if it came after the end, it would read the same.
            tokio::time::sleep(NOTICED).await;
            observed.finish();
            let joined = within(joined).await.expect("no panic");
            assert!(joined.status == 200 && is_replayed(&joined), "{path} {named}: {}", joined.text());
            assert_eq!(observed.calls().await, (1, 0), "{path} {named}");
            observed.is_charged_once("t").await;
            assert_eq!(observed.outcomes(), ["answered", "replayed"], "{path} {named}");
            let [answered, replayed] = &observed.recorded.events()[..] else { panic!("two events") };
            assert_eq!(replayed["answer_of"], answered["request_id"]);
            assert_eq!((&replayed["tenant"], &replayed["cost_microusd"]), (&json!("t"), &Value::Null));
        }
    }
}

#[tokio::test]
async fn a_retry_after_the_end_reads_the_same_answer_and_touches_no_store() {
    let observed = start(LIMITS, "").await;
    let ask = |n| Answer::to(attempt(observed.post(MESSAGES, "t", &body(MESSAGES)), "one", n));
    let first = ask(1).await;
    assert!(first.status == 200 && !is_replayed(&first));
    assert!(!first.header("ratelimit").is_empty() && !first.header("content-length").is_empty());
    let before = observed.dynamodb_operations().await;
    let second = ask(2).await;
    assert!(is_replayed(&second));
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    assert_eq!(first.header("x-request-id"), second.header("x-request-id"), "it names the call that was paid");
    assert_eq!(second.header("ratelimit"), "", "the limits have moved on");
    assert_eq!(observed.dynamodb_operations().await, before);
    assert_eq!(
        before["PutItem"],
        start(LIMITS, "").await.dynamodb_operations().await["PutItem"],
        "nothing was claimed"
    );
    observed.is_charged_once("t").await;
}

#[tokio::test]
async fn a_retry_of_a_stream_reads_it_from_the_start_while_it_comes() {
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
        observed.is_charged_once("t").await;
        assert_eq!(observed.outcomes(), ["answered", "replayed", "replayed"], "nobody cancelled it");
    }
}

#[tokio::test]
async fn a_retry_of_what_failed_runs() {
    let observed = start("limits = { requests_per_minute = 1 }", "").await;
    assert_eq!(observed.chat("t", 5, 5).await.status(), 200);
    for named in ["amz-sdk-invocation-id", "idempotency-key"] {
        let ask = || observed.post(CHAT, "t", &chat(5, 5)).header(named, "one").send();
        let wait_ms = assert_refused(&ask().await.expect("an answer"), "requests_per_minute");
        observed.world.advance(wait_ms);
        let answer = Answer::read(ask().await.expect("an answer")).await;
        assert!(answer.status == 200 && !is_replayed(&answer), "{}", answer.text());
    }
    assert_eq!(observed.calls().await.0, 3);
}

#[tokio::test]
async fn a_stream_that_broke_is_not_the_answer_to_a_retry() {
    let observed = start(LIMITS, "").await;
    for (n, named) in ["amz-sdk-invocation-id", "idempotency-key"].into_iter().enumerate() {
        let mut body = chat(40, 500);
        (body["model"], body["stream"]) = (json!("breaks"), json!(true));
        for _ in 0..2 {
            let answer = Answer::to(observed.post(CHAT, "t", &body).header(named, "one")).await;
            assert!(answer.text().contains("model_error") && !is_replayed(&answer), "{}", answer.text());
        }
        assert_eq!(observed.calls().await.0, 2 * (n as u64 + 1));
    }
}

#[tokio::test]
async fn only_the_same_question_of_the_same_tenant_is_a_retry() {
    let observed = start(LIMITS, "").await;
    let ask = async |tenant: &str, path: &str, body: &Value| {
        let request = observed.post(path, tenant, body);
        Answer::to(attempt(counted(request, 1), "one", 2)).await
    };
    let other = chat(6, 500);
    for (tenant, path, body) in
        [("t", CHAT, &chat(5, 500)), ("u", CHAT, &chat(5, 500)), ("t", CHAT, &other), ("t", MESSAGES, &other)]
    {
        let answer = ask(tenant, path, body).await;
        assert!(answer.status == 200 && !is_replayed(&answer), "{tenant} {path}");
    }
    assert_eq!(observed.calls().await.0, 4);
    assert!(is_replayed(&ask("t", CHAT, &other).await));
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_request_of_one_tenant() {
    let observed = start(LIMITS, "").await;
    let ask = |tenant: &str, path: &str, body: &Value, key: &str| {
        Answer::to(observed.post(path, tenant, body).header("idempotency-key", key))
    };
    assert_eq!(ask("t", CHAT, &chat(5, 500), "one").await.status, 200);
    assert!(!is_replayed(&ask("u", CHAT, &chat(5, 500), "one").await), "keys of others are unknown");
    for (path, body, key) in [(CHAT, body(CHAT), "one"), (CONVERSE, body(CONVERSE), "one"), (CHAT, body(CHAT), "a b")] {
        let refused = ask("t", path, &body, key).await;
        assert!(refused.status == 400 && refused.text().contains("Idempotency-Key"), "{}", refused.text());
    }
    assert!(is_replayed(&ask("t", CHAT, &chat(5, 500), "\"one\"").await), "the draft's own spelling");
    assert_eq!(observed.outcomes(), ["answered", "answered", "failed", "failed", "failed", "replayed"]);
}

#[tokio::test]
async fn a_tenant_that_opted_out_pays_for_each_attempt() {
    let observed = start(&format!("{LIMITS}\nretries = \"run\""), "").await;
    for n in 1..=2 {
        let request = observed.post(CHAT, "t", &chat(5, 5)).header("idempotency-key", "one");
        assert!(!is_replayed(&Answer::to(counted(attempt(request, "one", n), n)).await));
    }
    assert_eq!(observed.calls().await.0, 2);
}

#[tokio::test]
async fn equal_questions_are_calls_of_their_own_unless_one_lost_its_caller() {
    let observed = start(LIMITS, SLOW).await;
    let ask = |n| tokio::spawn(Answer::to(counted(observed.post(CHAT, "t", &body(CHAT)), n)));
    let (one, two) = (ask(0), ask(0));
    observed.simulator_when(|account| account["total"]["in_flight"] == 2).await;
    let repeated = ask(1);
    observed.simulator_when(|account| account["total"]["in_flight"] == 3).await;
    observed.finish();
    for answer in [one, two, repeated] {
        assert!(!is_replayed(&within(answer).await.expect("no panic")), "both callers still wait");
    }
    let again = within(ask(1)).await.expect("no panic");
    assert!(!is_replayed(&again), "all have their answers");
}

#[tokio::test]
async fn a_request_that_became_a_job_becomes_one_job() {
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
async fn an_answer_is_kept_for_a_time_and_up_to_a_size() {
    let observed = start(LIMITS, "").await;
    let ask =
        async |id: &str, body: &Value| is_replayed(&Answer::to(attempt(observed.post(CHAT, "t", body), id, 1)).await);
    let small = chat(5, 5);
    assert!(!ask("small", &small).await);
    observed.world.advance(KEPT_MS - 1_000);
    assert!(ask("small", &small).await);
    observed.world.advance(1_000);
    assert!(!ask("small", &small).await, "its time is over");
    let mut large = chat(60_000, 60_000);
    large["stream"] = json!(true);
    assert!(!ask("large", &large).await);
    assert!(!ask("large", &large).await, "it is larger than a megabyte");
}

#[tokio::test]
async fn a_caller_that_hangs_up_and_never_returns_is_charged_what_was_used() {
    let observed = start(LIMITS, SLOW).await;
    observed.abandon(attempt(observed.post(CHAT, "t", &body(CHAT)), "one", 1)).await;
    observed.finish();
    observed.is_charged_once("t").await;
    eventually("the call is recorded", async || observed.outcomes() == ["answered"]).await;
}
