//! Webhooks: the end of a job is told to its tenant's servers, signed, until they take it – and to
//! nobody else.

use aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessagesDelayed as Delayed;
use bytes::Bytes;
use clap::Parser;
use serde_json::{Value, json};
use spillway::{
    drain::{DrainEvent, handle, sweep},
    job::{Job, Outcome, RESEND_AFTER_MS, StoredResult},
    outbound::Outbound,
    store::jobs::Claim,
    telemetry::Telemetry,
    tenant::EventType,
    webhook::{self, Event},
};
use spillway_command::admin::{self, Admin};

use crate::support::{
    Deployment, chat,
    jobs::{batch_of, new_job, two_tenants},
    receiver::{Received, Receiver, status},
    recorded::Recorded,
    time::eventually,
};

const WEBHOOKS: &str = "spillway-webhooks";
const DEAD_WEBHOOKS: &str = "spillway-webhooks-dead";
const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";

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

/// Stores a job that is ready, without sending its message.
async fn accepted(deployment: &Deployment, path: &str, body: &Value) -> Job {
    let now_ms = deployment.world.app.clock.now_ms();
    let new = new_job(path, body, now_ms);
    deployment.world.app.jobs.submit(&new).await.expect("a job")
}

/// A job that was run to its end.
async fn run(deployment: &Deployment, path: &str, body: &Value) -> Job {
    let id = accepted(deployment, path, body).await.id;
    handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
    deployment.stored(&id).await
}

/// The result of `future`, with the time moving by `step_ms` again and again meanwhile.
async fn paced<F: Future>(deployment: &Deployment, step_ms: u64, future: F) -> F::Output {
    let pace = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
            deployment.world.advance(step_ms);
        }
    };
    tokio::select! {
        output = future => output,
        () = pace => unreachable!("time does not end"),
    }
}

/// The first `count` requests, with the time moving by `step_ms` again and again, but only while
/// the message of the next one is delayed: never during a delivery.
async fn told_later(deployment: &Deployment, receiver: &Receiver, count: usize, step_ms: u64) -> Vec<Received> {
    let sqs = deployment.sqs().await;
    let queue = deployment.world.app.webhooks.clone().expect("a queue");
    eventually("it is told again", async || {
        let asked = sqs.get_queue_attributes().queue_url(queue.url()).attribute_names(Delayed).send().await;
        let attributes = asked.expect("an answer").attributes.expect("attributes");
        if attributes[&Delayed] == "1" {
            deployment.world.advance(step_ms);
        }
        receiver.received().len() >= count
    })
    .await;
    receiver.received()
}

/// What the command prints, with or without success.
async fn command(deployment: &Deployment, arguments: &[&str]) -> Result<String, String> {
    let cli = Cli::try_parse_from(["spillway", "webhooks"].iter().chain(arguments)).map_err(|e| e.to_string())?;
    let app = &deployment.world.app;
    let mut out = Vec::new();
    let done = admin::execute(cli.command, app, app.clock.now_ms(), &mut out).await;
    let printed = String::from_utf8(out).expect("text");
    done.map(|_| printed).map_err(|error| format!("{error:#}"))
}

/// The value that `printed` gives after `name`, on a line of its own.
fn line(printed: &str, name: &str) -> String {
    let line = printed.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {printed}")).trim().to_owned()
}

/// A message of the webhook queue, for attempt number `attempt` at telling `endpoint` something.
fn message(endpoint: &str, attempt: u32) -> String {
    let (event, body) = ("evt_1", "{\"id\":\"evt_1\"}");
    json!({
        "tenant": "t", "endpoint": endpoint, "event": event, "kind": "job.failed", "body": body,
        "attempt": attempt, "due_ms": 0, "first_ms": 0,
    })
    .to_string()
}

