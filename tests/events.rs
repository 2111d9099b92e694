//! Every sample event does what its name says.

use std::{collections::BTreeMap, path::Path};

use spillway_command::replay::events;

/// What comes of each file: the status and the pool, or how many messages failed.
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
async fn every_sample_event_comes_to_what_it_is_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events");
    let mut came = BTreeMap::new();
    let note = |replayed: events::Replayed| {
        came.insert(replayed.file, (replayed.got, replayed.body));
    };
    events::replay(&folder, note).await.expect("events");

    let files = std::fs::read_dir(&folder).expect("the samples").count();
    assert_eq!(came.len(), files, "a file in events/ is not replayed");
    let outcomes: BTreeMap<&str, &str> = came.iter().map(|(file, (got, _))| (file.as_str(), got.as_str())).collect();
    assert_eq!(outcomes, BTreeMap::from(EXPECTED), "an event without an entry, or an entry that does not hold");

    let told = &came["rest-iam-unknown-role.json"].1;
    assert!(told.contains("No tenant has the caller arn:aws:iam::123456789012:role/Nobody"), "{told}");
    let body_of = |file: &str| &came[file].1;
    assert!(body_of("rest-chat-completions-stream.json").ends_with("data: [DONE]\n\n"));
    assert!(body_of("rest-messages-stream.json").contains("event: message_stop"));
    assert!(body_of("function-url-messages-stream.json").contains("event: message_stop"));
    assert_eq!(body_of("sqs-bad-body.json"), body_of("sqs-one-job.json"), "the broken one of two is a dead letter");
}
