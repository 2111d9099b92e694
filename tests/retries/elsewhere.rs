//! The same when a retry reaches another process, which shares nothing but the tables.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use spillway::{app::App, http::handle};
use spillway_stand_ins::faults::{Effect, Fault};
use tokio::task::JoinHandle;

use super::{CHAT, LIMITS, Observed, SLOW, attempt, body, counted, is_replayed, start};
use crate::support::{
    answer::{Answer, within},
    chat,
    time::eventually,
};

/// Sends `request` to `app` instead of the deployment that it was made for.
fn ask(app: &App, request: RequestBuilder) -> JoinHandle<Answer> {
    let request = request.build().expect("a request");
    let mut to_app = http::Request::new(Full::new(Bytes::copy_from_slice(
        request.body().and_then(|body| body.as_bytes()).expect("a body"),
    )));
    *to_app.method_mut() = request.method().clone();
    *to_app.uri_mut() = request.url().path().parse().expect("a path");
    *to_app.headers_mut() = request.headers().clone();
    let app = app.clone();
    tokio::spawn(async move {
        let (parts, body) = within(handle(&app, to_app)).await.into_parts();
        let body = within(body.collect()).await.expect("no errors").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    })
}

impl Observed {
    /// How often rows were put into a table since the start.
    async fn puts(&self) -> u64 {
        self.dynamodb_operations().await["PutItem"].as_u64().unwrap_or_default()
    }

    /// Moves all clocks on until the call under way is claimed.
    async fn until_claimed(&self, app: &App) {
        let before = self.puts().await;
        eventually("a claim", async || {
            self.world.advance(500);
            app.clock.advance(spillway::units::Millis::from_ms(500));
            self.puts().await > before
        })
        .await;
    }

    async fn waits_elsewhere(&self) {
        let reads = async || self.dynamodb_operations().await["GetItem"].as_u64().unwrap_or_default();
        let before = reads().await;
        eventually("a second look", async || reads().await > before + 2).await;
    }
}

/// What sets attempts at one call apart from all others, in each of the ways that there are.
fn nth(request: RequestBuilder, named: &str, n: u32) -> RequestBuilder {
    match named {
        "invocation" => attempt(request, "one", n),
        "idempotency" => request.header("idempotency-key", "one"),
        _ => counted(request, n - 1).header("x-stainless-timeout", "1"),
    }
}

#[tokio::test]
async fn a_retry_elsewhere_waits_for_the_call_under_way() {
    for stream in [false, true] {
        for named in ["invocation", "idempotency"] {
            let observed = start(LIMITS, SLOW).await;
            let other = observed.another_app().await;
            let mut body = body(CHAT);
            body["stream"] = json!(stream);
            let request = |n| nth(observed.post(CHAT, "t", &body), named, n);
            let first = tokio::spawn(Answer::to(request(1)));
            observed.simulator_when(|account| account["total"]["in_flight"] == 1).await;
            if named == "invocation" {
                observed.until_claimed(&other).await;
            }
            let second = ask(&other, request(2));
            observed.waits_elsewhere().await;
            observed.finish();
            let (first, second) = (within(first).await.expect("no panic"), within(second).await.expect("no panic"));
            assert!(first.status == 200 && !is_replayed(&first), "{named}: {}", first.text());
            assert!(second.status == 200 && is_replayed(&second), "{named}: {}", second.text());
            assert_eq!(first.body, second.body);
            let third = ask(&observed.another_app().await, request(3)).await.expect("no panic");
            assert!(is_replayed(&third) && third.body == first.body, "the stored answer");
            assert_eq!(observed.calls().await, (1, 0));
            observed.is_charged_once("t").await;
        }
    }
}

#[tokio::test]
async fn a_counted_retry_elsewhere_joins_only_a_call_whose_caller_has_no_patience_left() {
    let observed = start(LIMITS, SLOW).await;
    let other = observed.another_app().await;
    let request = |n: u32, patience_s: &str| {
        let request = observed.post(CHAT, "t", &body(CHAT)).header("x-stainless-retry-count", n.to_string());
        request.header("x-stainless-read-timeout", patience_s)
    };
    let first = tokio::spawn(Answer::to(request(0, "3")));
    observed.simulator_when(|account| account["total"]["in_flight"] == 1).await;
    observed.until_claimed(&other).await;
    let of_another = ask(&other, request(1, "600"));
    observed.simulator_when(|account| account["total"]["in_flight"] == 2).await;
    let own = ask(&observed.another_app().await, request(1, "3"));
    observed.waits_elsewhere().await;
    observed.finish();
    assert!(!is_replayed(&within(of_another).await.expect("no panic")), "that caller waits for ten minutes");
    let (first, own) = (within(first).await.expect("no panic"), within(own).await.expect("no panic"));
    assert!(is_replayed(&own) && own.body == first.body);
    assert_eq!(observed.calls().await, (2, 0));
}

