//! The queue against SQS on the wire.

#[path = "support/sqs.rs"]
mod sqs;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use spillway::{
    queue::{MAX_RECEIVES, Message, Queue},
    units::Millis,
};

const LONG_POLL: Millis = Millis::from_s(5);
const VISIBILITY_TIMEOUT: Millis = Millis::from_s(60);

async fn received(queue: &Queue) -> Message {
    let mut messages = queue.receive(1, LONG_POLL).await.expect("received");
    messages.pop().expect("a message in time")
}

#[tokio::test]
async fn a_message_is_received_until_it_is_deleted() {
    let sqs = sqs::start(VISIBILITY_TIMEOUT).await;
    sqs.queue.send("job-1", "acme", Millis::ZERO).await.expect("sent");
    let first = received(&sqs.queue).await;
    assert_eq!((first.body.as_str(), first.receive_count), ("job-1", 1));
    assert!(sqs.queue.receive(1, Millis::ZERO).await.expect("received").is_empty(), "it is invisible");

    sqs.queue.change_visibility(&first.receipt_handle, Millis::ZERO).await.expect("visible again");
    let second = received(&sqs.queue).await;
    assert_eq!((second.id, second.receive_count), (first.id, 2));
    sqs.queue.delete(&second.receipt_handle).await.expect("deleted");
    let attributes = sqs.client.get_queue_attributes().queue_url(sqs.queue.url());
    let attributes = attributes
        .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
        .attribute_names(QueueAttributeName::ApproximateNumberOfMessagesNotVisible);
    let attributes = attributes.send().await.expect("read").attributes.expect("some");
    assert!(attributes.values().all(|count| count == "0"), "{attributes:?}");
}

#[tokio::test]
async fn the_tenant_is_the_message_group() {
    let sqs = sqs::start(VISIBILITY_TIMEOUT).await;
    let longest_name = "t".repeat(64);
    sqs.queue.send("job-1", &longest_name, Millis::ZERO).await.expect("sent");
    let received = sqs
        .client
        .receive_message()
        .queue_url(sqs.queue.url())
        .wait_time_seconds(5)
        .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId)
        .send()
        .await
        .expect("received");
    let attributes = received.messages()[0].attributes().expect("attributes");
    assert_eq!(attributes[&MessageSystemAttributeName::MessageGroupId], longest_name);
}

#[tokio::test]
async fn a_delay_is_rounded_up_to_whole_seconds() {
    let sqs = sqs::start(VISIBILITY_TIMEOUT).await;
    let sent = Instant::now();
    sqs.queue.send("job-1", "acme", Millis::from_ms(1)).await.expect("sent");
    assert!(sqs.queue.receive(1, Millis::ZERO).await.expect("received").is_empty());
    assert_eq!(received(&sqs.queue).await.body, "job-1");
    assert!(sent.elapsed() >= Duration::from_millis(900), "{:?}", sent.elapsed());
}

#[tokio::test]
async fn a_delay_beyond_the_maximum_of_sqs_is_cut_to_the_maximum() {
    let sqs = sqs::start(VISIBILITY_TIMEOUT).await;
    sqs.queue.send("job-1", "acme", Millis::MAX).await.expect("sent");
    sqs.queue.send("job-2", "acme", Millis::from_ms(900_001)).await.expect("sent");
    assert!(sqs.queue.receive(10, Millis::ZERO).await.expect("received").is_empty());
}

#[tokio::test]
async fn a_receive_returns_at_most_ten_messages_and_none_is_lost() {
    let sqs = sqs::start(VISIBILITY_TIMEOUT).await;
    let sent: HashSet<String> = (0..25).map(|job| format!("job-{job}")).collect();
    for job in &sent {
        sqs.queue.send(job, "acme", Millis::ZERO).await.expect("sent");
    }
    let mut received = HashSet::new();
    let mut empty = 0;
    while received.len() < sent.len() && empty < 5 {
        let messages = sqs.queue.receive(100, Millis::from_s(1)).await.expect("received");
        assert!(messages.len() <= 10);
        empty += usize::from(messages.is_empty());
        for message in messages {
            sqs.queue.delete(&message.receipt_handle).await.expect("deleted");
            received.insert(message.body);
        }
    }
    assert_eq!(received, sent);
}

#[tokio::test]
async fn a_message_that_fails_repeatedly_goes_to_the_dead_letter_queue() {
    let sqs = sqs::start(VISIBILITY_TIMEOUT).await;
    sqs.queue.send("job-1", "acme", Millis::ZERO).await.expect("sent");
    for receive_count in 1..=MAX_RECEIVES {
        let message = received(&sqs.queue).await;
        assert_eq!(message.receive_count, receive_count);
        sqs.queue.change_visibility(&message.receipt_handle, Millis::ZERO).await.expect("visible again");
    }
    assert!(sqs.queue.receive(1, Millis::from_s(1)).await.expect("received").is_empty());
    let dead = sqs.client.get_queue_url().queue_name(format!("{}-dead", sqs.name)).send().await.expect("a row");
    let dead = Queue::new(sqs.client.clone(), dead.queue_url.expect("a URL"));
    assert_eq!(received(&dead).await.body, "job-1");
}

#[tokio::test]
async fn creating_a_queue_twice_returns_the_same_queue() {
    let sqs = sqs::start(VISIBILITY_TIMEOUT).await;
    let again = Queue::create(sqs.client.clone(), &sqs.name, VISIBILITY_TIMEOUT).await.expect("found");
    assert_eq!(again.0.url(), sqs.queue.url());
}

#[tokio::test]
async fn the_handle_of_an_older_receive_deletes_nothing() {
    let sqs = sqs::start(VISIBILITY_TIMEOUT).await;
    sqs.queue.send("job-1", "acme", Millis::ZERO).await.expect("sent");
    let old = received(&sqs.queue).await;
    sqs.queue.change_visibility(&old.receipt_handle, Millis::ZERO).await.expect("visible again");
    let new = received(&sqs.queue).await;
    // The service may return an error or not, but the message must survive.
    let _ = sqs.queue.delete(&old.receipt_handle).await;
    sqs.queue.change_visibility(&new.receipt_handle, Millis::ZERO).await.expect("still there");
    assert_eq!(received(&sqs.queue).await.body, "job-1");
}

#[tokio::test]
async fn an_error_contains_the_message_of_sqs() {
    let sqs = sqs::start(VISIBILITY_TIMEOUT).await;
    let missing = Queue::new(sqs.client.clone(), format!("{}-not-there", sqs.queue.url()));
    let error = missing.send("job-1", "acme", Millis::ZERO).await.expect_err("no such queue").to_string();
    assert!(error.starts_with("the queue failed: ") && error.contains("does not exist"), "{error}");
}
