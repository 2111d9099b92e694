//! Retries that reach another process, which shares only the tables.

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use spillway::{app::App, units::Millis};
use spillway_stand_ins::faults::{Effect, Fault};

use super::{CHAT, LIMITS, MESSAGES, Observed, SILENT, SLOW, attempt, body, is_replayed, start};
use crate::support::{
    answer::{Answer, Events, ask, within},
    chat,
    time::eventually,
};

impl Observed {
    /// Returns the number of rows put into tables since the start.
    async fn puts(&self) -> u64 {
        self.dynamodb_operations().await["PutItem"].as_u64().unwrap_or_default()
    }

    /// Advances all clocks until the call in progress is claimed.
    async fn until_claimed(&self, app: &App) {
        let before = self.puts().await;
        eventually("a claim", async || {
            self.world.advance(500);
            app.clock.advance(Millis::from_ms(500));
            self.puts().await > before
        })
        .await;
    }

    /// Waits until another process polls for the answer.
    async fn until_polled(&self) {
        let reads = async || self.dynamodb_operations().await["GetItem"].as_u64().unwrap_or_default();
        let before = reads().await;
        eventually("another read of the claim", async || reads().await > before + 2).await;
    }
}

/// Adds the headers for attempt `n` of a call. `header` selects how retries are recognized.
fn with_attempt(request: RequestBuilder, header: &str, n: u32) -> RequestBuilder {
    match header {
        "invocation" => attempt(request, "one", n),
        _ => request.header("idempotency-key", "one"),
    }
}

#[tokio::test]
async fn a_retry_in_another_process_waits_for_the_call_in_progress() {
    for stream in [false, true] {
        for header in ["invocation", "idempotency"] {
            let observed = start(LIMITS, SILENT).await;
            let other_app = observed.another_app().await;
            let mut body = body(CHAT);
            body["stream"] = json!(stream);
            let request = |n| with_attempt(observed.post(CHAT, "t", &body), header, n);
            let first = tokio::spawn(Answer::to(request(1)));
            observed.simulator_when(|account| account["total"]["in_flight"] == 1).await;
            if header == "invocation" {
                observed.until_claimed(&other_app).await;
            }
            let second = ask(&other_app, request(2));
            observed.until_polled().await;
            observed.finish();
            let (first, second) = (within(first).await.expect("no panic"), within(second).await.expect("no panic"));
            assert!(first.status == 200 && !is_replayed(&first), "{header}: {}", first.text());
            assert!(second.status == 200 && is_replayed(&second), "{header}: {}", second.text());
            assert_eq!(first.body, second.body);
            let third = ask(&observed.another_app().await, request(3)).await.expect("no panic");
            assert!(is_replayed(&third) && third.body == first.body, "the stored answer");
            assert_eq!(observed.calls().await, (1, 0));
            observed.assert_charged_once("t").await;
        }
    }
}

#[tokio::test]
async fn a_counted_retry_in_another_process_joins_a_call_only_if_its_caller_has_timed_out() {
    let observed = start(LIMITS, SLOW).await;
    let other_app = observed.another_app().await;
    let request = |n: u32, timeout_s: &str| {
        let request = observed.post(CHAT, "t", &body(CHAT)).header("x-stainless-retry-count", n.to_string());
        request.header("x-stainless-read-timeout", timeout_s)
    };
    let first = tokio::spawn(Answer::to(request(0, "3")));
    observed.simulator_when(|account| account["total"]["in_flight"] == 1).await;
    observed.until_claimed(&other_app).await;
    let patient = ask(&other_app, request(1, "600"));
    observed.simulator_when(|account| account["total"]["in_flight"] == 2).await;
    let retry = ask(&observed.another_app().await, request(1, "3"));
    observed.until_polled().await;
    observed.finish();
    assert!(!is_replayed(&within(patient).await.expect("no panic")), "its caller waits for ten minutes");
    let (first, retry) = (within(first).await.expect("no panic"), within(retry).await.expect("no panic"));
    assert!(is_replayed(&retry) && retry.body == first.body);
    assert_eq!(observed.calls().await, (2, 0));
}