/// An event as SQS invokes the drain Lambda with it from the webhook queue.
fn batch_from_webhooks(bodies: &[String]) -> DrainEvent {
    let arn = format!("arn:aws:sqs:us-east-1:123456789012:{WEBHOOKS}");
    let record = |(number, body): (usize, &String)| {
        let (id, receipt) = (format!("m{number}"), "none");
        json!({ "messageId": id, "receiptHandle": receipt, "body": body, "eventSourceARN": arn })
    };
    serde_json::from_value(json!({ "Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>() }))
        .expect("an event")
}

async fn is_delivered(deployment: &Deployment) {
    eventually("the queue of webhooks is empty", async || deployment.messages_in(WEBHOOKS).await == 0).await;
}

#[tokio::test]
async fn the_end_of_a_job_is_told_once_with_a_valid_signature_and_without_its_text() {
    let (deployment, receiver) = start().await;
    let other = Receiver::start(&deployment).await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    deployment.endpoint("u", &other.url, &[]).await;
    let job = run(&deployment, CHAT, &chat(7, 7)).await;
    let told = receiver.first_requests(1).await.remove(0);

    let secret = endpoint.secret.expose();
    let reference = standardwebhooks::Webhook::new(secret).expect("a secret");
    reference.verify(told.body.as_bytes(), &told.headers).expect("valid");
    assert_eq!((told.path.as_str(), told.header("content-type")), ("/hook", "application/json"));
    let event = told.json();
    assert_eq!(event["id"], told.header("webhook-id"));
    assert_eq!((&event["object"], &event["type"]), (&json!("event"), &json!("job.succeeded")));
    assert_eq!(event["created_at"], job.finished_ms.expect("ended") / 1_000);
    let result = format!("/v1/jobs/{}/result", job.id);
    assert_eq!(event["data"], json!({ "id": job.id, "status": "succeeded", "result": result }));
    assert!(!told.body.contains("output_tokens") && !told.body.contains(secret));

    assert_eq!(deployment.stored(&job.id).await.announce, None);
    deployment.world.advance(10 * RESEND_AFTER_MS);
    sweep(&deployment.world.app).await.expect("swept");
    is_delivered(&deployment).await;
    assert_eq!((receiver.received().len(), other.received().len()), (1, 0));
}

#[tokio::test]
async fn responses_and_batches_are_told_as_openai_tells_them() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    let whole = run(&deployment, RESPONSES, &response(20)).await;
    let cut = run(&deployment, RESPONSES, &response(3)).await;
    let app = &deployment.world.app;
    let batch = Event::of_batch(EventType::BatchCompleted, "batch_1", app.clock.now_ms());
    webhook::announce(app, "t", &batch).await.expect("announced");
    let told: Vec<Value> = receiver.first_requests(3).await.iter().map(Received::json).collect();
    for (kind, id) in [
        ("response.completed", format!("resp_{}", whole.id)),
        ("response.incomplete", format!("resp_{}", cut.id)),
        ("batch.completed", "batch_1".to_owned()),
    ] {
        let event = told.iter().find(|event| event["type"] == kind).unwrap_or_else(|| panic!("{kind}: {told:?}"));
        assert_eq!(event["data"], json!({ "id": id }));
    }
    let answer = deployment.result("t", &whole.id).await.json();
    assert_eq!(answer["id"], format!("resp_{}", whole.id), "the id is the one in the answer");
}

#[tokio::test]
async fn every_way_to_end_is_told() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    let body = json!({ "model": "nothing", "messages": [{ "role": "user", "content": "x" }] });
    let failed = run(&deployment, CHAT, &body).await;
    let cancelled = accepted(&deployment, CHAT, &chat(5, 5)).await;
    assert_eq!(deployment.cancel("t", &cancelled.id).await.status, 200);
    let expired = accepted(&deployment, CHAT, &chat(5, 5)).await;
    receiver.first_requests(2).await;
    deployment.world.advance(3_600_000);
    handle(&deployment.world.app, batch_of(&[&expired.id]), None).await.expect("handled");
    let told: Vec<Value> = receiver.first_requests(3).await.iter().map(Received::json).collect();
    for (kind, id) in [("job.failed", failed.id), ("job.cancelled", cancelled.id), ("job.expired", expired.id)] {
        assert!(told.iter().any(|event| event["type"] == kind && event["data"]["id"] == id), "{kind}: {told:?}");
    }
}

#[tokio::test]
async fn an_endpoint_is_told_only_of_what_it_wants() {
    let (deployment, receiver) = start().await;
    let every = Receiver::start(&deployment).await;
    deployment.endpoint("t", &receiver.url, &[EventType::BatchFailed, EventType::ResponseCompleted]).await;
    deployment.endpoint("t", &every.url, &[]).await;
    run(&deployment, CHAT, &chat(5, 5)).await;
    run(&deployment, RESPONSES, &response(20)).await;
    let all = every.first_requests(2).await;
    is_delivered(&deployment).await;
    let some = receiver.first_requests(1).await;
    assert_eq!((some.len(), some[0].json()["type"].as_str()), (1, Some("response.completed")));
    assert!(all.iter().any(|told| told.header("webhook-id") == some[0].header("webhook-id")), "one event, one id");
}

#[tokio::test]
async fn an_end_that_was_not_told_is_found_by_the_sweep() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    let app = &deployment.world.app;
    let id = accepted(&deployment, CHAT, &chat(5, 5)).await.id;
    // What a drain leaves that dies between storing the answer and telling of it.
    let Claim::Run { job, .. } = app.jobs.claim(&id, 60_000, app.clock.now_ms()).await.expect("read") else {
        panic!("not to be run");
    };
    let result = StoredResult { status: 200, headers: Vec::new(), body: Bytes::from_static(b"{}") };
    app.jobs.finish(&job, &Outcome::Succeeded(result), app.clock.now_ms()).await.expect("finished");
    assert_eq!(deployment.stored(&id).await.announce, Some(EventType::JobSucceeded));
    sweep(app).await.expect("swept");
    assert_eq!(receiver.received().len(), 0, "whoever ended it may still be about to tell");

    deployment.world.advance(RESEND_AFTER_MS);
    sweep(app).await.expect("swept");
    let told = receiver.first_requests(1).await.remove(0);
    assert_eq!((&told.json()["type"], &told.json()["data"]["id"]), (&json!("job.succeeded"), &json!(id)));
    assert_eq!(deployment.stored(&id).await.announce, None);
    assert!(app.jobs.overdue(10, u64::MAX / 2).await.expect("read").is_empty(), "nothing is left to be done");
}

