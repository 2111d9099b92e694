//! Operations on queues: creation, attributes, tags, lists, purge and deletion.

use aws_sdk_sqs::{error::ProvideErrorMetadata as _, types::QueueAttributeName as Name};

use crate::support::{Refusal, Sqs, refusal};

#[tokio::test]
async fn creating_a_queue_twice_returns_the_same_url_unless_an_attribute_differs() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[(Name::VisibilityTimeout, "60")]).await;
    assert_eq!(url, format!("{}/000000000000/jobs", sqs.endpoint));
    assert_eq!(sqs.queue("jobs", &[(Name::VisibilityTimeout, "60")]).await, url);
    assert_eq!(sqs.queue("jobs", &[]).await, url);
    let found = sqs.client.get_queue_url().queue_name("jobs").send().await.expect("found");
    assert_eq!(found.queue_url(), Some(url.as_str()));

    let request = sqs.client.create_queue().queue_name("jobs").attributes(Name::VisibilityTimeout, "61");
    let expected = Refusal {
        status: 400,
        type_name: "com.amazonaws.sqs#QueueNameExists".to_owned(),
        code: "QueueAlreadyExists".to_owned(),
        message: "A queue already exists with the same name and a different value for attribute VisibilityTimeout"
            .to_owned(),
    };
    assert_eq!(refusal(request.send().await), expected);
}

#[tokio::test]
async fn names_and_attributes_outside_their_range_are_refused() {
    let sqs = Sqs::start().await;
    for (name, code) in [
        ("", "InvalidParameterValue"),
        ("with space", "InvalidParameterValue"),
        (&"x".repeat(81), "InvalidParameterValue"),
        ("jobs.fifo", "AWS.SimpleQueueService.UnsupportedOperation"),
    ] {
        assert_eq!(refusal(sqs.client.create_queue().queue_name(name).send().await).code, code, "{name}");
    }
    for (attribute, value, code) in [
        (Name::VisibilityTimeout, "43201", "InvalidAttributeValue"),
        (Name::DelaySeconds, "901", "InvalidAttributeValue"),
        (Name::DelaySeconds, "soon", "InvalidAttributeValue"),
        (Name::MessageRetentionPeriod, "59", "InvalidAttributeValue"),
        (Name::MaximumMessageSize, "1048577", "InvalidAttributeValue"),
        (Name::ReceiveMessageWaitTimeSeconds, "21", "InvalidAttributeValue"),
        (Name::FifoQueue, "true", "InvalidAttributeName"),
        (Name::QueueArn, "arn", "InvalidAttributeName"),
        (Name::RedrivePolicy, "{", "InvalidParameterValue"),
        (Name::RedrivePolicy, r#"{"deadLetterTargetArn":"dummy","maxReceiveCount":3}"#, "InvalidParameterValue"),
        (
            Name::RedrivePolicy,
            r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:none","maxReceiveCount":3}"#,
            "InvalidParameterValue",
        ),
    ] {
        let request = sqs.client.create_queue().queue_name("jobs").attributes(attribute.clone(), value);
        assert_eq!(refusal(request.send().await).code, code, "{attribute:?} {value}");
    }
    assert_eq!(refusal(sqs.client.get_queue_url().queue_name("jobs").send().await).status, 400);
}

#[tokio::test]
async fn attributes_have_defaults_and_can_be_changed() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[(Name::KmsMasterKeyId, "alias/aws/sqs")]).await;
    let request = sqs.client.get_queue_attributes().queue_url(&url).attribute_names(Name::All);
    let attributes = request.send().await.expect("attributes").attributes.expect("some");
    for (name, value) in [
        (Name::VisibilityTimeout, "30"),
        (Name::DelaySeconds, "0"),
        (Name::MessageRetentionPeriod, "345600"),
        (Name::MaximumMessageSize, "1048576"),
        (Name::ReceiveMessageWaitTimeSeconds, "0"),
        (Name::SqsManagedSseEnabled, "true"),
        (Name::KmsMasterKeyId, "alias/aws/sqs"),
        (Name::QueueArn, "arn:aws:sqs:us-east-1:000000000000:jobs"),
        (Name::ApproximateNumberOfMessages, "0"),
    ] {
        assert_eq!(attributes.get(&name).map(String::as_str), Some(value), "{name:?}");
    }
    let created_s: u64 = attributes[&Name::CreatedTimestamp].parse().expect("seconds");
    assert!(sqs.clock.now_ms() / 1_000 - created_s < 60);

    sqs.advance_s(100);
    let change = sqs.client.set_queue_attributes().queue_url(&url).attributes(Name::DelaySeconds, "5");
    change.send().await.expect("changed");
    assert_eq!(sqs.attribute(&url, Name::DelaySeconds).await, "5");
    let modified_s: u64 = sqs.attribute(&url, Name::LastModifiedTimestamp).await.parse().expect("seconds");
    assert!(modified_s >= created_s + 100);
    let refused = sqs.client.set_queue_attributes().queue_url(&url).attributes(Name::DelaySeconds, "-1");
    assert_eq!(refusal(refused.send().await).code, "InvalidAttributeValue");
}

