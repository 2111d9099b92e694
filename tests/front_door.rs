//! What the front doors of Lambda change: the size of a body, its encoding, and how long an answer
//! may be silent.

use std::{io::Write, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use spillway::lambda::{self, FunctionEvent};

use crate::{
    support::{
        Deployment,
        answer::{Answer, deployment, pool, three_chats, within},
        chat, key,
    },
    tidy::source::file,
};

/// Maximum size of an event (AWS Lambda Developer Guide, "Lambda quotas": 6 MB of a synchronous
/// invocation, which AWS reports as this number of bytes when it refuses more).
const MAX_EVENT_BYTES: usize = 6_291_556;

/// Maximum size of a request body behind Lambda that the documentation names.
const DOCUMENTED_BYTES: usize = 4_600_000;

/// Maximum size of all headers of a request (Amazon API Gateway Developer Guide, "Quotas for
/// configuring and running a REST API").
const MAX_HEADER_BYTES: usize = 10_240;

/// Returns the event of API Gateway for a request with this body, as `BinaryMediaTypes` makes it.
fn rest_event(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Value {
    let mut event: Value = serde_json::from_str(&file("events/rest-chat-completions.json").text).expect("an event");
    event["path"] = path.into();
    event["requestContext"]["path"] = format!("/v{path}").into();
    for (name, value) in headers.iter().chain([&("Authorization", &*format!("Bearer {}", key("t")))]) {
        event["headers"][*name] = json!(value);
        event["multiValueHeaders"][*name] = json!([value]);
    }
    event["body"] = BASE64_STANDARD.encode(body).into();
    event["isBase64Encoded"] = true.into();
    event
}

/// Returns the event of a Function URL for a request with this body.
fn function_url_event(path: &str, body: &str) -> Value {
    let mut event: Value =
        serde_json::from_str(&file("events/function-url-messages-stream.json").text).expect("an event");
    event["rawPath"] = path.into();
    event["headers"]["authorization"] = format!("Bearer {}", key("t")).into();
    event["body"] = body.into();
    event
}

/// Sends an event through the handler of the API function. Returns the status and the body.
async fn send(deployment: &Deployment, event: &Value) -> (u16, Bytes) {
    let FunctionEvent::Http(request) = FunctionEvent::parse(&event.to_string()).expect("an event") else {
        panic!("not a request")
    };
    let response = Box::pin(lambda::answer(&deployment.world.app, *request)).await;
    (response.status().as_u16(), response.into_body().collect().await.expect("a body").to_bytes())
}

/// Sends an event while time passes quickly.
async fn send_quickly(deployment: &Deployment, event: &Value) -> (u16, Bytes) {
    let advance = async {
        loop {
            tokio::time::sleep(Duration::from_millis(25)).await;
            deployment.world.advance(5_000);
        }
    };
    tokio::select! {
        answer = within(send(deployment, event)) => answer,
        () = advance => unreachable!("the clocks run forever"),
    }
}

/// Returns the body that an event carries.
fn body_of(event: &Value) -> Vec<u8> {
    let FunctionEvent::Http(request) = FunctionEvent::parse(&event.to_string()).expect("an event") else {
        panic!("not a request")
    };
    request.into_body().as_ref().to_vec()
}

/// A file of a batch with short lines, and a chat about a program: most of what callers send has
/// fewer quotes and line breaks.
fn large_bodies() -> [String; 2] {
    let line = json!({ "custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": chat(5, 5) });
    let program = "fn main() {\n    println!(\"{}\", \"a\\n\");\n}\n".repeat(DOCUMENTED_BYTES / 40);
    let message = json!({ "role": "user", "content": program });
    let chat = json!({ "model": "m", "messages": [message] }).to_string();
    let mut bodies = [format!("{line}\n").repeat(DOCUMENTED_BYTES / 100), chat];
    bodies.iter_mut().for_each(|body| body.truncate(DOCUMENTED_BYTES));
    bodies
}

#[test]
fn a_body_of_the_documented_size_fits_into_an_event() {
    for body in large_bodies() {
        assert_eq!(body.len(), DOCUMENTED_BYTES);
        let event = function_url_event("/v1/files", &body);
        let escapes = event.to_string().len() - body.len();
        assert!(
            event.to_string().len() + 2 * MAX_HEADER_BYTES <= MAX_EVENT_BYTES,
            "{escapes} bytes are not the body's"
        );
        assert_eq!(body_of(&event), body.as_bytes());
    }
    for page in ["docs/api.md", "infra/template.yaml"] {
        assert!(file(page).text.contains("4.6 MB"), "{page}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_body_of_the_documented_size_fits_whatever_is_in_it(unit in prop::collection::vec(any::<u8>(), 1..64)) {
        let body: Vec<u8> = unit.iter().copied().cycle().take(DOCUMENTED_BYTES).collect();
        // The worst case: each byte of the headers is escaped, in both maps.
        let header = "\"".repeat(MAX_HEADER_BYTES);
        let event = rest_event("/v1/files", &[("X-Any", &header)], &body);
        prop_assert!(event.to_string().len() <= MAX_EVENT_BYTES);
        prop_assert_eq!(body_of(&event), body);
    }
}

#[tokio::test]
async fn a_compressed_body_is_read_behind_lambda_and_without_it() {
    let deployment = Deployment::with_tenants("").await;
    for (path, body) in three_chats(5, Some(5)) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body.to_string().as_bytes()).expect("written");
        let gzip = encoder.finish().expect("finished");
        let request = deployment.http.post(format!("{}{path}", deployment.world.url)).bearer_auth(key("t"));
        let compressed = |encoding| request.try_clone().expect("a copy").header("content-encoding", encoding);
        let answer = Answer::to(compressed("gzip").body(gzip.clone())).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let (status, answer) = send(&deployment, &rest_event(path, &[("Content-Encoding", "gzip")], &gzip)).await;
        assert_eq!(status, 200, "{path}: {answer:?}");
        let unread = Answer::to(compressed("zstd").body(gzip)).await;
        assert_eq!((unread.status, unread.header("accept-encoding")), (415, "gzip, deflate"), "{}", unread.text());
        let body = unread.json();
        let message = body["error"]["message"].as_str().or(body["message"].as_str()).expect("a message");
        assert!(message.contains("zstd"), "{path}: {message}");
    }
}

/// A model whose whole answer takes more than six minutes, but which streams from the first second.
async fn slow_model() -> Deployment {
    let simulator = "[simulator]\ntime_to_first_token_ms = 1000\ntokens_per_second = 1\n";
    let settings = deployment("", &pool("only", "on_demand", "sim.model", "")) + simulator;
    let deployment = Deployment::start(&settings.replace("timeout_ms = 30000", "timeout_ms = 600000")).await;
    deployment.advance_to_noon();
    deployment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_ends_before_api_gateway_closes_its_connection() {
    let deployment = slow_model().await;
    for (path, body) in three_chats(380, Some(400)) {
        let before = deployment.world.app.clock.now();
        let (status, answer) = send_quickly(&deployment, &rest_event(path, &[], body.to_string().as_bytes())).await;
        let elapsed_ms = (deployment.world.app.clock.now() - before).as_ms();
        assert_eq!(status, if path.starts_with("/model") { 408 } else { 504 }, "{path}: {answer:?}");
        assert!((290_000..300_000).contains(&elapsed_ms), "{path}: {elapsed_ms} ms");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let message = answer["error"]["message"].as_str().or(answer["message"].as_str()).expect("a message");
        assert!(message.contains("API Gateway") && message.contains("Ask for a stream"), "{path}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_and_the_function_url_may_take_longer() {
    let deployment = slow_model().await;
    let mut body = chat(380, 400);
    let (status, answer) =
        send_quickly(&deployment, &function_url_event("/v1/chat/completions", &body.to_string())).await;
    assert_eq!(status, 200, "{answer:?}");
    body["stream"] = true.into();
    let event = rest_event("/v1/chat/completions", &[], body.to_string().as_bytes());
    let (status, answer) = send_quickly(&deployment, &event).await;
    assert!(status == 200 && answer.ends_with(b"data: [DONE]\n\n"), "{answer:?}");
}