#[tokio::test]
async fn an_end_that_is_told_twice_is_told_with_the_same_id_and_body() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    let job = run(&deployment, CHAT, &chat(5, 5)).await;
    let untold = Job { announce: Some(EventType::JobSucceeded), ..job };
    deployment.world.advance(5_000);
    webhook::announce_job(&deployment.world.app, &untold).await.expect("told again");
    let told = receiver.first_requests(2).await;
    assert_eq!(told[0].header("webhook-id"), told[1].header("webhook-id"));
    assert_eq!(told[0].body, told[1].body);
}

#[tokio::test]
async fn without_an_endpoint_an_end_costs_nothing() {
    let (deployment, receiver) = start().await;
    let writes = async || deployment.dynamodb_operations().await["PutItem"].as_u64().unwrap_or_default();
    let run_and_count = async || {
        let before = writes().await;
        let job = run(&deployment, CHAT, &chat(5, 5)).await;
        assert_eq!((job.status.name(), job.announce), ("succeeded", None));
        writes().await - before
    };
    let without = run_and_count().await;
    assert_eq!(deployment.messages_in(WEBHOOKS).await, 0);
    deployment.endpoint("t", &receiver.url, &[EventType::BatchFailed]).await;
    assert_eq!(run_and_count().await, without, "nor does an event that no endpoint wants");
}

