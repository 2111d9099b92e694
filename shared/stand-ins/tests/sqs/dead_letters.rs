//! Dead-letter queues and the move tasks that empty them.

use aws_sdk_sqs::types::{ListMessageMoveTasksResultEntry, MessageSystemAttributeName as System, QueueAttributeName};

use crate::support::{Sqs, bodies, refusal, soon, system};

impl Sqs {
    /// Receives all messages of the queue `times` times and lets the visibility timeout end each
    /// time.
    async fn fail(&self, url: &str, times: u32) {
        for _ in 0..times {
            while !self.receive(url).await.is_empty() {}
            self.advance_s(30);
        }
    }

    async fn arn(&self, url: &str) -> String {
        self.attribute(url, QueueAttributeName::QueueArn).await
    }

    async fn last_move(&self, arn: &str) -> ListMessageMoveTasksResultEntry {
        let tasks = self.client.list_message_move_tasks().source_arn(arn).send().await.expect("listed");
        tasks.results()[0].clone()
    }
}

#[tokio::test]
async fn a_message_received_too_often_moves_with_its_id_attributes_and_group() {
    let sqs = Sqs::start().await;
    let (jobs, dead) = sqs.queue_with_dead_letters("jobs", 2).await;
    sqs.send_in_group(&jobs, "poison", "tenant-7").await;
    let first = sqs.receive(&jobs).await.remove(0);
    sqs.advance_s(30);
    sqs.fail(&jobs, 1).await;
    assert!(sqs.receive(&dead).await.is_empty(), "two receives are allowed");
    assert!(sqs.receive(&jobs).await.is_empty());

    let moved = sqs.receive(&dead).await.remove(0);
    assert_eq!((moved.body(), moved.message_id()), (Some("poison"), first.message_id()));
    assert_eq!(system(&moved, System::MessageGroupId), Some("tenant-7"));
    assert_eq!(system(&moved, System::ApproximateReceiveCount), Some("3"));
    assert_eq!(system(&moved, System::SentTimestamp), system(&first, System::SentTimestamp));
    assert_eq!(system(&moved, System::DeadLetterQueueSourceArn), Some(sqs.arn(&jobs).await.as_str()));

    let sources = sqs.client.list_dead_letter_source_queues().queue_url(&dead).send().await.expect("listed");
    assert_eq!(sources.queue_urls(), [jobs]);
}

#[tokio::test]
async fn a_long_poll_on_the_dead_letter_queue_wakes_on_a_redrive() {
    let sqs = Sqs::start().await;
    let (jobs, dead) = sqs.queue_with_dead_letters("jobs", 1).await;
    sqs.send(&jobs, "poison").await;
    sqs.fail(&jobs, 1).await;
    let request = sqs.client.receive_message().queue_url(&dead).wait_time_seconds(20);
    let poll = tokio::spawn(async move { request.send().await.expect("received").messages.unwrap_or_default() });
    sqs.counts(&dead).await;
    assert!(sqs.receive(&jobs).await.is_empty());
    assert_eq!(bodies(&soon(poll).await.expect("no panic")), ["poison"]);
}

#[tokio::test]
async fn a_move_task_returns_messages_to_their_source_queue_as_new_messages() {
    let sqs = Sqs::start().await;
    let (jobs, dead) = sqs.queue_with_dead_letters("jobs", 1).await;
    sqs.send_in_group(&jobs, "poison", "tenant-7").await;
    let failed = sqs.receive(&jobs).await.remove(0);
    sqs.advance_s(30);
    assert!(sqs.receive(&jobs).await.is_empty());

    let arn = sqs.arn(&dead).await;
    let started = sqs.client.start_message_move_task().source_arn(&arn).send().await.expect("started");
    assert!(started.task_handle().is_some());
    let back = sqs.receive(&jobs).await.remove(0);
    assert_eq!(back.body(), Some("poison"));
    assert_ne!(back.message_id(), failed.message_id());
    assert_eq!(system(&back, System::MessageGroupId), Some("tenant-7"));
    assert_eq!(system(&back, System::ApproximateReceiveCount), Some("1"));
    assert_eq!(system(&back, System::DeadLetterQueueSourceArn), None);
    assert_eq!(sqs.counts(&dead).await.0, "0");
    let task = sqs.last_move(&arn).await;
    assert_eq!((task.status(), task.approximate_number_of_messages_moved()), (Some("COMPLETED"), 1));
    assert_eq!(task.task_handle(), None);
}

