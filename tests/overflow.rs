//! Overflow: a request that opts in becomes a job with a result that equals the answer of a direct
//! call.

use std::time::Duration;

use serde_json::{Value, json};
use spillway::{
    quota::Settled,
    units::{Millis, UnixMs},
};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{
    Deployment,
    answer::{Answer, three_chats},
    chat,
    jobs::{DEAD_LETTER_QUEUE, JOB_QUEUE, ONE_REQUEST},
    time::{assert_refused, eventually},
};

const CHAT: &str = "/v1/chat/completions";

/// A limit of one request per minute.
const ONE_A_MINUTE: &str = "limits = { requests_per_minute = 1 }";

#[tokio::test]
async fn a_request_that_opts_in_becomes_a_job_only_when_there_is_no_room() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    assert_eq!(deployment.ask_respond_async(CHAT, "t", &chat(5, 5)).await.status, 200, "there is room");

    let accepted = deployment.ask_respond_async(CHAT, "t", &chat(5, 5)).await;
    let body = accepted.json();
    let id = body["id"].as_str().expect("an id");
    assert_eq!((accepted.status, accepted.header("location")), (202, format!("/v1/jobs/{id}").as_str()));
    assert_eq!(accepted.header("preference-applied"), "respond-async");
    assert_eq!((&body["object"], &body["status"]), (&json!("job"), &json!("queued")));
    let wait_ms = body["estimated_wait_ms"].as_u64().expect("milliseconds");
    assert!((1..=60_000).contains(&wait_ms), "{wait_ms}");
    assert_eq!(accepted.header("retry-after"), wait_ms.div_ceil(1_000).to_string());

    assert_refused(&deployment.chat("t", 5, 5).await, "requests_per_minute");
}

#[tokio::test]
async fn a_store_that_stops_responding_blocks_neither_a_caller_nor_a_job_forever() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    assert_eq!(deployment.ask_respond_async(CHAT, "t", &chat(5, 5)).await.status, 200, "there is room");
    let silent = Fault { times: Some(1), ..Fault::on("PutItem", Effect::TimeoutAfter) };
    deployment.world.stand_ins.dynamodb_faults().inject(silent.clone());
    let submitted = tokio::time::timeout(Duration::from_secs(30), deployment.submit(CHAT, "t", &chat(5, 5))).await;
    let id = submitted.expect("an answer in time");

    // The next write is the drain's claim.
    deployment.world.stand_ins.dynamodb_faults().inject(silent);
    let ended = tokio::time::timeout(Duration::from_secs(60), deployment.final_status(&id)).await;
    assert_eq!(ended.expect("an end in time"), "succeeded");
}

#[tokio::test]
async fn a_tenant_without_overflow_is_refused_even_if_its_request_opts_in() {
    let deployment = Deployment::with_tenants(&format!("{ONE_A_MINUTE}\noverflow = \"refuse\"")).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let answer = deployment.ask_respond_async(CHAT, "t", &chat(5, 5)).await;
    assert_eq!((answer.status, answer.header("x-spillway-limit")), (429, "requests_per_minute"));
    assert_eq!(deployment.messages_in(JOB_QUEUE).await, 0);
}

#[tokio::test]
async fn a_request_that_opts_in_is_held_first_if_it_asks_to_wait() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let ask = async || {
        let request = deployment.post(CHAT, "t", &chat(5, 5)).header("prefer", "respond-async, wait=8");
        deployment.quickly(Answer::to(request)).await
    };
    let before = deployment.world.app.clock.now();
    assert_eq!(ask().await.status, 202, "no room within 8 s");
    assert!(deployment.world.app.clock.now() - before > Millis::from_s(5), "the request was held");
    let nothing = Settled::refund();
    let (free, held) = tokio::join!(deployment.world.app.ledger.settle(running, &nothing), ask());
    free.expect("room again");
    assert_eq!(held.status, 200);
}

#[tokio::test]
async fn a_request_is_refused_if_its_job_would_expire_before_there_is_room() {
    let deployment = Deployment::with_tenants(&format!("{ONE_A_MINUTE}\njob_ttl_s = 20")).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    assert_eq!(deployment.ask_respond_async(CHAT, "t", &chat(5, 5)).await.status, 429);
}

