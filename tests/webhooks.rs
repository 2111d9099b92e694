//! Webhooks: the end of a job is sent, signed, to the servers of its tenant only, until they accept
//! it.

use aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessagesDelayed as Delayed;
use bytes::Bytes;
use clap::Parser;
use serde_json::{Value, json};
use spillway::{
    dialect::Api,
    drain::{DrainEvent, handle, sweep},
    job::{Job, JobOutcome, JobReader, RESEND_AFTER, StoredResult},
    outbound::Outbound,
    queue::MAX_RECEIVES,
    store::jobs::ClaimOutcome,
    stored_headers::StoredHeaders,
    telemetry::Telemetry,
    tenant::EventType,
    units::{Millis, UnixMs},
    webhook::{self, WebhookEvent},
};
use spillway_command::admin::{self, Admin};

use crate::support::{
    Deployment, chat,
    jobs::{batch_of, new_job, two_tenants},
    key,
    receiver::{Received, Receiver, status},
    recorded::{Recorded, record_logs},
    time::eventually,
};

const WEBHOOK_QUEUE: &str = "spillway-webhooks";
const WEBHOOK_DEAD_LETTER_QUEUE: &str = "spillway-webhooks-dead";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Admin,
}

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

/// Awaits `future` while the clocks repeatedly advance by `step_ms`.
async fn advancing<F: Future>(deployment: &Deployment, step_ms: u64, future: F) -> F::Output {
    let advance = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
            deployment.world.advance(step_ms);
        }
    };
    tokio::select! {
        output = future => output,
        () = advance => unreachable!("the clocks run forever"),
    }
}

/// Waits for `count` requests while the clocks repeatedly advance by `step_ms`, but only while all
/// `messages` are delayed, never during a delivery. A delivery would time out.
async fn requests_after_delays(
    deployment: &Deployment,
    receiver: &Receiver,
    messages: usize,
    count: usize,
    step_ms: u64,
) -> Vec<Received> {
    let sqs = deployment.sqs().await;
    let queue = deployment.world.app.webhooks.clone().expect("a queue");
    eventually("the event is sent again", async || {
        let response = sqs.get_queue_attributes().queue_url(queue.url()).attribute_names(Delayed).send().await;
        let attributes = response.expect("an answer").attributes.expect("attributes");
        if attributes[&Delayed] == messages.to_string() {
            deployment.world.advance(step_ms);
        }
        receiver.received().len() >= count
    })
    .await;
    receiver.received()
}

/// Runs `spillway webhooks …`. Returns its output or its error.
async fn command(deployment: &Deployment, arguments: &[&str]) -> Result<String, String> {
    let cli = Cli::try_parse_from(["spillway", "webhooks"].iter().chain(arguments)).map_err(|e| e.to_string())?;
    let app = &deployment.world.app;
    let mut out = Vec::new();
    let result = admin::execute(cli.command, app, app.clock.now(), &mut out).await;
    let printed = String::from_utf8(out).expect("text");
    result.map(|_| printed).map_err(|error| format!("{error:#}"))
}

/// Returns the rest of the line in `printed` that starts with `name`.
fn line(printed: &str, name: &str) -> String {
    let line = printed.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {printed}")).trim().to_owned()
}

/// Returns a message of the webhook queue for attempt number `attempt` to send an event to
/// `endpoint`.
fn message(endpoint: &str, attempt: u32) -> String {
    let (event, body) = ("evt_1", "{\"id\":\"evt_1\"}");
    json!({
        "tenant": "t", "endpoint": endpoint, "event": event, "kind": "job.failed", "body": body,
        "attempt": attempt, "due_ms": 0, "first_ms": 0,
    })
    .to_string()
}

