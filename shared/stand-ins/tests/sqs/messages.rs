//! Valid and invalid messages, and the format in which they are received.

use aws_sdk_sqs::{
    primitives::Blob,
    types::{
        MessageAttributeValue, MessageSystemAttributeName as System, MessageSystemAttributeNameForSends,
        MessageSystemAttributeValue, QueueAttributeName as Name,
    },
};

use crate::support::{Sqs, bodies, refusal, system};

fn text(data_type: &str, value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder().data_type(data_type).string_value(value).build().expect("complete")
}

#[tokio::test]
async fn a_message_is_received_as_it_was_sent() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let sent_after_ms = sqs.clock.now_ms();
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793";
    let trace_value = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build();
    let sent = sqs
        .client
        .send_message()
        .queue_url(&url)
        .message_body("msg")
        .message_group_id("tenant-7")
        .message_attributes("Hello", text("String", "There"))
        .message_attributes("General", text("String", "Kenobi"))
        .message_system_attributes(MessageSystemAttributeNameForSends::AwsTraceHeader, trace_value.expect("complete"))
        .send()
        .await
        .expect("sent");
    assert_eq!(sent.md5_of_message_body(), Some("6e2baaf3b97dbeef01c0043275f9a0e7"));
    assert_eq!(sent.md5_of_message_attributes(), Some("fca026605781cb4126a1e9044df24232"));
    assert!(sent.md5_of_message_system_attributes().is_some());

    sqs.advance_s(2);
    let received = sqs.receive(&url).await.remove(0);
    assert_eq!((received.body(), received.message_id()), (Some("msg"), sent.message_id()));
    assert_eq!(received.md5_of_body(), sent.md5_of_message_body());
    assert_eq!(received.md5_of_message_attributes(), sent.md5_of_message_attributes());
    let attributes = received.message_attributes().expect("attributes");
    assert_eq!(attributes["Hello"], text("String", "There"));
    assert_eq!(system(&received, System::MessageGroupId), Some("tenant-7"));
    assert_eq!(system(&received, System::AwsTraceHeader), Some(trace));
    assert_eq!(system(&received, System::ApproximateReceiveCount), Some("1"));
    assert_eq!(system(&received, System::SenderId), Some("000000000000"));
    assert_eq!(system(&received, System::DeadLetterQueueSourceArn), None);
    let at_ms = |name| system(&received, name).and_then(|at| at.parse::<u64>().ok()).expect("a time");
    assert!((sent_after_ms..sent_after_ms + 2_000).contains(&at_ms(System::SentTimestamp)));
    assert!(at_ms(System::ApproximateFirstReceiveTimestamp) >= sent_after_ms + 2_000);

    sqs.advance_s(30);
    let again = sqs.receive(&url).await.remove(0);
    assert_eq!(system(&again, System::ApproximateReceiveCount), Some("2"));
    for unchanged in [System::ApproximateFirstReceiveTimestamp, System::SentTimestamp] {
        assert_eq!(system(&again, unchanged.clone()), system(&received, unchanged));
    }
}

#[tokio::test]
async fn only_requested_attributes_are_returned_and_covered_by_the_checksum() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[(Name::VisibilityTimeout, "0")]).await;
    let binary = MessageAttributeValue::builder().data_type("Binary.raw").binary_value(Blob::new([0, 159, 146]));
    let request = sqs.client.send_message().queue_url(&url).message_body("msg");
    let request = request.message_attributes("Hello", text("String", "There"));
    let request = request.message_attributes("Data", binary.build().expect("complete"));
    request.message_attributes("Size", text("Number", "-1.5")).send().await.expect("sent");

    let receive = |name: &str| sqs.client.receive_message().queue_url(&url).message_attribute_names(name).send();
    let named = receive("Hello").await.expect("received").messages.expect("a message").remove(0);
    assert_eq!(named.md5_of_message_attributes(), Some("a311262e065454b75da111d535b8dacd"));
    assert_eq!(named.message_attributes().map(|attributes| attributes.len()), Some(1));
    assert_eq!(named.attributes(), None);
    let prefixed = receive("Da.*").await.expect("received").messages.expect("a message").remove(0);
    let data = prefixed.message_attributes().and_then(|attributes| attributes.get("Data")).expect("the data");
    assert_eq!(data.binary_value().map(AsRef::as_ref), Some([0, 159, 146].as_slice()));
    let none = receive("Other").await.expect("received").messages.expect("a message").remove(0);
    assert_eq!((none.md5_of_message_attributes(), none.message_attributes()), (None, None));
}