#[tokio::test]
async fn a_message_sent_directly_to_the_dead_letter_queue_moves_only_to_a_named_queue() {
    let sqs = Sqs::start().await;
    let (jobs, dead) = sqs.queue_with_dead_letters("jobs", 1).await;
    sqs.send(&dead, "stray").await;
    let arn = sqs.arn(&dead).await;
    sqs.client.start_message_move_task().source_arn(&arn).send().await.expect("started");
    let task = sqs.last_move(&arn).await;
    assert_eq!((task.status(), task.failure_reason()), (Some("FAILED"), Some("CouldNotDetermineMessageSource")));

    let request = sqs.client.start_message_move_task().source_arn(&arn);
    request.destination_arn(sqs.arn(&jobs).await).send().await.expect("started");
    assert_eq!(bodies(&sqs.receive(&jobs).await), ["stray"]);
}

#[tokio::test]
async fn a_move_task_observes_its_rate_and_can_be_cancelled_once() {
    let sqs = Sqs::start().await;
    let (jobs, dead) = sqs.queue_with_dead_letters("jobs", 1).await;
    for index in 0..10 {
        sqs.send(&jobs, &index.to_string()).await;
    }
    sqs.fail(&jobs, 1).await;
    assert!(sqs.receive(&jobs).await.is_empty());
    assert_eq!(sqs.counts(&dead).await.0, "10");

    let arn = sqs.arn(&dead).await;
    let start = || sqs.client.start_message_move_task().source_arn(&arn).max_number_of_messages_per_second(1).send();
    let task_handle = start().await.expect("started").task_handle.expect("a handle");
    let second = refusal(start().await);
    assert_eq!(second.code, "AWS.SimpleQueueService.UnsupportedOperation");
    let before = sqs.last_move(&arn).await;
    assert_eq!((before.status(), before.task_handle()), (Some("RUNNING"), Some(task_handle.as_str())));
    assert!(before.approximate_number_of_messages_moved() < 4, "a rate of one message per second");
    sqs.advance_s(4);
    let after = sqs.last_move(&arn).await;
    assert!((5..10).contains(&after.approximate_number_of_messages_moved()), "{after:?}");

    let cancel = || sqs.client.cancel_message_move_task().task_handle(&task_handle).send();
    let moved = cancel().await.expect("cancelled").approximate_number_of_messages_moved;
    sqs.advance_s(100);
    assert_eq!(sqs.last_move(&arn).await.status(), Some("CANCELLED"));
    assert_eq!(sqs.counts(&jobs).await.0, moved.to_string());
    assert_eq!(refusal(cancel().await).code, "AWS.SimpleQueueService.UnsupportedOperation");
}

#[tokio::test]
async fn a_long_poll_wakes_when_a_move_task_moves_a_message() {
    let sqs = Sqs::start().await;
    let (jobs, dead) = sqs.queue_with_dead_letters("jobs", 1).await;
    sqs.send(&jobs, "poison").await;
    sqs.fail(&jobs, 1).await;
    assert!(sqs.receive(&jobs).await.is_empty());
    let request = sqs.client.receive_message().queue_url(&jobs).wait_time_seconds(20);
    let poll = tokio::spawn(async move { request.send().await.expect("received").messages.unwrap_or_default() });
    sqs.counts(&dead).await;
    sqs.client.start_message_move_task().source_arn(sqs.arn(&dead).await).send().await.expect("started");
    assert_eq!(bodies(&soon(poll).await.expect("no panic")), ["poison"]);
}

#[tokio::test]
async fn a_move_task_needs_an_existing_dead_letter_queue() {
    let sqs = Sqs::start().await;
    let jobs = sqs.queue("jobs", &[]).await;
    let start = |arn: &str| sqs.client.start_message_move_task().source_arn(arn).send();
    let refused = refusal(start("arn:aws:sqs:us-east-1:000000000000:none").await);
    assert_eq!((refused.status, refused.code.as_str()), (404, "ResourceNotFoundException"));
    assert_eq!(refusal(start(&sqs.arn(&jobs).await).await).code, "InvalidParameterValue");
    let unknown = sqs.client.cancel_message_move_task().task_handle("unknown").send();
    assert_eq!(refusal(unknown.await).code, "ResourceNotFoundException");
}
