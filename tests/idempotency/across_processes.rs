//! Retries that reach another process, which shares only the tables.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use spillway::{app::App, http::handle, units::Millis};
use spillway_stand_ins::faults::{Effect, Fault};
use tokio::task::JoinHandle;

use super::{CHAT, LIMITS, Observed, SLOW, attempt, body, is_replayed, start};
use crate::support::{
    answer::{Answer, within},
    chat,
    time::eventually,
};

/// Sends `request` to `app` instead of the deployment for which it was built.
fn ask(app: &App, request: RequestBuilder) -> JoinHandle<Answer> {
    let request = request.build().expect("a request");
    let mut app_request = http::Request::new(Full::new(Bytes::copy_from_slice(
        request.body().and_then(|body| body.as_bytes()).expect("a body"),
    )));
    *app_request.method_mut() = request.method().clone();
    *app_request.uri_mut() = request.url().path().parse().expect("a path");
    *app_request.headers_mut() = request.headers().clone();
    let app = app.clone();
    tokio::spawn(async move {
        let (parts, body) = within(handle(&app, app_request)).await.into_parts();
        let body = within(body.collect()).await.expect("no errors").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    })
}

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
            let observed = start(LIMITS, SLOW).await;
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
