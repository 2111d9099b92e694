//! Delivery: fairness, delays, visibility, receipts and long polls.

use std::collections::HashSet;

use aws_sdk_sqs::types::{Message, QueueAttributeName as Name};
use tokio::task::JoinHandle;

use crate::support::{Sqs, bodies, handle, refusal, soon};

/// Starts a long poll of twenty seconds and gives the server time to begin it.
async fn long_poll(sqs: &Sqs, url: &str) -> JoinHandle<Vec<Message>> {
    let request = sqs.client.receive_message().queue_url(url).wait_time_seconds(20);
    let poll = tokio::spawn(async move { request.send().await.expect("received").messages.unwrap_or_default() });
    for _ in 0..20 {
        sqs.counts(url).await;
    }
    assert!(!poll.is_finished(), "the queue must have no message yet");
    poll
}

#[tokio::test]
async fn a_quiet_group_does_not_wait_behind_the_backlog_of_a_noisy_one() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    for index in 0..5 {
        sqs.send_in_group(&url, &format!("noisy-{index}"), "noisy").await;
    }
    sqs.send_in_group(&url, "quiet-0", "quiet").await;
    sqs.send(&url, "alone").await;
    assert_eq!(bodies(&sqs.receive_up_to(&url, 1).await), ["noisy-0"]);
    assert_eq!(bodies(&sqs.receive_up_to(&url, 1).await), ["quiet-0"]);
    sqs.send_in_group(&url, "quiet-1", "quiet").await;
    assert_eq!(bodies(&sqs.receive_up_to(&url, 4).await), ["alone", "noisy-1", "quiet-1", "noisy-2"]);
}

#[tokio::test]
async fn a_deleted_message_lets_its_group_receive_again() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    for body in ["a-0", "a-1", "b-0", "b-1"] {
        sqs.send_in_group(&url, body, &body[..1]).await;
    }
    let first = sqs.receive_up_to(&url, 2).await;
    assert_eq!(bodies(&first), ["a-0", "b-0"]);
    sqs.delete(&url, &first[1]).await;
    assert_eq!(bodies(&sqs.receive_up_to(&url, 1).await), ["b-1"]);
}

#[tokio::test]
async fn a_delayed_message_is_received_at_the_end_of_its_delay_and_not_before() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[(Name::DelaySeconds, "5")]).await;
    sqs.send(&url, "queue's delay").await;
    let send =
        |body: &str, delay_s| sqs.client.send_message().queue_url(&url).message_body(body).delay_seconds(delay_s);
    send("longest", 900).send().await.expect("sent");
    send("none", 0).send().await.expect("sent");
    assert_eq!(sqs.counts(&url).await, ("1".to_owned(), "0".to_owned(), "2".to_owned()));
    assert_eq!(bodies(&sqs.receive(&url).await), ["none"]);
    sqs.advance_s(5);
    assert_eq!(bodies(&sqs.receive(&url).await), ["queue's delay"]);
    // Half a minute before the end, so that the passage of real time cannot reach it.
    sqs.advance_s(865);
    assert!(!bodies(&sqs.receive(&url).await).contains(&"longest"));
    sqs.advance_s(30);
    assert!(bodies(&sqs.receive(&url).await).contains(&"longest"));
}

#[tokio::test]
async fn an_old_receipt_neither_deletes_nor_extends_visibility() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    sqs.send(&url, "job").await;
    let first = sqs.receive(&url).await.remove(0);
    sqs.advance_s(30);
    let second = sqs.receive(&url).await.remove(0);
    assert_ne!(handle(&first), handle(&second));

    sqs.delete(&url, &first).await;
    let extend = |message: &Message, visibility_s| {
        let request = sqs.client.change_message_visibility().queue_url(&url).receipt_handle(handle(message));
        request.visibility_timeout(visibility_s).send()
    };
    let refused = refusal(extend(&first, 600).await);
    assert_eq!((refused.status, refused.code.as_str()), (400, "InvalidParameterValue"));
    assert_eq!(sqs.counts(&url).await, ("0".to_owned(), "1".to_owned(), "0".to_owned()));

    sqs.delete(&url, &second).await;
    assert_eq!(sqs.counts(&url).await, ("0".to_owned(), "0".to_owned(), "0".to_owned()));
    sqs.delete(&url, &second).await;
    assert_eq!(refusal(extend(&second, 600).await).code, "InvalidParameterValue");
}

#[tokio::test]
async fn visibility_can_be_extended_or_ended_only_while_the_message_is_in_flight() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    sqs.send(&url, "job").await;
    let held = sqs.receive(&url).await.remove(0);
    let change = |message: &Message, visibility_s| {
        let request = sqs.client.change_message_visibility().queue_url(&url).receipt_handle(handle(message));
        request.visibility_timeout(visibility_s).send()
    };
    change(&held, 600).await.expect("extended");
    sqs.advance_s(500);
    assert!(sqs.receive(&url).await.is_empty());
    change(&held, 0).await.expect("ended");
    let refused = refusal(change(&held, 600).await);
    assert_eq!((refused.status, refused.code.as_str()), (400, "AWS.SimpleQueueService.MessageNotInflight"));
    let again = sqs.receive(&url).await.remove(0);

    for out_of_range in [-1, 43_201] {
        assert_eq!(refusal(change(&again, out_of_range).await).code, "InvalidParameterValue");
    }
    change(&again, 43_200 - 60).await.expect("within twelve hours of the receive");
    sqs.advance_s(100);
    let refused = refusal(change(&again, 43_200 - 60).await);
    assert!(refused.message.contains("Total VisibilityTimeout"), "{}", refused.message);
}