#[tokio::test]
async fn the_result_of_a_job_equals_the_answer_of_a_direct_call() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    for (path, body) in all_chats() {
        let direct = deployment.ask(&path, "t", &body).await;
        assert_eq!(direct.status, 200, "{path}: {}", direct.text());
        let id = deployment.submit(&path, "t", &body).await;
        assert_eq!(deployment.result("t", &id).await.status, 409, "{path}: the job has not ended");
        assert_eq!(deployment.final_status(&id).await, "succeeded", "{path}");

        let result = deployment.result("t", &id).await;
        for header in ["content-type", "x-spillway-pool"] {
            assert_eq!(result.header(header), direct.header(header), "{path}");
        }
        assert_eq!((result.status, comparable(&result)), (200, comparable(&direct)), "{path}");
        assert_eq!(comparable(&deployment.result("t", &id).await), comparable(&result), "the result can be read again");
        deployment.world.advance(60_000);
    }
    assert_eq!((deployment.messages_in(JOB_QUEUE).await, deployment.messages_in(DEAD_LETTER_QUEUE).await), (0, 0));
    assert_eq!(deployment.simulator().await["total"]["requests"], 16);
}

/// Returns all chat routes, each without and with a stream.
fn all_chats() -> Vec<(String, Value)> {
    let mut chats = Vec::new();
    let response = json!({ "model": "m", "input": "[[output_tokens=12]]", "max_output_tokens": 20 });
    for (path, body) in three_chats(12, Some(20)).into_iter().chain([("/v1/responses", response)]) {
        chats.push((path.to_owned(), body.clone()));
        if path.ends_with("/converse") {
            chats.push((format!("{path}-stream"), body));
        } else {
            let mut body = body;
            body["stream"] = json!(true);
            chats.push((path.to_owned(), body));
        }
    }
    chats
}

/// Returns the JSON objects of a body without ids and times, which differ between any two calls.
fn comparable(answer: &Answer) -> Vec<Value> {
    let objects: Vec<String> = match answer.header("content-type") {
        "application/json" => vec![answer.text()],
        "application/vnd.amazon.eventstream" => frames(&answer.body),
        kind if kind.starts_with("text/event-stream") => {
            let text = answer.text();
            text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line).to_owned()).collect()
        }
        kind => panic!("a content type that no dialect has: {kind}"),
    };
    objects.into_iter().map(|object| scrubbed(serde_json::from_str(&object).unwrap_or(Value::String(object)))).collect()
}

/// Returns the payloads of event-stream frames: two lengths and a checksum, headers, payload, a
/// checksum.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut payloads = Vec::new();
    while !bytes.is_empty() {
        let length =
            |offset: usize| u32::from_be_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes")) as usize;
        let (whole, headers) = (length(0), length(4));
        payloads.push(String::from_utf8(bytes[12 + headers..whole - 4].to_vec()).expect("UTF-8"));
        bytes = &bytes[whole..];
    }
    payloads
}

fn scrubbed(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| {
                !["id", "item_id", "request_id", "created", "created_at", "latencyMs"].contains(&name.as_str())
            })
            .map(|(name, value)| (name, scrubbed(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(scrubbed).collect(),
        scalar => scalar,
    }
}

#[tokio::test]
async fn a_job_is_visible_to_its_tenant_only() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    for id in [id.as_str(), "018f0000-0000-7000-8000-000000000000", "nothing", &format!("{id}%23request")] {
        assert_eq!(deployment.job("u", id).await.status, 404, "{id}");
        assert_eq!(deployment.result("u", id).await.status, 404, "{id}");
        assert_eq!(deployment.cancel("u", id).await.status, 404, "{id}");
    }
    assert_eq!(deployment.job("t", &id).await.json()["status"], "queued");
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    assert_eq!(deployment.result("u", &id).await.status, 404);
}

#[tokio::test]
async fn a_job_can_be_cancelled_until_it_is_claimed() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let cancelled = deployment.cancel("t", &id).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    assert_eq!(deployment.cancel("t", &id).await.status, 200, "cancelling again changes nothing");
    assert_eq!(deployment.final_status(&id).await, "cancelled");
    eventually("its message is deleted", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
    let result = deployment.result("t", &id).await;
    assert!(result.status == 409 && result.text().contains("cancelled"), "{}", result.text());

    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    assert_eq!(deployment.cancel("t", &id).await.status, 409, "the job has ended");
    assert_eq!(deployment.job("t", &id).await.json()["status"], "succeeded");
}

