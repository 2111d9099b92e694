//! Webhooks: the end of a job is sent, signed, to the servers of its tenant only, until they accept
//! it.

mod delivery;
mod endpoints;

use bytes::Bytes;
use serde_json::{Value, json};
use spillway::{
    dialect::Api,
    drain::{handle, sweep},
    job::{Job, JobOutcome, JobReader, RESEND_AFTER, StoredResult},
    store::jobs::ClaimOutcome,
    stored_headers::StoredHeaders,
    tenant::EventType,
    units::{Millis, UnixMs},
    webhook::{self, WebhookEvent},
};

use crate::support::{
    Deployment, chat,
    jobs::{batch_of, new_job, two_tenants},
    key,
    receiver::{Received, Receiver},
    time::eventually,
};

const WEBHOOK_QUEUE: &str = "spillway-webhooks";

async fn start() -> (Deployment, Receiver) {
    let deployment = Deployment::start(&two_tenants("limits = { in_flight = 10 }")).await;
    let receiver = Receiver::start(&deployment).await;
    (deployment, receiver)
}

fn response(max_output_tokens: u64) -> Value {
    json!({ "model": "m", "input": "prompt [[output_tokens=7]]", "max_output_tokens": max_output_tokens })
}

/// Submits a job that is ready without sending its message.
async fn submit_without_message(deployment: &Deployment, api: Api, body: &Value) -> Job {
    let new = new_job(api, body, deployment.world.app.clock.now());
    deployment.world.app.jobs.submit(&new).await.expect("a job")
}

/// Runs a job to its end and returns it.
async fn run(deployment: &Deployment, api: Api, body: &Value) -> Job {
    let id = submit_without_message(deployment, api, body).await.id;
    handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
    deployment.stored(&id).await
}

async fn until_delivered(deployment: &Deployment) {
    eventually("the queue of webhooks is empty", async || deployment.messages_in(WEBHOOK_QUEUE).await == 0).await;
}

#[tokio::test]
async fn the_end_of_a_job_is_sent_once_with_a_valid_signature_and_without_its_content() {
    let (deployment, receiver) = start().await;
    let receiver_u = Receiver::start(&deployment).await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    deployment.endpoint("u", &receiver_u.url, &[]).await;
    let job = run(&deployment, Api::ChatCompletions, &chat(7, 7)).await;
    let request = receiver.first_requests(1).await.remove(0);

    let secret = endpoint.secret.expose();
    let reference = standardwebhooks::Webhook::new(secret).expect("a secret");
    reference.verify(request.body.as_bytes(), &request.headers).expect("valid");
    assert_eq!((request.path.as_str(), request.header("content-type")), ("/hook", "application/json"));
    let event = request.json();
    assert_eq!(event["id"], request.header("webhook-id"));
    assert_eq!((&event["object"], &event["type"]), (&json!("event"), &json!("job.succeeded")));
    assert_eq!(event["created_at"], job.finished_at.expect("ended").as_s());
    let result = format!("/v1/jobs/{}/result", job.id);
    assert_eq!(event["data"], json!({ "id": job.id, "status": "succeeded", "result": result }));
    assert!(!request.body.contains("output_tokens") && !request.body.contains(secret));

    assert_eq!(deployment.stored(&job.id).await.pending_event, None);
    deployment.world.advance((RESEND_AFTER * 10).as_ms());
    sweep(&deployment.world.app).await.expect("swept");
    until_delivered(&deployment).await;
    assert_eq!((receiver.received().len(), receiver_u.received().len()), (1, 0));
}

#[tokio::test]
async fn events_of_responses_and_batches_have_openais_format() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    let complete = run(&deployment, Api::Responses, &response(20)).await;
    let incomplete = run(&deployment, Api::Responses, &response(3)).await;
    let app = &deployment.world.app;
    let batch = WebhookEvent::for_batch(EventType::BatchCompleted, "batch_1", app.clock.now());
    webhook::notify(app, "t", &batch).await.expect("announced");
    let events: Vec<Value> = receiver.first_requests(3).await.iter().map(Received::json).collect();
    for (kind, id) in [
        ("response.completed", format!("resp_{}", complete.id)),
        ("response.incomplete", format!("resp_{}", incomplete.id)),
        ("batch.completed", "batch_1".to_owned()),
    ] {
        let event = events.iter().find(|event| event["type"] == kind).unwrap_or_else(|| panic!("{kind}: {events:?}"));
        assert_eq!(event["data"], json!({ "id": id }));
    }
    let answer = deployment.result("t", &complete.id).await.json();
    assert_eq!(answer["id"], format!("resp_{}", complete.id), "the id is the id of the answer");
}

