//! The sample events in `events/` and their outcomes.

use std::{collections::BTreeMap, path::Path};

use spillway_command::replay::events;

use crate::tidy::source as tidy;

/// Expected outcome of each file: the status and the pool, or the number of failed messages.
const EXPECTED: [(&str, &str); 38] = [
    ("function-url-iam-role.json", "200 OK from provisioned"),
    ("function-url-jobs-bad-limit.json", "400 Bad Request"),
    ("function-url-messages-stream.json", "200 OK from provisioned"),
    ("http-api-bad-host-and-query.json", "200 OK from provisioned"),
    ("http-api-chat-completions.json", "200 OK from provisioned"),
    ("rest-application-profiles.json", "200 OK"),
    ("rest-bad-json.json", "400 Bad Request"),
    ("rest-batches-bad-limit.json", "400 Bad Request"),
    ("rest-chat-completions-gzip.json", "200 OK from provisioned"),
    ("rest-chat-completions-respond-async.json", "200 OK from provisioned"),
    ("rest-chat-completions-stream.json", "200 OK from provisioned"),
    ("rest-chat-completions.json", "200 OK from provisioned"),
    ("rest-converse-bare-colon.json", "200 OK from provisioned"),
    ("rest-converse-encoded-arn.json", "200 OK from provisioned"),
    ("rest-converse-encoded-colon.json", "200 OK from provisioned"),
    ("rest-converse-stream.json", "200 OK from provisioned"),
    ("rest-converse.json", "200 OK from provisioned"),
    ("rest-files-bad-limit.json", "400 Bad Request"),
    ("rest-head-root.json", "200 OK"),
    ("rest-healthz.json", "200 OK"),
    ("rest-iam-role.json", "200 OK from provisioned"),
    ("rest-iam-unknown-role.json", "403 Forbidden"),
    ("rest-job-delete.json", "200 OK"),
    ("rest-job-result.json", "409 Conflict"),
    ("rest-job.json", "200 OK"),
    ("rest-jobs-bad-limit.json", "400 Bad Request"),
    ("rest-message-batches-bad-limit.json", "400 Bad Request"),
    ("rest-messages-stream.json", "200 OK from provisioned"),
    ("rest-messages.json", "200 OK from provisioned"),
    ("rest-models.json", "200 OK"),
    ("rest-quota.json", "200 OK"),
    ("rest-response-bad-stream.json", "400 Bad Request"),
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
    assert!(body_of("rest-application-profiles.json").contains("[]"), "the query selects other profiles");
    for (file, parameter) in [
        ("rest-jobs-bad-limit.json", "limit"),
        ("function-url-jobs-bad-limit.json", "limit"),
        ("rest-response-bad-stream.json", "stream"),
    ] {
        assert!(body_of(file).contains(&format!("The query parameter {parameter} must be")), "{}", body_of(file));
    }
    assert!(body_of("rest-chat-completions-stream.json").ends_with("data: [DONE]\n\n"));
    assert!(body_of("rest-messages-stream.json").contains("event: message_stop"));
    assert!(body_of("function-url-messages-stream.json").contains("event: message_stop"));
    assert_eq!(
        body_of("sqs-bad-body.json"),
        body_of("sqs-one-job.json"),
        "the unreadable message of the two is a dead letter"
    );
}

/// The handlers that read a query, with the paths of their sample events.
const QUERY_READERS: [(&str, &str); 6] = [
    ("batches/anthropic.rs", "/v1/messages/batches"),
    ("batches/openai.rs", "/v1/batches"),
    ("files.rs", "/v1/files"),
    ("jobs/list.rs", "/v1/jobs"),
    ("profiles.rs", "/inference-profiles"),
    ("responses.rs", "/v1/responses/resp_0123456789abcdef0123456789abcdef"),
];

#[test]
fn each_handler_that_reads_the_query_has_a_sample_event_with_one() {
    let events = tidy::files("events", &["json"]);
    for (handler, path) in QUERY_READERS {
        let has_query = |text: &str| {
            text.contains(&format!("\"path\": \"{path}\"")) && text.contains("\"queryStringParameters\": {")
        };
        assert!(events.iter().any(|event| has_query(&event.text)), "no event with a query for {handler}");
    }
    let handlers = tidy::rust_files("shared/spillway/src/http");
    let readers = handlers.iter().filter(|source| source.text.contains("uri.query()"));
    let readers: Vec<&str> =
        readers.map(|source| source.path.trim_start_matches("shared/spillway/src/http/")).collect();
    assert_eq!(readers, QUERY_READERS.map(|(handler, _)| handler), "a handler without a row");
}
