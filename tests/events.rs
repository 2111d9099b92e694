//! The sample events in `events/` and their outcomes.

use std::{collections::BTreeMap, path::Path};

use spillway_command::replay::events;

/// Expected outcome of each file: the status and the pool, or the number of failed messages.
const EXPECTED: [(&str, &str); 30] = [
    ("function-url-iam-role.json", "200 OK from provisioned"),
    ("function-url-messages-stream.json", "200 OK from provisioned"),
    ("http-api-bad-host-and-query.json", "200 OK from provisioned"),
    ("http-api-chat-completions.json", "200 OK from provisioned"),
    ("rest-bad-json.json", "400 Bad Request"),
    ("rest-chat-completions-respond-async.json", "200 OK from provisioned"),
    ("rest-chat-completions-stream.json", "200 OK from provisioned"),
    ("rest-chat-completions.json", "200 OK from provisioned"),
    ("rest-converse-bare-colon.json", "200 OK from provisioned"),
    ("rest-converse-encoded-arn.json", "200 OK from provisioned"),
    ("rest-converse-encoded-colon.json", "200 OK from provisioned"),
    ("rest-converse-stream.json", "200 OK from provisioned"),
    ("rest-converse.json", "200 OK from provisioned"),
    ("rest-head-root.json", "200 OK"),
    ("rest-healthz.json", "200 OK"),
    ("rest-iam-role.json", "200 OK from provisioned"),
    ("rest-iam-unknown-role.json", "403 Forbidden"),
    ("rest-job-delete.json", "200 OK"),
    ("rest-job-result.json", "409 Conflict"),
    ("rest-job.json", "200 OK"),
    ("rest-messages-stream.json", "200 OK from provisioned"),
    ("rest-messages.json", "200 OK from provisioned"),
    ("rest-models.json", "200 OK"),
    ("rest-quota.json", "200 OK"),
    ("rest-unknown-key.json", "401 Unauthorized"),
    ("rest-wrong-method.json", "405 Method Not Allowed"),
    ("schedule-sweep.json", "0 failed"),
    ("sqs-bad-body.json", "0 failed"),
    ("sqs-empty.json", "0 failed"),
    ("sqs-one-job.json", "0 failed"),
];

#[tokio::test]
async fn every_sample_event_has_its_expected_outcome() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events");
    let mut replays = BTreeMap::new();
    let record = |replayed: events::Replayed| {
        replays.insert(replayed.file, (replayed.got, replayed.body));
    };
    events::replay(&folder, record).await.expect("events");

    let files = std::fs::read_dir(&folder).expect("the samples").count();
    assert_eq!(replays.len(), files, "a file in events/ is not replayed");
    let outcomes: BTreeMap<&str, &str> = replays.iter().map(|(file, (got, _))| (file.as_str(), got.as_str())).collect();
    assert_eq!(outcomes, BTreeMap::from(EXPECTED), "an event without an entry, or an outdated entry");

    let body = &replays["rest-iam-unknown-role.json"].1;
    assert!(body.contains("No tenant has the caller arn:aws:iam::123456789012:role/Unregistered"), "{body}");
    let body_of = |file: &str| &replays[file].1;
    assert!(body_of("rest-chat-completions-stream.json").ends_with("data: [DONE]\n\n"));
    assert!(body_of("rest-messages-stream.json").contains("event: message_stop"));
    assert!(body_of("function-url-messages-stream.json").contains("event: message_stop"));
    assert_eq!(
        body_of("sqs-bad-body.json"),
        body_of("sqs-one-job.json"),
        "the unreadable message of the two is a dead letter"
    );
}