#[tokio::test]
async fn an_invalid_message_is_refused() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let send = |body: &str| sqs.client.send_message().queue_url(&url).message_body(body);
    let invalid = "InvalidParameterValue";
    for (request, code) in [
        (send(""), "MissingParameter"),
        (send("\u{1}"), "InvalidMessageContents"),
        (send("\u{FFFE}"), "InvalidMessageContents"),
        (send("x").delay_seconds(901), invalid),
        (send("x").delay_seconds(-1), invalid),
        (send("x").message_group_id(""), invalid),
        (send("x").message_group_id("with space"), invalid),
        (send("x").message_group_id("g".repeat(129)), invalid),
        (send("x").message_deduplication_id("d"), invalid),
        (send("x").message_attributes("AWS.x", text("String", "v")), invalid),
        (send("x").message_attributes("a..b", text("String", "v")), invalid),
        (send("x").message_attributes("a", text("String", "")), invalid),
        (send("x").message_attributes("a", text("Text", "v")), invalid),
        (send("x").message_attributes("a", text("Number", "many")), invalid),
        (send("x").message_attributes("a", text("String", "\u{2}")), "InvalidMessageContents"),
    ] {
        let input = format!("{request:?}");
        assert_eq!(refusal(request.send().await).code, code, "{input}");
    }
    let many =
        (0..11).fold(send("x"), |request, index| request.message_attributes(format!("a{index}"), text("String", "v")));
    assert_eq!(refusal(many.send().await).code, invalid);
    assert_eq!(sqs.counts(&url).await.0, "0");
}

#[tokio::test]
async fn a_message_may_have_at_most_one_mebibyte() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let longest = "x".repeat(1_048_576 - "name".len() - "String".len() - "value".len());
    let send = |body: String| {
        let request = sqs.client.send_message().queue_url(&url).message_body(body);
        request.message_attributes("name", text("String", "value")).send()
    };
    send(longest.clone()).await.expect("sent");
    let refused = refusal(send(format!("{longest}x")).await);
    assert_eq!(refused.code, "InvalidParameterValue");
    assert_eq!(
        refused.message,
        "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes."
    );
    assert_eq!(sqs.receive(&url).await[0].body().map(str::len), Some(longest.len()));
}

#[tokio::test]
async fn text_in_any_script_is_preserved() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let body = "tab\tline\nreturn\r \"quoted\" \\ \u{7f} \u{FFFD} \u{E000} 日本 \u{1F600} \u{10FFFF}";
    sqs.send(&url, body).await;
    assert_eq!(bodies(&sqs.receive(&url).await), [body]);
}

#[tokio::test]
async fn a_message_older_than_the_retention_period_is_deleted() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[(Name::MessageRetentionPeriod, "60")]).await;
    sqs.send(&url, "old").await;
    sqs.send(&url, "held").await;
    assert_eq!(bodies(&sqs.receive_up_to(&url, 1).await), ["old"]);
    sqs.advance_s(59);
    assert_eq!(sqs.counts(&url).await, ("2".to_owned(), "0".to_owned(), "0".to_owned()));
    sqs.advance_s(1);
    assert_eq!(sqs.counts(&url).await, ("0".to_owned(), "0".to_owned(), "0".to_owned()));
}
