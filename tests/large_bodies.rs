//! Bodies that are too large for a row: they wait in the bucket.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use spillway::{
    app::App,
    http::handle,
    job::{Outcome, Status, StoredResult},
    quota::Charge,
    store::jobs::Claim,
};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{Deployment, answer::Answer, chat, jobs::JOBS, key};

const CHAT: &str = "/v1/chat/completions";

/// Nobody else's, so that a chat has room again when it is over.
const ONE: Charge = Charge { requests: 1, minute_tokens: 0, day_tokens: 0, cost_microusd: 0 };

fn long_chat(bytes: usize) -> Value {
    let mut body = chat(5, 5);
    let prompt = body["messages"][0]["content"].as_str().expect("a prompt").to_owned();
    body["messages"][0]["content"] = json!(prompt + &" word".repeat(bytes / 5));
    body
}

/// The requests that the bucket was sent, by operation.
async fn bucket(deployment: &Deployment) -> Value {
    let url = format!("{}/_sim/stats", deployment.world.stand_ins.s3_url());
    deployment.http.get(url).send().await.expect("an answer").json::<Value>().await.expect("JSON")["operations"].clone()
}

/// What is charged to the tenant now, and what it has paid in all. When a limit resets depends on the time.
async fn charged(deployment: &Deployment) -> (Value, Value) {
    let quota = deployment.quota("t").await;
    (quota["limits"][0]["used"].clone(), quota["settled"].clone())
}

#[tokio::test]
async fn a_bucket_that_falls_silent_does_not_keep_a_caller_for_ever() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE, 3_600_000).await;
    let silent = Fault { times: Some(1), ..Fault::on("PutObject", Effect::TimeoutAfter) };
    deployment.world.stand_ins.s3_faults().inject(silent);
    let body = long_chat(2 * 1024 * 1024);
    let submitted = tokio::time::timeout(Duration::from_secs(60), deployment.submit(CHAT, "t", &body)).await;
    submitted.expect("an answer in time");
    assert_eq!(bucket(&deployment).await["PutObject"], 2, "tried again");
}

#[tokio::test]
async fn a_large_request_waits_and_is_answered_like_any_other() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let body = long_chat(2 * 1024 * 1024);
    let called = Answer::to(deployment.post(CHAT, "t", &body)).await;
    assert_eq!(called.status, 200, "{}", called.text());
    let running = deployment.occupy("t", ONE, 60_000).await;
    let id = deployment.submit(CHAT, "t", &body).await;
    assert_eq!(bucket(&deployment).await["PutObject"], 1, "the request");
    let nothing = spillway::quota::Settled::refund();
    deployment.world.app.ledger.settle(running, &nothing).await.expect("room again");
    assert_eq!(deployment.end_of(&id).await, "succeeded");
    let result = deployment.result("t", &id).await;
    assert_eq!(result.json()["usage"], called.json()["usage"]);
    assert_eq!(deployment.job("u", &id).await.status, 404, "it is nobody else's");
    assert_eq!(deployment.result("u", &id).await.status, 404);
}

#[tokio::test]
async fn a_large_answer_is_kept_and_given_whole() {
    let settings = crate::support::jobs::two_tenants("limits = { in_flight = 1 }");
    let fast = "\n[simulator]\ntokens_per_second = 1000000\ntime_to_first_token_ms = 1\n";
    let deployment =
        Deployment::start(&(settings.replace("timeout_ms", "max_output_tokens = 64000\ntimeout_ms") + fast)).await;
    deployment.advance_to_noon();
    let running = deployment.occupy("t", ONE, 60_000).await;
    let mut body = chat(60_000, 60_000);
    body["stream"] = json!(true);
    let id = deployment.submit(CHAT, "t", &body).await;
    let nothing = spillway::quota::Settled::refund();
    deployment.world.app.ledger.settle(running, &nothing).await.expect("room again");
    assert_eq!(deployment.end_of(&id).await, "succeeded", "{:?}", deployment.stored(&id).await.error);
    let result = deployment.result("t", &id).await;
    assert!(result.text().len() > 400 * 1024, "{} bytes fit in a row", result.text().len());
    assert!(result.text().ends_with("data: [DONE]\n\n"), "it is not whole");
    assert_eq!(bucket(&deployment).await["PutObject"], 1, "the answer");
}

#[tokio::test]
async fn without_a_bucket_a_large_request_is_told_that_it_cannot_wait() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE, 60_000).await;
    let before = charged(&deployment).await;
    let mut app: App = deployment.another_app().await;
    app.queue = deployment.world.app.queue.clone();
    let request = Request::post(CHAT)
        .header("authorization", format!("Bearer {}", key("t")))
        .header("prefer", "respond-async")
        .body(Full::new(Bytes::from(long_chat(360 * 1024).to_string())))
        .expect("a request");
    let answer = handle(&app, request).await;
    assert_eq!(answer.status(), 429);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body").to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("358400 bytes"), "{body:?}");
    assert_eq!(deployment.messages_in(JOBS).await, 0);
    assert_eq!(charged(&deployment).await, before, "it was charged");
}