/// Returns the event with which SQS invokes the drain Lambda for messages of the webhook queue.
fn batch_from_webhooks(bodies: &[String]) -> DrainEvent {
    let arn = format!("arn:aws:sqs:us-east-1:123456789012:{WEBHOOK_QUEUE}");
    let record = |(number, body): (usize, &String)| {
        let (id, receipt) = (format!("m{number}"), "none");
        json!({ "messageId": id, "receiptHandle": receipt, "body": body, "eventSourceARN": arn })
    };
    serde_json::from_value(json!({ "Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>() }))
        .expect("an event")
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

#[tokio::test]
async fn a_failing_endpoint_is_retried_at_the_times_of_the_schedule() {
    let (deployment, receiver) = start().await;
    let redirect_target = Receiver::start(&deployment).await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    let redirect = (307, vec![("location", redirect_target.url.clone())]);
    let busy = (429, vec![("retry-after", "3600".to_owned())]);
    receiver.will_answer([status(500), redirect, busy, status(503)]);
    run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    receiver.first_requests(1).await;

    // The third answer asks for a pause of one hour instead of half an hour.
    for (attempt, pause_ms) in [(2, 5_000), (3, 300_000), (4, 3_600_000), (5, 7_200_000)] {
        let step_ms = pause_ms / 40;
        let requests = requests_after_delays(&deployment, &receiver, 1, attempt, step_ms).await;
        let waited_ms = (requests[attempt - 1].received_at - requests[attempt - 2].received_at).as_ms();
        // A message may be a second early, and its delay is rounded up to a second.
        let range_ms = pause_ms - 1_000..=pause_ms * 11 / 10 + step_ms + 5_000;
        assert!(range_ms.contains(&waited_ms), "attempt {attempt}: {waited_ms} ms");
    }
    until_delivered(&deployment).await;
    let requests = receiver.received();
    assert_eq!((requests.len(), redirect_target.received().len()), (5, 0), "redirects are not followed");
    for attempt in &requests {
        assert_eq!(
            (attempt.header("webhook-id"), &attempt.body),
            (requests[0].header("webhook-id"), &requests[0].body)
        );
        assert!(attempt.is_signed_with(endpoint.secret.expose()));
        let signed_s: u64 = attempt.header("webhook-timestamp").parse().expect("seconds");
        let signed_at = UnixMs::from_ms(signed_s * 1_000);
        assert!(attempt.received_at - signed_at < Millis::from_s(60), "each attempt is signed anew");
    }
}

#[tokio::test]
async fn an_endpoint_that_answers_410_is_not_called_again() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    receiver.will_answer([status(410)]);
    run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    receiver.first_requests(1).await;
    until_delivered(&deployment).await;
    assert_eq!(deployment.messages_in(WEBHOOK_DEAD_LETTER_QUEUE).await, 0);
}

#[tokio::test]
async fn an_undeliverable_event_goes_to_the_dead_letter_queue() {
    let (deployment, receiver) = start().await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    receiver.will_answer((0..9).map(|_| status(500)));
    let last_attempt = message(&endpoint.id, 10);
    let queue = deployment.world.app.webhooks.clone().expect("a queue");
    queue.send(&last_attempt, "t", Millis::ZERO).await.expect("sent");
    let has_dead_letter = async || deployment.messages_in(WEBHOOK_DEAD_LETTER_QUEUE).await == 1;
    advancing(&deployment, 5_000, eventually("the event becomes a dead letter", has_dead_letter)).await;
    let receives = usize::try_from(MAX_RECEIVES).expect("a small number");
    let attempts = receiver.first_requests(receives).await.len();
    assert_eq!(attempts, receives, "the last attempt is made as often as SQS delivers the message");
}

#[tokio::test]
async fn the_drain_lambda_distinguishes_webhooks_from_jobs_by_their_queue() {
    let (deployment, receiver) = start().await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    let app = &deployment.world.app;
    let removed = message("we_removed", 1);
    let batch = batch_from_webhooks(&[message(&endpoint.id, 1), "no delivery".to_owned(), removed]);
    let handled = handle(app, batch, None).await.expect("handled");
    let failed: Vec<_> = handled.batch_item_failures.iter().map(|failed| failed.item_identifier.as_str()).collect();
    assert_eq!((failed, receiver.received().len()), (vec!["m1"], 1));

    receiver.will_answer([status(500)]);
    let handled = handle(app, batch_from_webhooks(&[message(&endpoint.id, 10)]), None).await.expect("handled");
    assert_eq!(handled.batch_item_failures.len(), 1, "the last attempt failed");
}

#[tokio::test]
async fn a_private_address_is_not_called_unless_it_is_allowed() {
    let (deployment, receiver) = start().await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    let mut app = deployment.world.app.clone();
    // As in a Lambda, which calls only public addresses.
    app.outbound = Outbound::default();
    let handled = handle(&app, batch_from_webhooks(&[message(&endpoint.id, 1)]), None).await.expect("handled");
    assert_eq!((handled.batch_item_failures.len(), receiver.received().len()), (0, 0));
    assert_eq!(
        deployment.messages_in(WEBHOOK_QUEUE).await,
        1,
        "the call may succeed later, when the endpoint has another address"
    );

    for url in ["https://10.0.0.1/hook", "https://169.254.169.254/", "https://[fd00:ec2::254]/", "http://example.com/"]
    {
        let error = command(&deployment, &["add", "t", url]).await.expect_err(url);
        assert!(error.starts_with("the URL cannot be used: "), "{error}");
    }
    assert_eq!(app.registry.endpoints("t").await.expect("read").len(), 1);
}

#[tokio::test]
async fn an_endpoint_gets_no_events_until_it_has_answered_a_challenge() {
    let (deployment, receiver) = start().await;
    receiver.will_answer([status(500)]);
    let printed = command(&deployment, &["add", "t", &receiver.url, "--event", "job.succeeded"]).await.expect("added");
    let (id, secret) = (line(&printed, "endpoint "), line(&printed, "secret "));
    assert!(printed.contains("not verified: it answered 500"), "{printed}");
    let row = |verified: &str| format!("{id}  {}  job.succeeded  {verified}", receiver.url);
    assert!(command(&deployment, &["list", "t"]).await.expect("listed").contains(&row("no")));
    run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    until_delivered(&deployment).await;
    let challenges = receiver.received();
    assert_eq!((challenges.len(), &challenges[0].json()["type"]), (1, &json!("endpoint.verification")));
    assert!(challenges[0].is_signed_with(&secret));

    assert_eq!(command(&deployment, &["verify", &id]).await.expect("verified"), format!("verified endpoint {id}\n"));
    let listed = command(&deployment, &["list", "t"]).await.expect("listed");
    assert!(listed.contains(&row("yes")) && !listed.contains(&secret), "{listed}");
    let job = run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    let request = receiver.first_requests(3).await.remove(2);
    assert_eq!(request.json()["data"]["id"], json!(job.id));
    assert_ne!(challenges[0].json()["data"]["challenge"], receiver.received()[1].json()["data"]["challenge"]);
}

#[tokio::test]
async fn during_a_rotation_both_secrets_sign() {
    let (deployment, receiver) = start().await;
    let printed = command(&deployment, &["add", "t", &receiver.url]).await.expect("added");
    assert!(printed.ends_with("verified\n"), "{printed}");
    let (id, old) = (line(&printed, "endpoint "), line(&printed, "secret "));
    let new = line(&command(&deployment, &["rotate", &id, "--keep-old-hours", "2"]).await.expect("rotated"), "secret ");
    assert_ne!(old, new);
    let next_event = async |count: usize| {
        run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
        receiver.first_requests(count).await.remove(count - 1)
    };
    let during_overlap = next_event(2).await;
    let signature = during_overlap.header("webhook-signature");
    assert!(during_overlap.is_signed_with(&old) && during_overlap.is_signed_with(&new), "{signature}");
    deployment.world.advance(2 * 3_600_000);
    let after_overlap = next_event(3).await;
    let signature = after_overlap.header("webhook-signature");
    assert!(!after_overlap.is_signed_with(&old) && after_overlap.is_signed_with(&new), "{signature}");

    let printed = command(&deployment, &["rotate", &id, "--keep-old-hours", "0"]).await.expect("rotated");
    let immediate = next_event(4).await;
    assert!(!immediate.is_signed_with(&new) && immediate.is_signed_with(&line(&printed, "secret ")));
}

#[tokio::test]
async fn a_removed_endpoint_gets_no_more_events() {
    let (deployment, receiver) = start().await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    let id = endpoint.id.as_str();
    assert_eq!(command(&deployment, &["remove", id]).await.expect("removed"), format!("removed endpoint {id}\n"));
    run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    assert_eq!((receiver.received().len(), deployment.messages_in(WEBHOOK_QUEUE).await), (0, 0));
    for arguments in [["remove", id], ["rotate", id], ["verify", id]] {
        assert_eq!(command(&deployment, &arguments).await, Err(format!("there is no endpoint {id}")));
    }
    let error = command(&deployment, &["add", "absent", &receiver.url]).await.expect_err("no tenant");
    assert!(error.contains("there is no tenant absent"), "{error}");
    let error = command(&deployment, &["add", "t", &receiver.url, "--event", "job.began"]).await.expect_err("unknown");
    assert!(error.contains("response.completed"), "{error}");
    deployment.endpoint("t", &receiver.url, &[]).await;
    deployment.world.app.registry.delete_tenant("t").await.expect("deleted");
    assert!(deployment.world.app.registry.endpoints("t").await.expect("read").is_empty());
}

#[tokio::test]
async fn a_tenant_may_have_ten_endpoints_and_no_more() {
    let (deployment, receiver) = start().await;
    for _ in 0..10 {
        deployment.endpoint("t", &receiver.url, &[]).await;
    }
    let error = command(&deployment, &["add", "t", &receiver.url]).await.expect_err("too many");
    assert_eq!(error, "tenant t already has 10 endpoints, the maximum");
}

#[tokio::test]
async fn events_and_logs_contain_no_secret_signature_or_path() {
    let (events, logs) = (Recorded::default(), Recorded::default());
    let _logging = record_logs(&logs);
    let settings = two_tenants("limits = { in_flight = 10 }");
    let deployment = Deployment::start_with(&settings, Telemetry::to(events.clone())).await;
    let receiver = Receiver::start(&deployment).await;
    let url = receiver.url.replace("/hook", "/s3cr3t-path");
    let endpoint = deployment.endpoint("t", &url, &[]).await;
    deployment.endpoint("t", "http://127.0.0.1:1/s3cr3t-path", &[]).await;
    receiver.will_answer([status(500), status(410)]);
    run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    requests_after_delays(&deployment, &receiver, 2, 2, 500).await;
    let written = || String::from_utf8_lossy(&[events.lines(), logs.lines()].concat()).into_owned();
    eventually("the error is logged", async || written().contains("410 Gone")).await;
    let written = written();
    for line in ["it answered 500", "no answer: "] {
        assert!(written.contains(line), "{line}");
    }
    let signature = receiver.received()[0].header("webhook-signature")[3..].to_owned();
    // At this level the AWS SDK logs its requests, too. They are not part of the product's logs.
    let product_lines = written.lines().filter(|line| line.contains("spillway::") || line.contains("Spillway"));
    for line in product_lines {
        for word in [&endpoint.secret.expose()[6..], signature.as_str(), "s3cr3t-path"] {
            assert!(!line.contains(word), "{line}");
        }
    }
}