#[tokio::test]
async fn a_job_that_finds_no_room_is_deferred_until_its_retry_time() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let first = deployment.stored(&id).await;
    let wait = first.ready_at - deployment.world.app.clock.now();
    // The queue's clock advances later, so that another request takes the room first.
    deployment.world.app.clock.advance(wait);
    let _faster_request = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    deployment.world.stand_in_clock.advance(wait.as_ms() + 1_000);
    let mut deferred = deployment.stored(&id).await;
    eventually("the job finds no room", async || {
        deferred = deployment.stored(&id).await;
        deferred.deferrals == 1 && deferred.status.name() == "queued"
    })
    .await;
    // Both times start at a refusal and are stored slightly later.
    let difference_ms = deferred.ready_at.as_ms().abs_diff(first.ready_at.as_ms() + 60_000);
    assert!(difference_ms < 1_000, "{difference_ms}");
    assert_eq!(deferred.attempts, 0, "a deferral is no failure");
    assert_eq!(deployment.job("t", &id).await.json()["estimated_start_ms"], deferred.ready_at.as_ms());
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    assert_eq!(deployment.stored(&id).await.attempts, 1);
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 0);
}

#[tokio::test]
async fn a_job_may_wait_for_more_turns_than_a_message_may_fail() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
    let running = deployment.occupy("t", ONE_REQUEST, 3_600_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let is_parked = |job: &spillway::job::Job| job.is_parked;
    let left = deployment.stored(&id).await.ready_at - deployment.world.app.clock.now();
    deployment.world.advance(left.as_ms() + 1_000);
    assert_eq!(deployment.stored_when(&id, is_parked).await.attempts, 0);
    let stored_backlog = async || deployment.world.app.backlogs.get("t").await.expect("the store");
    // The job is parked first, and its turn is planned second.
    eventually("a turn is planned", async || stored_backlog().await.is_some()).await;
    let backlog = async || stored_backlog().await.expect("a backlog");
    for turn in 2..=8 {
        let next = backlog().await.turn_at - deployment.world.app.clock.now();
        deployment.world.advance(next.as_ms() + 100);
        deployment.quickly(eventually("the next turn", async || backlog().await.turn >= turn)).await;
        let job = deployment.stored(&id).await;
        assert_eq!((job.status.name(), job.attempts, job.deferrals), ("queued", 0, 1));
    }
    deployment.world.app.ledger.settle(running, &Settled::refund()).await.expect("room again");
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 0);
}

#[tokio::test]
async fn a_job_that_fails_permanently_keeps_its_error_and_leaves_a_dead_letter() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let mut failed = Vec::new();
    for (path, mut body) in three_chats(5, Some(5)) {
        let path = path.replace("/m/", "/refuses/");
        if body.get("model").is_some() {
            body["model"] = json!("refuses");
        }
        let direct = deployment.ask(&path, "t", &body).await;
        let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
        let id = deployment.submit(&path, "t", &body).await;
        assert_eq!(deployment.final_status(&id).await, "failed", "{path}");
        let result = deployment.result("t", &id).await;
        assert_eq!((result.status, comparable(&result)), (400, comparable(&direct)), "{path}");
        assert_eq!(result.header("x-amzn-errortype"), direct.header("x-amzn-errortype"), "{path}");
        let error = deployment.job("t", &id).await.json()["error"].clone();
        assert!(error.as_str().is_some_and(|error| error.starts_with("Bedrock: ")), "{error}");
        failed.push(id);
        deployment.world.advance(60_000);
    }
    eventually("the messages are dead letters", async || deployment.messages_in(DEAD_LETTER_QUEUE).await == 3).await;
    assert_eq!(deployment.messages_in(JOB_QUEUE).await, 0);
    let sqs = deployment.sqs().await;
    let url =
        sqs.get_queue_url().queue_name(DEAD_LETTER_QUEUE).send().await.expect("a queue").queue_url.expect("a URL");
    let letters = sqs.receive_message().queue_url(url).max_number_of_messages(10).send().await.expect("letters");
    let mut bodies: Vec<String> =
        letters.messages.unwrap_or_default().into_iter().filter_map(|letter| letter.body).collect();
    bodies.sort();
    failed.sort();
    assert_eq!(bodies, failed);
    assert_eq!(deployment.quota("t").await["settled"]["requests"], 0, "nothing was charged");
}

#[tokio::test]
async fn a_job_survives_an_outage_of_the_model() {
    for outage in [json!({ "unavailable": true }), json!({ "throttle": true })] {
        let deployment = Deployment::with_tenants("limits = { in_flight = 1 }").await;
        let running = deployment.occupy("t", ONE_REQUEST, 3_600_000).await;
        let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
        deployment.set_model_faults(std::slice::from_ref(&outage)).await;
        deployment.world.app.ledger.settle(running, &Settled::refund()).await.expect("room again");
        for deferrals in 1..=6 {
            let left = deployment.stored(&id).await.ready_at - deployment.world.app.clock.now();
            deployment.world.advance(left.as_ms() + 1_000);
            let job = deployment.stored_when(&id, |job| job.deferrals >= deferrals || job.status.is_final()).await;
            assert!(!job.status.is_final(), "{outage}: {:?}", job.error);
        }
        deployment.set_model_faults(&[]).await;
        assert_eq!(deployment.final_status(&id).await, "succeeded", "{outage}");
        assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 0, "{outage}");
        let total = deployment.simulator().await["total"].clone();
        assert_eq!(total["succeeded"], 1, "{outage}: {total}");
    }
}