#[tokio::test]
async fn a_bucket_that_fails_is_told_in_each_dialect_and_nothing_is_accepted() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE, 600_000).await;
    let before = charged(&deployment).await;
    deployment.world.stand_ins.s3_faults().inject(Fault::on("PutObject", Effect::Error500));
    let native = json!({ "messages": [{ "role": "user", "content": [{ "text": " word".repeat(80_000) }] }] });
    let told = "The job store cannot be reached";
    for (path, body, message) in [
        (CHAT, long_chat(400 * 1024), "/error/message"),
        ("/v1/messages", long_chat(400 * 1024), "/error/message"),
        ("/model/m/converse", native, "/message"),
    ] {
        let answer = deployment.ask_patiently(path, "t", &body).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        let body = answer.json();
        let message = body.pointer(message).and_then(Value::as_str).unwrap_or_default();
        assert!(message.starts_with(told), "{path}: {body}");
    }
    assert_eq!(deployment.messages_in(JOBS).await, 0);
    assert_eq!(Answer::to(deployment.get("/v1/jobs", "t")).await.json()["data"], json!([]), "a row names no body");
    assert_eq!(charged(&deployment).await, before, "it was charged");

    deployment.world.stand_ins.s3_faults().clear();
    deployment.submit(CHAT, "t", &long_chat(400 * 1024)).await;
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_put_there_is_never_passed_off() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE, 600_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let App { jobs, blobs, clock, .. } = deployment.world.app.clone();
    // Late enough to claim it before its message is seen.
    let now_ms = clock.now_ms() + 600_000;
    let claim = jobs.claim(&id, 600_000, now_ms).await.expect("the store");
    let Claim::Run { job: claimed, .. } = claim else { panic!("{claim:?}") };
    let body = Bytes::from(vec![b'x'; 400 * 1024]);
    let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
    let outcome = Outcome::Succeeded(StoredResult { status: 200, headers, body: body.clone() });
    assert_eq!(jobs.finish(&claimed, &outcome, now_ms).await, Ok(true));
    assert_eq!(deployment.result("t", &id).await.body, body);

    let (blobs, key) = (blobs.expect("a bucket"), format!("t/{id}/{}", claimed.fence));
    for other in [Some(Bytes::from(vec![b'y'; body.len()])), Some(body.slice(1..)), None] {
        match other {
            Some(other) => blobs.put(&key, other).await.expect("replaced"),
            None => blobs.delete(&key).await.expect("deleted"),
        }
        let answer = deployment.result("t", &id).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(!answer.text().contains("yyy") && !answer.text().contains("xxx"));
    }
}

#[tokio::test]
async fn a_drain_that_was_paused_overwrites_no_newer_answer() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE, 600_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let App { jobs, clock, .. } = deployment.world.app.clone();
    let now_ms = clock.now_ms() + 600_000;
    let mut claims = Vec::new();
    for now_ms in [now_ms, now_ms + 1_000] {
        let claim = jobs.claim(&id, 1_000, now_ms).await.expect("the store");
        let Claim::Run { job, .. } = claim else { panic!("{claim:?}") };
        claims.push(job);
    }
    let large = |byte| Bytes::from(vec![byte; 400 * 1024]);
    let outcome = |byte| Outcome::Succeeded(StoredResult { status: 200, headers: Vec::new(), body: large(byte) });
    assert_eq!(jobs.finish(&claims[1], &outcome(b'n'), now_ms + 1_500).await, Ok(true));
    assert_eq!(jobs.finish(&claims[0], &outcome(b'o'), now_ms + 2_000).await, Ok(false));
    assert_eq!(deployment.result("t", &id).await.body, large(b'n'));
}

#[tokio::test]
async fn a_body_that_is_not_what_was_put_there_is_never_passed_off() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE, 600_000).await;
    let id = deployment.submit(CHAT, "t", &long_chat(400 * 1024)).await;
    let blobs = deployment.world.app.blobs.clone().expect("a bucket");
    blobs.put(&format!("t/{id}/request"), Bytes::from_static(b"{}")).await.expect("replaced");
    let now_ms = deployment.world.app.clock.now_ms() + 60_000;
    let error = deployment.world.app.jobs.claim(&id, 1_000, now_ms).await.expect_err("not its body");
    assert!(error.to_string().contains("not what was put there"), "{error}");
    let job = deployment.stored(&id).await;
    assert_eq!((job.status, job.attempts), (Status::Queued, 0), "and no attempt is lost");
}

#[tokio::test]
async fn a_job_whose_body_is_gone_keeps_no_other_one_from_its_turn() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let running = deployment.occupy("t", ONE, 60_000).await;
    let urgent = deployment.post(CHAT, "t", &long_chat(400 * 1024)).header("prefer", "respond-async");
    let urgent = Answer::to(urgent.header("spillway-priority", "high")).await.json();
    let urgent = urgent["id"].as_str().expect("an id");
    let blobs = deployment.world.app.blobs.clone().expect("a bucket");
    blobs.delete(&format!("t/{urgent}/request")).await.expect("deleted");
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let nothing = spillway::quota::Settled::refund();
    deployment.world.app.ledger.settle(running, &nothing).await.expect("room again");
    assert_eq!(deployment.end_of(&id).await, "succeeded");
    assert_eq!(deployment.stored(urgent).await.status, Status::Queued);
}