#[tokio::test]
async fn a_retry_in_another_process_runs_if_the_first_attempt_was_refused() {
    let observed = start("limits = { requests_per_minute = 1 }", "").await;
    assert_eq!(observed.chat("t", 5, 5).await.status(), 200);
    for header in ["invocation", "idempotency"] {
        let request = |n| with_attempt(observed.post(CHAT, "t", &chat(5, 5)), header, n);
        assert_eq!(Answer::to(request(1)).await.status, 429);
        observed.world.advance(60_000);
        let second = ask(&observed.another_app().await, request(2)).await.expect("no panic");
        assert!(second.status == 200 && !is_replayed(&second), "{header}: {}", second.text());
    }
}

#[tokio::test]
async fn a_retry_in_another_process_runs_if_the_first_process_died() {
    let observed = start(LIMITS, SLOW).await;
    let other_app = observed.another_app().await;
    let request = |n| with_attempt(observed.post(CHAT, "t", &body(CHAT)), "idempotency", n);
    // A process that stops during a call: its clock stands still, so it renews nothing.
    let dead_app = observed.another_app().await;
    let first = ask(&dead_app, request(1));
    observed.simulator_when(|account| account["total"]["in_flight"] == 1).await;
    let second = ask(&other_app, request(2));
    observed.until_polled().await;
    assert_eq!(observed.calls().await, (1, 1), "the lease holds");
    other_app.clock.advance(Millis::from_ms(20_000));
    observed.world.stand_in_clock.advance(20_000);
    observed.simulator_when(|account| account["total"]["in_flight"] == 2).await;
    observed.finish();
    let second = within(second).await.expect("no panic");
    assert!(second.status == 200 && !is_replayed(&second));
    let first = within(first).await.expect("no panic");
    assert_eq!(first.status, 200);
    let third = ask(&observed.another_app().await, request(3)).await.expect("no panic");
    assert!(is_replayed(&third) && third.body == second.body, "the answer of the process that last held the call");
}

