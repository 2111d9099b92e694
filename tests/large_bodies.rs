//! Bodies that are too large for a row are stored in the bucket.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use spillway::{
    app::App,
    http::handle,
    job::{JobOutcome, JobStatus, StoredResult},
    quota::Charge,
    store::jobs::ClaimOutcome,
    stored_headers::StoredHeaders,
    units::Millis,
};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{Deployment, answer::Answer, chat, jobs::JOB_QUEUE, key};

const CHAT: &str = "/v1/chat/completions";

/// The charge of one request without tokens or cost.
const ONE_REQUEST: Charge = Charge { requests: 1, ..Charge::ZERO };

fn long_chat(bytes: usize) -> Value {
    let mut body = chat(5, 5);
    let prompt = body["messages"][0]["content"].as_str().expect("a prompt").to_owned();
    body["messages"][0]["content"] = json!(prompt + &" word".repeat(bytes / 5));
    body
}

/// Returns the number of requests to the bucket by operation.
async fn bucket_operations(deployment: &Deployment) -> Value {
    let url = format!("{}/_sim/stats", deployment.world.stand_ins.s3_url());
    deployment.http.get(url).send().await.expect("an answer").json::<Value>().await.expect("JSON")["operations"].clone()
}

/// Returns the tenant's used and settled amounts, without the reset times, which change with the
/// clock.
async fn charged(deployment: &Deployment) -> (Value, Value) {
    let quota = deployment.quota("t").await;
    (quota["limits"][0]["used"].clone(), quota["settled"].clone())
}

#[tokio::test]
async fn a_bucket_that_stops_responding_does_not_block_a_caller_forever() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 3_600_000).await;
    let silent = Fault { times: Some(1), ..Fault::on("PutObject", Effect::TimeoutAfter) };
    deployment.world.stand_ins.s3_faults().inject(silent);
    let body = long_chat(2 * 1024 * 1024);
    let submitted = tokio::time::timeout(Duration::from_secs(60), deployment.submit(CHAT, "t", &body)).await;
    submitted.expect("an answer in time");
    assert_eq!(bucket_operations(&deployment).await["PutObject"], 2, "the upload is retried");
}

#[tokio::test]
async fn a_large_request_waits_and_is_answered_like_any_other() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let body = long_chat(2 * 1024 * 1024);
    let direct = Answer::to(deployment.post(CHAT, "t", &body)).await;
    assert_eq!(direct.status, 200, "{}", direct.text());
    let running = deployment.occupy("t", ONE_REQUEST, 60_000).await;
    let id = deployment.submit(CHAT, "t", &body).await;
    assert_eq!(bucket_operations(&deployment).await["PutObject"], 1, "the bucket holds the request");
    let nothing = spillway::quota::Settled::refund();
    deployment.world.app.ledger.settle(running, &nothing).await.expect("room again");
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    let result = deployment.result("t", &id).await;
    assert_eq!(result.json()["usage"], direct.json()["usage"]);
    assert_eq!(deployment.job("u", &id).await.status, 404, "another tenant does not see the job");
    assert_eq!(deployment.result("u", &id).await.status, 404);
}

#[tokio::test]
async fn a_large_answer_is_stored_and_returned_whole() {
    let settings = crate::support::jobs::two_tenants("limits = { in_flight = 1 }");
    let fast = "\n[simulator]\ntokens_per_second = 1000000\ntime_to_first_token_ms = 1\n";
    let deployment =
        Deployment::start(&(settings.replace("timeout_ms", "max_output_tokens = 64000\ntimeout_ms") + fast)).await;
    deployment.advance_to_noon();
    let running = deployment.occupy("t", ONE_REQUEST, 60_000).await;
    let mut body = chat(60_000, 60_000);
    body["stream"] = json!(true);
    let id = deployment.submit(CHAT, "t", &body).await;
    let nothing = spillway::quota::Settled::refund();
    deployment.world.app.ledger.settle(running, &nothing).await.expect("room again");
    assert_eq!(deployment.final_status(&id).await, "succeeded", "{:?}", deployment.stored(&id).await.error);
    let result = deployment.result("t", &id).await;
    assert!(result.text().len() > 400 * 1024, "{} bytes fit in a row", result.text().len());
    assert!(result.text().ends_with("data: [DONE]\n\n"), "the answer is not whole");
    assert_eq!(bucket_operations(&deployment).await["PutObject"], 1, "the bucket holds the answer");
}

#[tokio::test]
async fn without_a_bucket_a_large_request_is_refused_because_it_cannot_become_a_job() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 60_000).await;
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
    assert_eq!(deployment.messages_in(JOB_QUEUE).await, 0);
    assert_eq!(charged(&deployment).await, before, "the refusal was charged");
}