#[tokio::test]
async fn the_error_for_an_unknown_queue_has_both_codes() {
    let sqs = Sqs::start().await;
    let unknown = format!("{}/000000000000/unknown", sqs.endpoint);
    let error = sqs.client.receive_message().queue_url(&unknown).send().await.expect_err("no such queue");
    assert!(error.as_service_error().is_some_and(|error| error.is_queue_does_not_exist()));
    assert_eq!(error.code(), Some("AWS.SimpleQueueService.NonExistentQueue"));
    let refused = refusal(sqs.client.send_message().queue_url(&unknown).message_body("x").send().await);
    assert_eq!((refused.status, refused.type_name.as_str()), (400, "com.amazonaws.sqs#QueueDoesNotExist"));
    assert_eq!(refused.message, "The specified queue does not exist.");

    let refused = refusal(sqs.client.purge_queue().queue_url("nonsense").send().await);
    assert_eq!((refused.status, refused.code.as_str()), (404, "InvalidAddress"));
}

#[tokio::test]
async fn lists_are_paged_and_filtered_by_prefix() {
    let sqs = Sqs::start().await;
    for name in ["b-1", "a-2", "a-1", "a-3"] {
        sqs.queue(name, &[]).await;
    }
    let pages = sqs.client.list_queues().queue_name_prefix("a-").max_results(2).into_paginator().items().send();
    let urls: Vec<String> = pages.collect::<Result<_, _>>().await.expect("pages");
    let names: Vec<&str> = urls.iter().filter_map(|url| url.rsplit('/').next()).collect();
    assert_eq!(names, ["a-1", "a-2", "a-3"]);
    let listed = sqs.client.list_queues().send().await.expect("listed");
    assert_eq!((listed.queue_urls().len(), listed.next_token()), (4, None));
}

#[tokio::test]
async fn tags_are_kept_until_they_are_removed() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    sqs.client.tag_queue().queue_url(&url).tags("team", "a").tags("stage", "test").send().await.expect("tagged");
    sqs.client.untag_queue().queue_url(&url).tag_keys("team").send().await.expect("untagged");
    let tags = sqs.client.list_queue_tags().queue_url(&url).send().await.expect("tags").tags.expect("some");
    assert_eq!(tags.into_iter().collect::<Vec<_>>(), [("stage".to_owned(), "test".to_owned())]);
}

#[tokio::test]
async fn a_purge_removes_all_messages_and_may_be_repeated_after_a_minute() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    sqs.send(&url, "held").await;
    assert_eq!(sqs.receive(&url).await.len(), 1);
    sqs.send(&url, "visible").await;
    let purge = || sqs.client.purge_queue().queue_url(&url).send();
    purge().await.expect("purged");
    assert_eq!(sqs.counts(&url).await, ("0".to_owned(), "0".to_owned(), "0".to_owned()));
    let refused = refusal(purge().await);
    assert_eq!((refused.status, refused.code.as_str()), (403, "AWS.SimpleQueueService.PurgeQueueInProgress"));
    sqs.advance_s(60);
    purge().await.expect("purged again");
}

#[tokio::test]
async fn deleting_a_queue_deletes_its_messages() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    sqs.send(&url, "lost").await;
    sqs.client.delete_queue().queue_url(&url).send().await.expect("deleted");
    assert_eq!(
        refusal(sqs.client.delete_queue().queue_url(&url).send().await).code,
        "AWS.SimpleQueueService.NonExistentQueue"
    );
    sqs.queue("jobs", &[]).await;
    assert!(sqs.receive(&url).await.is_empty());
}