#[tokio::test]
async fn a_job_beyond_the_daily_quota_of_its_pool_is_deferred_for_minutes() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    deployment.set_model_faults(&[json!({ "daily_quota": true })]).await;
    for deferrals in 1..=2 {
        let left = deployment.stored(&id).await.ready_at - deployment.world.app.clock.now();
        deployment.world.advance(left.as_ms() + 1_000);
        let job = deployment.stored_when(&id, |job| job.deferrals >= deferrals).await;
        let wait = job.ready_at - deployment.world.app.clock.now();
        assert!((240_000..=330_000).contains(&wait.as_ms()), "deferral {deferrals}: {wait} ms");
    }
    assert_eq!(deployment.simulator().await["total"]["requests"], 2, "one call per rest");
    deployment.set_model_faults(&[]).await;
    let left = deployment.stored(&id).await.ready_at - deployment.world.app.clock.now();
    deployment.world.advance(left.as_ms() + 1_000);
    assert_eq!(deployment.final_status(&id).await, "succeeded");
}

#[tokio::test]
async fn a_failing_model_is_called_three_times_and_no_more() {
    for (times, status, attempts) in [(2, "succeeded", 3), (9, "failed", 3)] {
        let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
        let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
        let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
        deployment.set_model_faults(&[json!({ "error": "ModelErrorException", "times": times })]).await;
        for _ in 0..attempts {
            deployment.world.advance(61_000);
            let attempt = deployment.stored(&id).await.attempts + 1;
            deployment.stored_when(&id, |job| job.attempts >= attempt || job.status.is_final()).await;
            deployment.stored_when(&id, |job| job.status.name() != "running").await;
        }
        let job = deployment.stored(&id).await;
        assert_eq!((job.status.name(), job.attempts), (status, attempts));
        let result = deployment.result("t", &id).await;
        assert_eq!(result.status, if status == "succeeded" { 200 } else { 502 });
        assert_eq!(deployment.simulator().await["total"]["requests"], 3);
        let dead_letters = if status == "succeeded" { 0 } else { 1 };
        eventually("its message is deleted or a dead letter", async || {
            deployment.messages_in(DEAD_LETTER_QUEUE).await == dead_letters
                && deployment.messages_in(JOB_QUEUE).await == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_broken_stream_is_a_failed_attempt_and_not_a_partial_result() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let mut body = chat(50, 50);
    body["model"] = json!("breaks");
    body["stream"] = json!(true);
    let id = deployment.submit(CHAT, "t", &body).await;
    for _ in 0..3 {
        deployment.world.advance(61_000);
        let attempt = deployment.stored(&id).await.attempts + 1;
        deployment.stored_when(&id, |job| job.attempts >= attempt && job.status.name() != "running").await;
    }
    let result = deployment.result("t", &id).await;
    assert_eq!((result.status, result.header("content-type")), (502, "application/json"));
    assert_eq!(deployment.job("t", &id).await.json()["status"], "failed");
}

#[tokio::test]
async fn a_job_that_finds_no_room_before_its_deadline_expires() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }\njob_ttl_s = 60").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 3_600_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let expires_at = deployment.stored(&id).await.expires_at;
    while deployment.world.app.clock.now() < expires_at {
        assert!(!deployment.stored(&id).await.status.is_final());
        deployment.world.advance(2_000);
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    // Wait until no attempt runs. Otherwise the clock would be advanced by the whole lease of the
    // attempt.
    deployment.stored_when(&id, |job| job.status.name() != "running").await;
    assert_eq!(deployment.final_status(&id).await, "expired");
    let job = deployment.job("t", &id).await.json();
    let in_time = expires_at..expires_at + Millis::from_s(10);
    assert!(job["finished_ms"].as_u64().is_some_and(|at_ms| in_time.contains(&UnixMs::from_ms(at_ms))), "{job}");
    let result = deployment.result("t", &id).await;
    assert!(result.status == 409 && result.text().contains("expired"), "{}", result.text());
    eventually("no message is left", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 0);
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
}