#[tokio::test]
async fn every_final_status_is_sent() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    let body = json!({ "model": "nothing", "messages": [{ "role": "user", "content": "x" }] });
    let failed = run(&deployment, Api::ChatCompletions, &body).await;
    let cancelled = submit_without_message(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    assert_eq!(deployment.cancel("t", &cancelled.id).await.status, 200);
    let expired = submit_without_message(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    receiver.first_requests(2).await;
    deployment.world.advance(3_600_000);
    handle(&deployment.world.app, batch_of(&[&expired.id]), None).await.expect("handled");
    let events: Vec<Value> = receiver.first_requests(3).await.iter().map(Received::json).collect();
    for (kind, id) in [("job.failed", failed.id), ("job.cancelled", cancelled.id), ("job.expired", expired.id)] {
        assert!(events.iter().any(|event| event["type"] == kind && event["data"]["id"] == id), "{kind}: {events:?}");
    }
}

#[tokio::test]
async fn a_response_that_its_caller_cancels_or_deletes_is_reported_at_once() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    let app = &deployment.world.app;
    let mut ids = Vec::new();
    for is_deleted in [false, true] {
        let new = new_job(Api::Responses, &response(20), app.clock.now());
        let job = app.jobs.submit_for(JobReader::Background, &new).await.expect("a job");
        let id = format!("resp_{}", job.id.replace('-', ""));
        let path = format!("/v1/responses/{id}");
        let request = match is_deleted {
            false => deployment.post(&format!("{path}/cancel"), "t", &json!({})),
            true => deployment.http.delete(format!("{}{path}", deployment.world.url)).bearer_auth(key("t")),
        };
        assert_eq!(request.send().await.expect("an answer").status(), 200);
        ids.push(json!({ "id": id }));
    }
    let events: Vec<Value> = receiver.first_requests(2).await.iter().map(Received::json).collect();
    for id in ids {
        let is_reported = |event: &Value| event["type"] == "response.cancelled" && event["data"] == id;
        assert!(events.iter().any(is_reported), "{id}: {events:?}");
    }
}

#[tokio::test]
async fn an_endpoint_gets_only_the_events_that_it_subscribes_to() {
    let (deployment, receiver) = start().await;
    let unfiltered = Receiver::start(&deployment).await;
    deployment.endpoint("t", &receiver.url, &[EventType::BatchFailed, EventType::ResponseCompleted]).await;
    deployment.endpoint("t", &unfiltered.url, &[]).await;
    run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    run(&deployment, Api::Responses, &response(20)).await;
    let all_events = unfiltered.first_requests(2).await;
    until_delivered(&deployment).await;
    let subscribed = receiver.first_requests(1).await;
    assert_eq!((subscribed.len(), subscribed[0].json()["type"].as_str()), (1, Some("response.completed")));
    let id = subscribed[0].header("webhook-id");
    assert!(all_events.iter().any(|event| event.header("webhook-id") == id), "one event has one id");
}

#[tokio::test]
async fn the_sweep_sends_an_event_that_was_not_sent() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    let app = &deployment.world.app;
    let id = submit_without_message(&deployment, Api::ChatCompletions, &chat(5, 5)).await.id;
    // As a drain leaves it that dies after it has stored the answer and before it sends the event.
    let ClaimOutcome::Run { job, .. } = app.jobs.claim(&id, Millis::from_s(60), app.clock.now()).await.expect("read")
    else {
        panic!("the job cannot be claimed");
    };
    let result = StoredResult { status: 200, headers: StoredHeaders::default(), body: Bytes::from_static(b"{}") };
    app.jobs.finish(&job, &JobOutcome::Succeeded(result), app.clock.now()).await.expect("finished");
    assert_eq!(deployment.stored(&id).await.pending_event, Some(EventType::JobSucceeded));
    sweep(app).await.expect("swept");
    assert_eq!(receiver.received().len(), 0, "the drain that ended the job may still send the event");

    deployment.world.advance(RESEND_AFTER.as_ms());
    sweep(app).await.expect("swept");
    let request = receiver.first_requests(1).await.remove(0);
    assert_eq!((&request.json()["type"], &request.json()["data"]["id"]), (&json!("job.succeeded"), &json!(id)));
    assert_eq!(deployment.stored(&id).await.pending_event, None);
    assert!(
        app.jobs.overdue(10, UnixMs::from_ms(u64::MAX / 2)).await.expect("read").is_empty(),
        "no overdue job is left"
    );
}

#[tokio::test]
async fn an_event_that_is_sent_twice_has_the_same_id_and_body() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    let job = run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    let unannounced = Job { pending_event: Some(EventType::JobSucceeded), ..job };
    deployment.world.advance(5_000);
    webhook::notify_job(&deployment.world.app, &unannounced).await.expect("sent again");
    let requests = receiver.first_requests(2).await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].body, requests[1].body);
}

#[tokio::test]
async fn an_event_without_an_endpoint_costs_nothing() {
    let (deployment, receiver) = start().await;
    let writes = async || deployment.dynamodb_operations().await["PutItem"].as_u64().unwrap_or_default();
    let run_and_count = async || {
        let before = writes().await;
        let job = run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
        assert_eq!((job.status.name(), job.pending_event), ("succeeded", None));
        writes().await - before
    };
    let writes_without_endpoint = run_and_count().await;
    assert_eq!(deployment.messages_in(WEBHOOK_QUEUE).await, 0);
    deployment.endpoint("t", &receiver.url, &[EventType::BatchFailed]).await;
    assert_eq!(run_and_count().await, writes_without_endpoint, "an event without a subscriber costs nothing");
}