#[tokio::test]
async fn a_bucket_failure_is_reported_in_each_dialect_and_no_job_is_accepted() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let before = charged(&deployment).await;
    deployment.world.stand_ins.s3_faults().inject(Fault::on("PutObject", Effect::Error500));
    let converse = json!({ "messages": [{ "role": "user", "content": [{ "text": " word".repeat(80_000) }] }] });
    let expected = "The job store cannot be reached";
    for (path, body, message) in [
        (CHAT, long_chat(400 * 1024), "/error/message"),
        ("/v1/messages", long_chat(400 * 1024), "/error/message"),
        ("/model/m/converse", converse, "/message"),
    ] {
        let answer = deployment.ask_respond_async(path, "t", &body).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        let body = answer.json();
        let message = body.pointer(message).and_then(Value::as_str).unwrap_or_default();
        assert!(message.starts_with(expected), "{path}: {body}");
    }
    assert_eq!(deployment.messages_in(JOB_QUEUE).await, 0);
    assert_eq!(
        Answer::to(deployment.get("/v1/jobs", "t")).await.json()["data"],
        json!([]),
        "no row refers to a missing body"
    );
    assert_eq!(charged(&deployment).await, before, "the refusal was charged");

    deployment.world.stand_ins.s3_faults().clear();
    deployment.submit(CHAT, "t", &long_chat(400 * 1024)).await;
}

#[tokio::test]
async fn a_modified_answer_is_never_returned() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let App { jobs, blobs, clock, .. } = deployment.world.app.clone();
    // A later time, at which the test can claim the job before its message arrives.
    let now = clock.now() + Millis::from_s(600);
    let claim = jobs.claim(&id, Millis::from_s(600), now).await.expect("the store");
    let ClaimOutcome::Run { job: claimed, .. } = claim else { panic!("{claim:?}") };
    let body = Bytes::from(vec![b'x'; 400 * 1024]);
    let headers = [("content-type", "text/plain")].into();
    let outcome = JobOutcome::Succeeded(StoredResult { status: 200, headers, body: body.clone() });
    assert_eq!(jobs.finish(&claimed, &outcome, now).await, Ok(true));
    assert_eq!(deployment.result("t", &id).await.body, body);

    let (blobs, key) = (blobs.expect("a bucket"), format!("t/{id}/{}", claimed.fence));
    for replacement in [Some(Bytes::from(vec![b'y'; body.len()])), Some(body.slice(1..)), None] {
        match replacement {
            Some(replacement) => blobs.put(&key, replacement).await.expect("replaced"),
            None => blobs.delete(&key).await.expect("deleted"),
        }
        let answer = deployment.result("t", &id).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(!answer.text().contains("yyy") && !answer.text().contains("xxx"));
    }
}

#[tokio::test]
async fn a_paused_drain_does_not_overwrite_a_newer_answer() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let App { jobs, clock, .. } = deployment.world.app.clone();
    let now = clock.now() + Millis::from_s(600);
    let mut claims = Vec::new();
    for now in [now, now + Millis::from_s(1)] {
        let claim = jobs.claim(&id, Millis::from_s(1), now).await.expect("the store");
        let ClaimOutcome::Run { job, .. } = claim else { panic!("{claim:?}") };
        claims.push(job);
    }
    let large = |byte| Bytes::from(vec![byte; 400 * 1024]);
    let outcome = |byte| {
        JobOutcome::Succeeded(StoredResult { status: 200, headers: StoredHeaders::default(), body: large(byte) })
    };
    assert_eq!(jobs.finish(&claims[1], &outcome(b'n'), now + Millis::from_ms(1_500)).await, Ok(true));
    assert_eq!(jobs.finish(&claims[0], &outcome(b'o'), now + Millis::from_s(2)).await, Ok(false));
    assert_eq!(deployment.result("t", &id).await.body, large(b'n'));
}

#[tokio::test]
async fn a_modified_request_body_is_never_run() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let id = deployment.submit(CHAT, "t", &long_chat(400 * 1024)).await;
    let blobs = deployment.world.app.blobs.clone().expect("a bucket");
    blobs.put(&format!("t/{id}/request"), Bytes::from_static(b"{}")).await.expect("replaced");
    let now = deployment.world.app.clock.now() + Millis::from_s(60);
    let error = deployment.world.app.jobs.claim(&id, Millis::from_s(1), now).await.expect_err("a modified body");
    assert!(error.to_string().contains("its digest differs"), "{error}");
    let job = deployment.stored(&id).await;
    assert_eq!((job.status, job.attempts), (JobStatus::Queued, 0), "no attempt is lost");
}

#[tokio::test]
async fn a_job_whose_body_is_missing_does_not_block_other_jobs() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let running = deployment.occupy("t", ONE_REQUEST, 60_000).await;
    let urgent = deployment.post(CHAT, "t", &long_chat(400 * 1024)).header("prefer", "respond-async");
    let urgent = Answer::to(urgent.header("spillway-priority", "high")).await.json();
    let urgent = urgent["id"].as_str().expect("an id");
    let blobs = deployment.world.app.blobs.clone().expect("a bucket");
    blobs.delete(&format!("t/{urgent}/request")).await.expect("deleted");
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let nothing = spillway::quota::Settled::refund();
    deployment.world.app.ledger.settle(running, &nothing).await.expect("room again");
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    assert_eq!(deployment.stored(urgent).await.status, JobStatus::Queued);
}