#[tokio::test]
async fn an_endpoint_that_fails_is_asked_again_at_the_times_of_the_schedule() {
    let (deployment, receiver) = start().await;
    let elsewhere = Receiver::start(&deployment).await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    let redirect = (307, vec![("location", elsewhere.url.clone())]);
    let busy = (429, vec![("retry-after", "3600".to_owned())]);
    receiver.will_answer([status(500), redirect, busy, status(503)]);
    run(&deployment, CHAT, &chat(5, 5)).await;
    receiver.first_requests(1).await;

    // The third answer asks for an hour instead of half of one.
    for (attempt, pause_ms) in [(2, 5_000), (3, 300_000), (4, 3_600_000), (5, 7_200_000)] {
        let step_ms = pause_ms / 40;
        let told = told_later(&deployment, &receiver, attempt, step_ms).await;
        let waited_ms = told[attempt - 1].at_ms - told[attempt - 2].at_ms;
        // A message may be a second early, and its delay is rounded up to a second.
        let range_ms = pause_ms - 1_000..=pause_ms * 11 / 10 + step_ms + 5_000;
        assert!(range_ms.contains(&waited_ms), "attempt {attempt}: {waited_ms} ms");
    }
    is_delivered(&deployment).await;
    let told = receiver.received();
    assert_eq!((told.len(), elsewhere.received().len()), (5, 0), "redirects are not followed");
    for attempt in &told {
        assert_eq!((attempt.header("webhook-id"), &attempt.body), (told[0].header("webhook-id"), &told[0].body));
        assert!(attempt.is_signed_with(endpoint.secret.expose()));
        let signed_ms: u64 = attempt.header("webhook-timestamp").parse::<u64>().expect("seconds") * 1_000;
        assert!(attempt.at_ms - signed_ms < 60_000, "each attempt is signed anew");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_not_asked_again() {
    let (deployment, receiver) = start().await;
    deployment.endpoint("t", &receiver.url, &[]).await;
    receiver.will_answer([status(410)]);
    run(&deployment, CHAT, &chat(5, 5)).await;
    receiver.first_requests(1).await;
    is_delivered(&deployment).await;
    assert_eq!(deployment.messages_in(DEAD_WEBHOOKS).await, 0);
}

#[tokio::test]
async fn an_event_that_nobody_takes_goes_to_the_dead_letter_queue() {
    let (deployment, receiver) = start().await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    receiver.will_answer((0..9).map(|_| status(500)));
    let last = message(&endpoint.id, 10);
    let queue = deployment.world.app.webhooks.clone().expect("a queue");
    queue.send(&last, "t", 0).await.expect("sent");
    let dead = async || deployment.messages_in(DEAD_WEBHOOKS).await == 1;
    paced(&deployment, 5_000, eventually("it is given up", dead)).await;
    let attempts = receiver.first_requests(3).await.len();
    assert_eq!(attempts, 3, "the last attempt is made as often as SQS shows the message");
}

#[tokio::test]
async fn the_drain_lambda_tells_webhooks_from_jobs_by_their_queue() {
    let (deployment, receiver) = start().await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    let app = &deployment.world.app;
    let gone = message("we_removed", 1);
    let batch = batch_from_webhooks(&[message(&endpoint.id, 1), "no delivery".to_owned(), gone]);
    let handled = handle(app, batch, None).await.expect("handled");
    let failed: Vec<_> = handled.batch_item_failures.iter().map(|failed| failed.item_identifier.as_str()).collect();
    assert_eq!((failed, receiver.received().len()), (vec!["m1"], 1));

    receiver.will_answer([status(500)]);
    let handled = handle(app, batch_from_webhooks(&[message(&endpoint.id, 10)]), None).await.expect("handled");
    assert_eq!(handled.batch_item_failures.len(), 1, "the last attempt failed");
}

#[tokio::test]
async fn a_private_address_is_called_by_nobody_who_was_not_allowed_to() {
    let (deployment, receiver) = start().await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    let mut app = deployment.world.app.clone();
    // As in a Lambda, where nothing but the public Internet is reached.
    app.outbound = Outbound::default();
    let handled = handle(&app, batch_from_webhooks(&[message(&endpoint.id, 1)]), None).await.expect("handled");
    assert_eq!((handled.batch_item_failures.len(), receiver.received().len()), (0, 0));
    assert_eq!(deployment.messages_in(WEBHOOKS).await, 1, "it may be called again when it has another address");

    for url in ["https://10.0.0.1/hook", "https://169.254.169.254/", "https://[fd00:ec2::254]/", "http://example.com/"]
    {
        let told = command(&deployment, &["add", "t", url]).await.expect_err(url);
        assert!(told.starts_with("the URL cannot be used: "), "{told}");
    }
    assert_eq!(app.registry.endpoints("t").await.expect("read").len(), 1);
}

#[tokio::test]
async fn an_endpoint_is_told_nothing_until_it_has_answered_a_challenge() {
    let (deployment, receiver) = start().await;
    receiver.will_answer([status(500)]);
    let printed = command(&deployment, &["add", "t", &receiver.url, "--event", "job.succeeded"]).await.expect("added");
    let (id, secret) = (line(&printed, "endpoint "), line(&printed, "secret "));
    assert!(printed.contains("not verified: it answered 500"), "{printed}");
    let row = |verified: &str| format!("{id}  {}  job.succeeded  {verified}", receiver.url);
    assert!(command(&deployment, &["list", "t"]).await.expect("listed").contains(&row("no")));
    run(&deployment, CHAT, &chat(5, 5)).await;
    is_delivered(&deployment).await;
    let challenges = receiver.received();
    assert_eq!((challenges.len(), &challenges[0].json()["type"]), (1, &json!("endpoint.verification")));
    assert!(challenges[0].is_signed_with(&secret));

    assert_eq!(command(&deployment, &["verify", &id]).await.expect("verified"), format!("verified endpoint {id}\n"));
    let listed = command(&deployment, &["list", "t"]).await.expect("listed");
    assert!(listed.contains(&row("yes")) && !listed.contains(&secret), "{listed}");
    let job = run(&deployment, CHAT, &chat(5, 5)).await;
    let told = receiver.first_requests(3).await.remove(2);
    assert_eq!(told.json()["data"]["id"], json!(job.id));
    assert_ne!(challenges[0].json()["data"]["challenge"], receiver.received()[1].json()["data"]["challenge"]);
}

#[tokio::test]
async fn while_a_secret_is_replaced_both_sign() {
    let (deployment, receiver) = start().await;
    let printed = command(&deployment, &["add", "t", &receiver.url]).await.expect("added");
    assert!(printed.ends_with("verified\n"), "{printed}");
    let (id, old) = (line(&printed, "endpoint "), line(&printed, "secret "));
    let new = line(&command(&deployment, &["rotate", &id, "--keep-old-hours", "2"]).await.expect("rotated"), "secret ");
    assert_ne!(old, new);
    let told = async |count: usize| {
        run(&deployment, CHAT, &chat(5, 5)).await;
        receiver.first_requests(count).await.remove(count - 1)
    };
    let both = told(2).await;
    assert!(both.is_signed_with(&old) && both.is_signed_with(&new), "{}", both.header("webhook-signature"));
    deployment.world.advance(2 * 3_600_000);
    let one = told(3).await;
    assert!(!one.is_signed_with(&old) && one.is_signed_with(&new), "{}", one.header("webhook-signature"));

    let at_once = command(&deployment, &["rotate", &id, "--keep-old-hours", "0"]).await.expect("rotated");
    let last = told(4).await;
    assert!(!last.is_signed_with(&new) && last.is_signed_with(&line(&at_once, "secret ")));
}

#[tokio::test]
async fn what_is_removed_is_told_nothing_more() {
    let (deployment, receiver) = start().await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    let id = endpoint.id.as_str();
    assert_eq!(command(&deployment, &["remove", id]).await.expect("removed"), format!("removed endpoint {id}\n"));
    run(&deployment, CHAT, &chat(5, 5)).await;
    assert_eq!((receiver.received().len(), deployment.messages_in(WEBHOOKS).await), (0, 0));
    for arguments in [["remove", id], ["rotate", id], ["verify", id]] {
        assert_eq!(command(&deployment, &arguments).await, Err(format!("there is no endpoint {id}")));
    }
    let told = command(&deployment, &["add", "nobody", &receiver.url]).await.expect_err("no tenant");
    assert!(told.contains("there is no tenant nobody"), "{told}");
    let told = command(&deployment, &["add", "t", &receiver.url, "--event", "job.began"]).await.expect_err("unknown");
    assert!(told.contains("response.completed"), "{told}");
    deployment.endpoint("t", &receiver.url, &[]).await;
    deployment.world.app.registry.delete_tenant("t").await.expect("deleted");
    assert!(deployment.world.app.registry.endpoints("t").await.expect("read").is_empty());
}

#[tokio::test]
async fn a_tenant_has_a_few_endpoints_and_no_more() {
    let (deployment, receiver) = start().await;
    for _ in 0..10 {
        deployment.endpoint("t", &receiver.url, &[]).await;
    }
    let told = command(&deployment, &["add", "t", &receiver.url]).await.expect_err("too many");
    assert_eq!(told, "tenant t already has 10 endpoints, the maximum");
}

#[tokio::test]
async fn neither_events_nor_logs_hold_a_secret_a_signature_or_a_path() {
    let (events, logs) = (Recorded::default(), Recorded::default());
    let writer = logs.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(move || writer.clone());
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    let settings = two_tenants("limits = { in_flight = 10 }");
    let deployment = Deployment::start_with(&settings, Telemetry::to(events.clone())).await;
    let receiver = Receiver::start(&deployment).await;
    let url = receiver.url.replace("/hook", "/s3cr3t-path");
    let endpoint = deployment.endpoint("t", &url, &[]).await;
    deployment.endpoint("t", "http://127.0.0.1:1/s3cr3t-path", &[]).await;
    receiver.will_answer([status(500), status(410)]);
    run(&deployment, CHAT, &chat(5, 5)).await;
    paced(&deployment, 500, receiver.first_requests(2)).await;
    let written = || String::from_utf8_lossy(&[events.lines(), logs.lines()].concat()).into_owned();
    eventually("it is written", async || written().contains("410 Gone")).await;
    let written = written();
    for line in ["it answered 500", "no answer: "] {
        assert!(written.contains(line), "{line}");
    }
    let signature = receiver.received()[0].header("webhook-signature")[3..].to_owned();
    // The wire of the AWS SDK is written at this level too; it is not what the product writes.
    let ours = written.lines().filter(|line| line.contains("spillway::") || line.contains("Spillway"));
    for line in ours {
        for word in [&endpoint.secret.expose()[6..], signature.as_str(), "s3cr3t-path"] {
            assert!(!line.contains(word), "{line}");
        }
    }
}
