//! Batches: errors that refuse the whole batch, and errors that fail a single entry.

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    SendMessageBatchRequestEntry,
};

use crate::support::{Sqs, bodies, handle, refusal};

fn entry(id: &str, body: &str) -> SendMessageBatchRequestEntry {
    SendMessageBatchRequestEntry::builder().id(id).message_body(body).build().expect("complete")
}

fn failures(failed: &[BatchResultErrorEntry]) -> Vec<(&str, &str)> {
    assert!(failed.iter().all(BatchResultErrorEntry::sender_fault));
    failed.iter().map(|entry| (entry.id(), entry.code())).collect()
}

#[tokio::test]
async fn an_invalid_entry_does_not_fail_the_batch() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let late = SendMessageBatchRequestEntry::builder().id("late").message_body("x").delay_seconds(901);
    let request = sqs.client.send_message_batch().queue_url(&url).entries(entry("good", "kept"));
    let request = request.entries(entry("odd", "\u{1}")).entries(entry("empty", ""));
    let answer = request.entries(late.build().expect("complete")).send().await.expect("answered");
    let codes = [("odd", "InvalidMessageContents"), ("empty", "MissingParameter"), ("late", "InvalidParameterValue")];
    assert_eq!(failures(answer.failed()), codes);
    assert_eq!(answer.successful().iter().map(|entry| entry.id()).collect::<Vec<_>>(), ["good"]);
    let received = sqs.receive(&url).await;
    assert_eq!(bodies(&received), ["kept"]);
    assert_eq!(received[0].message_id(), Some(answer.successful()[0].message_id()));
    assert_eq!(received[0].md5_of_body(), Some(answer.successful()[0].md5_of_message_body()));
}

#[tokio::test]
async fn an_invalid_batch_is_refused_as_a_whole() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let batch = |entries: Vec<SendMessageBatchRequestEntry>| {
        sqs.client.send_message_batch().queue_url(&url).set_entries(Some(entries)).send()
    };
    let half = "x".repeat(524_288);
    for (entries, name) in [
        (vec![], "EmptyBatchRequest"),
        ((0..11).map(|id| entry(&id.to_string(), "x")).collect(), "TooManyEntriesInBatchRequest"),
        (vec![entry("a", "x"), entry("b", "x"), entry("a", "y")], "BatchEntryIdsNotDistinct"),
        (vec![entry("a b", "x")], "InvalidBatchEntryId"),
        (vec![entry("", "x")], "InvalidBatchEntryId"),
        (vec![entry(&"i".repeat(81), "x")], "InvalidBatchEntryId"),
        (vec![entry("a", &half), entry("b", &half), entry("c", "x")], "BatchRequestTooLong"),
    ] {
        let refused = refusal(batch(entries).await);
        assert_eq!(refused.status, 400);
        assert_eq!(refused.type_name, format!("com.amazonaws.sqs#{name}"));
        assert_eq!(refused.code, format!("AWS.SimpleQueueService.{name}"));
    }
    assert_eq!(sqs.counts(&url).await.0, "0");
    batch(vec![entry("a", &half), entry("b", &half)]).await.expect("a batch of one mebibyte is accepted");
    assert_eq!(sqs.counts(&url).await.0, "2");
}

#[tokio::test]
async fn each_receipt_of_a_batch_is_acknowledged_separately() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    for body in ["a", "b"] {
        sqs.send(&url, body).await;
    }
    let held = sqs.receive(&url).await;
    let hide = |id: &str, handle: &str, visibility_s| {
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id).receipt_handle(handle);
        entry.set_visibility_timeout(visibility_s).build().expect("complete")
    };
    let request = sqs.client.change_message_visibility_batch().queue_url(&url);
    let request = request.entries(hide("long", handle(&held[0]), Some(600)));
    let request = request.entries(hide("endless", handle(&held[1]), Some(43_201)));
    let request = request.entries(hide("unsaid", handle(&held[1]), None));
    let answer = request.entries(hide("made-up", "made up", Some(1))).send().await.expect("answered");
    let codes =
        [("endless", "InvalidParameterValue"), ("unsaid", "MissingParameter"), ("made-up", "ReceiptHandleIsInvalid")];
    assert_eq!(failures(answer.failed()), codes);
    sqs.advance_s(30);
    assert_eq!(sqs.counts(&url).await, ("1".to_owned(), "1".to_owned(), "0".to_owned()));

    let remove = |id: &str, handle: &str| {
        DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(handle).build().expect("complete")
    };
    let request = sqs.client.delete_message_batch().queue_url(&url).entries(remove("a", handle(&held[0])));
    let answer = request.entries(remove("made-up", "made up")).send().await.expect("answered");
    assert_eq!(failures(answer.failed()), [("made-up", "ReceiptHandleIsInvalid")]);
    assert_eq!(answer.successful().iter().map(|entry| entry.id()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(sqs.counts(&url).await, ("1".to_owned(), "0".to_owned(), "0".to_owned()));
}