#[tokio::test]
async fn the_last_receiver_can_delete_a_message_after_its_visibility_timeout() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    sqs.send(&url, "job").await;
    let held = sqs.receive(&url).await.remove(0);
    sqs.advance_s(31);
    sqs.delete(&url, &held).await;
    assert!(sqs.receive(&url).await.is_empty());
}

#[tokio::test]
async fn a_receipt_of_another_queue_or_of_no_queue_is_invalid() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let other_url = sqs.queue("other", &[]).await;
    sqs.send(&other_url, "job").await;
    let foreign = sqs.receive(&other_url).await.remove(0);
    for invalid in ["made up", handle(&foreign)] {
        let refused = refusal(sqs.client.delete_message().queue_url(&url).receipt_handle(invalid).send().await);
        assert_eq!((refused.status, refused.type_name.as_str()), (404, "com.amazonaws.sqs#ReceiptHandleIsInvalid"));
    }
    let refused = refusal(sqs.client.delete_message().queue_url(&url).receipt_handle("").send().await);
    assert_eq!(refused.code, "MissingParameter");
}

#[tokio::test]
async fn receive_parameters_outside_their_range_are_refused() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let receive = || sqs.client.receive_message().queue_url(&url);
    for request in [
        receive().max_number_of_messages(0),
        receive().max_number_of_messages(11),
        receive().wait_time_seconds(21),
        receive().visibility_timeout(43_201),
        receive().visibility_timeout(-1),
    ] {
        let input = format!("{request:?}");
        assert_eq!(refusal(request.send().await).code, "InvalidParameterValue", "{input}");
    }
}

#[tokio::test]
async fn a_long_poll_wakes_on_a_send() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let poll = long_poll(&sqs, &url).await;
    sqs.send(&url, "job").await;
    assert_eq!(bodies(&soon(poll).await.expect("no panic")), ["job"]);
}

#[tokio::test]
async fn a_long_poll_wakes_when_a_delay_ends() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[(Name::DelaySeconds, "1")]).await;
    let poll = long_poll(&sqs, &url).await;
    // The message is sent after the poll began and becomes visible by real time, so the poll must
    // adopt the new wake-up time.
    sqs.send(&url, "job").await;
    assert_eq!(bodies(&soon(poll).await.expect("no panic")), ["job"]);
}

#[tokio::test]
async fn a_long_poll_wakes_when_a_visibility_timeout_ends() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    sqs.send(&url, "job").await;
    assert_eq!(sqs.receive(&url).await.len(), 1);
    let poll = long_poll(&sqs, &url).await;
    // After the visibility timeout and before the end of the poll, which the advance moves closer.
    sqs.client.send_message().queue_url(&url).message_body("later").delay_seconds(900).send().await.expect("sent");
    sqs.advance_s(30);
    assert_eq!(bodies(&soon(poll).await.expect("no panic")), ["job"]);
}

#[tokio::test]
async fn a_long_poll_wakes_when_a_consumer_ends_the_visibility_timeout() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    sqs.send(&url, "job").await;
    let held = sqs.receive(&url).await.remove(0);
    let poll = long_poll(&sqs, &url).await;
    let request = sqs.client.change_message_visibility().queue_url(&url).receipt_handle(handle(&held));
    request.visibility_timeout(0).send().await.expect("the timeout is ended");
    assert_eq!(bodies(&soon(poll).await.expect("no panic")), ["job"]);
}

#[tokio::test]
async fn a_long_poll_returns_no_messages_after_its_wait_time() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let poll = long_poll(&sqs, &url).await;
    sqs.advance_s(20);
    assert!(soon(poll).await.expect("no panic").is_empty());
}

#[tokio::test]
async fn a_queue_attribute_makes_every_receive_a_long_poll() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[(Name::ReceiveMessageWaitTimeSeconds, "20")]).await;
    let request = sqs.client.receive_message().queue_url(&url);
    let poll = tokio::spawn(async move { request.send().await.expect("received").messages.unwrap_or_default() });
    sqs.counts(&url).await;
    sqs.send(&url, "job").await;
    assert_eq!(bodies(&soon(poll).await.expect("no panic")), ["job"]);
}

#[tokio::test]
async fn a_shutdown_ends_long_polls_and_then_the_server() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let poll = long_poll(&sqs, &url).await;
    sqs.stop().await;
    assert!(soon(poll).await.expect("no panic").is_empty());
}

#[tokio::test]
async fn ten_concurrent_consumers_receive_each_of_a_hundred_messages_once() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let consumers: Vec<_> = (0..10)
        .map(|_| {
            let (client, url) = (sqs.client.clone(), url.clone());
            tokio::spawn(async move {
                let mut received_bodies = Vec::new();
                while received_bodies.len() < 10 {
                    let request = client.receive_message().queue_url(&url).wait_time_seconds(20);
                    let received = request.send().await.expect("received").messages.unwrap_or_default();
                    received_bodies.extend(received.into_iter().filter_map(|message| message.body));
                }
                received_bodies
            })
        })
        .collect();
    for index in 0..100 {
        sqs.send_in_group(&url, &index.to_string(), &format!("group-{}", index % 3)).await;
    }
    let mut received_bodies = Vec::new();
    for consumer in consumers {
        received_bodies.extend(soon(consumer).await.expect("no panic"));
    }
    assert_eq!((received_bodies.len(), received_bodies.iter().collect::<HashSet<_>>().len()), (100, 100));
}