#[tokio::test]
async fn a_retry_elsewhere_runs_when_nothing_came_of_the_first() {
    let observed = start("limits = { requests_per_minute = 1 }", "").await;
    assert_eq!(observed.chat("t", 5, 5).await.status(), 200);
    for named in ["invocation", "idempotency"] {
        let request = |n| nth(observed.post(CHAT, "t", &chat(5, 5)), named, n);
        assert_eq!(Answer::to(request(1)).await.status, 429);
        observed.world.advance(60_000);
        let second = ask(&observed.another_app().await, request(2)).await.expect("no panic");
        assert!(second.status == 200 && !is_replayed(&second), "{named}: {}", second.text());
    }
}

#[tokio::test]
async fn a_retry_elsewhere_runs_when_the_process_of_the_first_died() {
    let observed = start(LIMITS, SLOW).await;
    let other = observed.another_app().await;
    let request = |n| nth(observed.post(CHAT, "t", &body(CHAT)), "idempotency", n);
    // A process that stops in the middle of a call: its clock, and so its renewals, stand still.
    let died = observed.another_app().await;
    let first = ask(&died, request(1));
    observed.simulator_when(|account| account["total"]["in_flight"] == 1).await;
    let second = ask(&other, request(2));
    observed.waits_elsewhere().await;
    assert_eq!(observed.calls().await, (1, 1), "the lease holds");
    other.clock.advance(spillway::units::Millis::from_ms(20_000));
    observed.world.stand_in_clock.advance(20_000);
    observed.simulator_when(|account| account["total"]["in_flight"] == 2).await;
    observed.finish();
    let second = within(second).await.expect("no panic");
    assert!(second.status == 200 && !is_replayed(&second));
    let first = within(first).await.expect("no panic");
    assert_eq!(first.status, 200);
    let third = ask(&observed.another_app().await, request(3)).await.expect("no panic");
    assert!(is_replayed(&third) && third.body == second.body, "the answer of the one that held the call last");
}

#[tokio::test]
async fn what_does_not_fit_in_a_row_is_run_again_unless_the_caller_asked_for_one_call() {
    let observed = start(LIMITS, "").await;
    let mut body = chat(60_000, 60_000);
    body["stream"] = json!(true);
    let request = || nth(observed.post(CHAT, "t", &body), "idempotency", 1);
    let first = Answer::to(request()).await;
    assert!(first.status == 200 && first.body.len() > 350 * 1024);
    let second = ask(&observed.another_app().await, request()).await.expect("no panic");
    assert!(second.status == 409 && second.text().contains("Idempotency-Key"), "{}", second.text());
    assert_eq!(observed.calls().await.0, 1);
}

#[tokio::test]
async fn an_idempotency_key_means_one_request_in_all_processes() {
    let observed = start(LIMITS, "").await;
    let request = |body: &Value| observed.post(CHAT, "t", body).header("idempotency-key", "one");
    assert_eq!(Answer::to(request(&chat(5, 5))).await.status, 200);
    let other = ask(&observed.another_app().await, request(&chat(6, 6))).await.expect("no panic");
    assert!(other.status == 400 && other.text().contains("Idempotency-Key"), "{}", other.text());
}

#[tokio::test]
async fn without_the_store_a_retry_runs_but_no_call_that_should_be_the_only_one() {
    let observed = start(LIMITS, "").await;
    assert_eq!(observed.chat("t", 5, 5).await.status(), 200);
    for operation in ["GetItem", "PutItem"] {
        observed.world.stand_ins.dynamodb_faults().inject(Fault::on(operation, Effect::Error500));
    }
    let request = |named| nth(observed.post(CHAT, "t", &chat(5, 5)), named, 2);
    let explicit = Answer::to(request("idempotency")).await;
    assert_eq!((explicit.status, explicit.header("retry-after")), (503, "1"), "{}", explicit.text());
    assert_eq!(observed.calls().await.0, 1);
    assert_eq!(Answer::to(request("invocation")).await.status, 200);
    observed.world.stand_ins.dynamodb_faults().clear();
    let again = Answer::to(request("idempotency")).await;
    assert!(again.status == 200 && !is_replayed(&again), "{}", again.text());
}
