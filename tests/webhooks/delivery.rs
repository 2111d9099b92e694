//! Delivery of events: attempts, dead letters, and addresses that are not called.

use aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessagesDelayed as Delayed;
use serde_json::json;
use spillway::{
    dialect::Api,
    drain::{DrainEvent, handle},
    outbound::Outbound,
    queue::MAX_RECEIVES,
    telemetry::Telemetry,
    units::{Millis, UnixMs},
};

use super::{WEBHOOK_QUEUE, run, start, until_delivered};
use crate::support::{
    Deployment, chat,
    jobs::two_tenants,
    receiver::{Received, Receiver, status},
    recorded::{Recorded, record_logs},
    time::eventually,
};

const WEBHOOK_DEAD_LETTER_QUEUE: &str = "spillway-webhooks-dead";

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
async fn a_private_address_is_not_called() {
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