#[tokio::test]
async fn an_answer_too_large_to_store_is_not_called_again_under_an_idempotency_key() {
    let observed = start(LIMITS, "").await;
    let mut body = chat(60_000, 60_000);
    body["stream"] = json!(true);
    let request = || with_attempt(observed.post(CHAT, "t", &body), "idempotency", 1);
    let first = Answer::to(request()).await;
    assert!(first.status == 200 && first.body.len() > 350 * 1024);
    let second = ask(&observed.another_app().await, request()).await.expect("no panic");
    assert!(second.status == 409 && second.text().contains("Idempotency-Key"), "{}", second.text());
    assert_eq!(observed.calls().await.0, 1);
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_request_across_processes() {
    let observed = start(LIMITS, "").await;
    let request = |body: &Value| observed.post(CHAT, "t", body).header("idempotency-key", "one");
    assert_eq!(Answer::to(request(&chat(5, 5))).await.status, 200);
    let refused = ask(&observed.another_app().await, request(&chat(6, 6))).await.expect("no panic");
    assert!(refused.status == 400 && refused.text().contains("Idempotency-Key"), "{}", refused.text());
}

#[tokio::test]
async fn without_the_store_a_retry_runs_unless_it_has_an_idempotency_key() {
    let observed = start(LIMITS, "").await;
    assert_eq!(observed.chat("t", 5, 5).await.status(), 200);
    for operation in ["GetItem", "PutItem"] {
        observed.world.stand_ins.dynamodb_faults().inject(Fault::on(operation, Effect::Error500));
    }
    let request = |header| with_attempt(observed.post(CHAT, "t", &chat(5, 5)), header, 2);
    let refused = Answer::to(request("idempotency")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{}", refused.text());
    assert_eq!(observed.calls().await.0, 1);
    assert_eq!(Answer::to(request("invocation")).await.status, 200);
    observed.world.stand_ins.dynamodb_faults().clear();
    let answer = Answer::to(request("idempotency")).await;
    assert!(answer.status == 200 && !is_replayed(&answer), "{}", answer.text());
}

#[tokio::test]
async fn a_stream_that_has_begun_is_not_stored() {
    for path in [CHAT, MESSAGES] {
        let observed = start(LIMITS, SLOW).await;
        let mut body = body(path);
        body["stream"] = json!(true);
        let before = observed.puts().await;
        let stream = attempt(observed.post(path, "t", &body), "one", 1).send();
        let mut events = Events::of(within(stream).await.expect("a stream"));
        events.next().await.expect("a first event");
        for _ in 0..10 {
            observed.world.app.clock.advance(Millis::from_s(1));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        observed.finish();
        events.rest().await;
        observed.quota_when("t", |quota| quota["settled"]["requests"] == 1).await;
        assert_eq!(observed.puts().await, before, "{path}");
    }
}

/// Simulates a model that is silent for a minute of its clock, then sends a long answer.
async fn ended_call(header: (&'static str, &str), tokens: u64) -> (Observed, Answer, u64) {
    let observed = start(LIMITS, SILENT).await;
    let before = observed.puts().await;
    let request = observed.post(CHAT, "t", &chat(tokens, 5_000)).header("x-stainless-retry-count", "0");
    let first = tokio::spawn(Answer::to(request.header(header.0, header.1)));
    observed.simulator_when(|account| account["total"]["in_flight"] == 1).await;
    observed.until_claimed(&observed.another_app().await).await;
    observed.finish();
    let first = within(first).await.expect("no panic");
    assert_eq!(first.status, 200, "{}", first.text());
    let puts = observed.puts().await - before;
    (observed, first, puts)
}

#[tokio::test]
async fn an_answer_that_no_retry_needs_is_not_stored() {
    let timeout = ("x-stainless-read-timeout", "600");
    for (tokens, is_stored) in [(5, true), (4_000, false)] {
        let (observed, _, puts) = ended_call(timeout, tokens).await;
        assert_eq!(puts, 2, "the claim and its end");
        let request = observed.post(CHAT, "t", &chat(tokens, 5_000)).header("x-stainless-retry-count", "1");
        let key = spillway::idempotency::CallIdentity::for_request(
            "t",
            None,
            &parts(&request.header(timeout.0, timeout.1)),
            chat(tokens, 5_000).to_string().as_bytes(),
        );
        let (records, now) = (&observed.world.app.idempotency_records, observed.world.app.clock.now());
        let record = records.find(&key.expect("an identity").key, now).await.expect("read");
        assert_eq!(record.is_some(), is_stored, "only a small answer costs no more than the end of its claim");
    }
}

/// Returns the head of a request, as the broker sees it.
fn parts(request: &RequestBuilder) -> http::request::Parts {
    let request = request.try_clone().expect("a body").build().expect("a request");
    let mut parts = http::Request::new(()).into_parts().0;
    (parts.method, parts.uri) = (request.method().clone(), request.url().path().parse().expect("a path"));
    parts.headers = request.headers().clone();
    parts
}

#[tokio::test]
async fn an_answer_after_the_timeout_of_its_client_is_stored() {
    let (observed, first, _) = ended_call(("x-stainless-read-timeout", "3"), 4_000).await;
    let request = observed.post(CHAT, "t", &chat(4_000, 5_000)).header("x-stainless-retry-count", "1");
    let retry = ask(&observed.another_app().await, request.header("x-stainless-read-timeout", "3"));
    let retry = within(retry).await.expect("no panic");
    assert!(is_replayed(&retry) && retry.body == first.body, "{}", retry.text());
    assert_eq!(observed.calls().await, (1, 0));
}
