//! Requests that the SDK never sends: other paths and invalid input.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};

use crate::support::Sqs;

struct Reply {
    status: StatusCode,
    code: String,
    body: Value,
}

async fn post(sqs: &Sqs, path: &str, operation: &str, body: impl Into<Bytes>) -> Reply {
    let request = Request::post(format!("{}{path}", sqs.endpoint))
        .header("x-amz-target", operation)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Full::new(body.into()))
        .expect("a request");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.expect("a response");
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
    let code = header("x-amzn-query-error").unwrap_or_default().to_owned();
    assert_eq!(header("content-type"), Some("application/x-amz-json-1.0"));
    assert!(header("x-amzn-requestid").is_some());
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    Reply { status, code, body: serde_json::from_slice(&bytes).expect("JSON") }
}

#[tokio::test]
async fn a_request_may_go_to_the_path_of_its_queue() {
    let sqs = Sqs::start().await;
    sqs.queue("jobs", &[]).await;
    let body = json!({ "MessageBody": "x" }).to_string();
    let reply = post(&sqs, "/000000000000/jobs", "AmazonSQS.SendMessage", body.clone()).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.body["MD5OfMessageBody"], "9dd4e461268c8034f5c8564e155c67a6");
    let reply = post(&sqs, "/", "AmazonSQS.SendMessage", body).await;
    assert_eq!(reply.code, "AWS.SimpleQueueService.NonExistentQueue;Sender");
}

#[tokio::test]
async fn malformed_input_is_a_sender_fault() {
    let sqs = Sqs::start().await;
    let url = sqs.queue("jobs", &[]).await;
    let send = "AmazonSQS.SendMessage";
    let wrong_type = json!({ "QueueUrl": url, "MessageBody": 7 }).to_string();
    let wrong_entry = json!({ "QueueUrl": url, "Entries": [7] }).to_string();
    let surrogate = format!(r#"{{"QueueUrl":"{url}","MessageBody":"\ud800"}}"#);
    let deep = "[".repeat(100_000);
    let malformed = "MalformedInput;Sender";
    for (operation, body, code) in [
        (send, Bytes::from("{"), malformed),
        (send, Bytes::from("[]"), malformed),
        (send, Bytes::from(vec![b'"', 0xff, b'"']), malformed),
        (send, Bytes::from(deep), malformed),
        (send, Bytes::from(wrong_type), malformed),
        (send, Bytes::from(surrogate), malformed),
        ("AmazonSQS.SendMessageBatch", Bytes::from(wrong_entry), malformed),
        ("AmazonSQS.CreateQueue", Bytes::new(), "MissingParameter;Sender"),
        ("AmazonSQS.Explode", Bytes::from("{}"), "InvalidAction;Sender"),
        ("AmazonSQS.AddPermission", Bytes::from("{}"), "AWS.SimpleQueueService.UnsupportedOperation;Sender"),
        ("DynamoDB_20120810.PutItem", Bytes::from("{}"), "InvalidAction;Sender"),
    ] {
        let reply = post(&sqs, "/", operation, body).await;
        assert_eq!((reply.status, reply.code.as_str()), (StatusCode::BAD_REQUEST, code), "{operation}");
        assert!(reply.body["__type"].as_str().is_some_and(|name| name.contains('#')));
        assert!(reply.body["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
}

#[tokio::test]
async fn a_request_larger_than_the_maximum_is_refused() {
    let sqs = Sqs::start().await;
    let reply = post(&sqs, "/", "AmazonSQS.SendMessage", vec![b' '; 9 * 1_048_576]).await;
    assert_eq!((reply.status, reply.code.as_str()), (StatusCode::BAD_REQUEST, "MalformedInput;Sender"));
}

#[tokio::test]
async fn requests_are_counted_by_operation() {
    let sqs = Sqs::start().await;
    sqs.queue("jobs", &[]).await;
    let body = json!({ "MessageBody": "x" }).to_string();
    post(&sqs, "/000000000000/jobs", "AmazonSQS.SendMessage", body.clone()).await;
    post(&sqs, "/000000000000/jobs", "AmazonSQS.SendMessage", body).await;
    let counts = async |method: &str| {
        let request = Request::builder().method(method).uri(format!("{}/_sim/stats", sqs.endpoint));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request.body(Full::<Bytes>::default()).expect("a request")).await;
        let body = response.expect("a response").into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice::<Value>(&body).expect("JSON")
    };
    assert_eq!(counts("GET").await, json!({ "operations": { "CreateQueue": 1, "SendMessage": 2 } }));
    counts("DELETE").await;
    assert_eq!(counts("GET").await, json!({ "operations": {} }));
}
