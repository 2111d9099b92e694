//! Bedrock Converse and ConverseStream.

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::Message;
use serde_json::{Value, json};
use spillway::dialect::Api;
use spillway::{
    chat::{Output, StreamEvent},
    problem::{Kind, Problem},
};

use super::{answer, busy_stream, context, parse, read, rejection_message, sent, streamed};

fn hello(extra: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": [{"text": "Hi"}]}]});
    let extra = extra.as_object().expect("extra members").clone();
    body.as_object_mut().expect("an object").extend(extra);
    body
}

fn header<'m>(message: &'m Message, name: &str) -> &'m str {
    let header = message.headers().iter().find(|header| header.name().as_str() == name).expect("a header");
    header.value().as_string().expect("a string").as_str()
}

#[test]
fn request_metadata_has_space_for_our_pairs() {
    let pairs = |count| (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    let parse = |count| {
        let body = json!({
            "messages": [{"role": "user", "content": [{"text": "hi"}]}], "requestMetadata": pairs(count),
        });
        read(Api::Converse, body.to_string().as_bytes(), Some("m"), false)
    };
    assert!(parse(14).is_ok());
    let problem = parse(15).expect_err("too many");
    assert_eq!(problem.param.as_deref(), Some("requestMetadata"));
}

#[test]
fn a_body_passes_unchanged() {
    let body = hello(json!({
        "system": [], "inferenceConfig": {"maxTokens": 9, "temperature": 0.5}, "requestMetadata": {"team": "a"},
        "additionalModelRequestFields": {"top_k": 5, "tomorrow": {"z": 1, "a": 2}},
        "toolConfig": {"tools": [{"systemTool": {"name": "x"}}]}}));
    let (request, _) = read(Api::Converse, body.to_string().as_bytes(), Some("m"), true).expect("a valid request");
    assert_eq!((request.model.as_str(), request.stream, request.max_tokens), ("m", true, Some(9)));
    assert_eq!(sent(&request).to_string(), body.to_string());
}

#[test]
fn a_caller_can_choose_the_tier_but_not_the_latency() {
    let request = parse(
        Api::Converse,
        &hello(json!({
        "serviceTier": {"type": "default"}, "performanceConfig": {"latency": "standard"}})),
    );
    assert_eq!(sent(&request), hello(json!({})));
    assert_eq!(request.service_tier, None);
    let flex = parse(Api::Converse, &hello(json!({"serviceTier": {"type": "flex"}})));
    assert_eq!((sent(&flex), flex.service_tier.as_deref()), (hello(json!({})), Some("flex")));
    rejection_message(Api::Converse, hello(json!({"serviceTier": {"type": "fast"}})), "serviceTier.type");
    let optimized = json!({"performanceConfig": {"latency": "optimized"}});
    rejection_message(Api::Converse, hello(optimized), "performanceConfig.latency");
}

#[test]
fn an_output_limit_cannot_hide_from_the_reservation() {
    let hidden = hello(json!({"additionalModelRequestFields": {"max_tokens": 64000}}));
    rejection_message(Api::Converse, hidden, "additionalModelRequestFields.max_tokens");
    let deeper = hello(json!({"additionalModelRequestFields": {"inferenceConfig": {"max_new_tokens": 64000}}}));
    rejection_message(Api::Converse, deeper, "additionalModelRequestFields.inferenceConfig.max_new_tokens");
}

#[test]
fn wrong_bodies_are_rejected_with_the_field() {
    for (param, body) in [
        ("messages", json!({})),
        ("messages", json!({"messages": []})),
        ("messages", json!({"messages": "Hi"})),
        ("messages[0]", json!({"messages": ["Hi"]})),
        ("messages[0].role", json!({"messages": [{"content": []}]})),
        ("messages[0].role", json!({"messages": [{"role": "robot", "content": []}]})),
        ("messages[0].content", json!({"messages": [{"role": "user", "content": "Hi"}]})),
        ("messages[0].content[0]", json!({"messages": [{"role": "user", "content": ["Hi"]}]})),
        ("system", hello(json!({"system": "Be brief."}))),
        ("inferenceConfig", hello(json!({"inferenceConfig": 7}))),
        ("inferenceConfig.maxTokens", hello(json!({"inferenceConfig": {"maxTokens": "9"}}))),
        ("inferenceConfig.maxTokens", hello(json!({"inferenceConfig": {"maxTokens": 0}}))),
        ("inferenceConfig.temperature", hello(json!({"inferenceConfig": {"temperature": 2}}))),
        ("requestMetadata", hello(json!({"requestMetadata": {"a": 1}}))),
        ("toolConfig", hello(json!({"toolConfig": []}))),
    ] {
        rejection_message(Api::Converse, body, param);
    }
    let nameless = read(Api::Converse, hello(json!({})).to_string().as_bytes(), None, false);
    assert_eq!(nameless.unwrap_err().param.as_deref(), Some("model"));
}

#[test]
fn an_answer_passes_unchanged() {
    let answer = answer(json!([{"text": "Hi"}]), "end_turn");
    let rendered = Api::Converse.answer(&context(), &answer);
    let Output::Converse(body) = &answer.output else { panic!("a Converse reply") };
    assert_eq!(rendered.body, body.to_string());
    let headers: Vec<String> =
        rendered.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    assert_eq!(headers, ["content-type: application/json", "x-amzn-requestid: r1"]);
}

#[test]
fn a_stream_becomes_frames_with_the_same_events() {
    let events = busy_stream();
    let bytes = streamed(Api::Converse, context(), &events);
    let mut rest = bytes.as_slice();
    for event in &events {
        let StreamEvent::Converse { name, payload } = event else { panic!("an event of Converse") };
        let message = read_message_from(&mut rest).expect("a frame");
        assert_eq!(header(&message, ":message-type"), "event");
        assert_eq!(header(&message, ":event-type"), name);
        assert_eq!(header(&message, ":content-type"), "application/json");
        assert_eq!(serde_json::from_slice::<Value>(message.payload()).expect("JSON"), *payload);
    }
    assert!(rest.is_empty());
}

#[test]
fn a_broken_stream_ends_in_an_exception_frame() {
    for (kind, name) in [
        (Kind::Throttled, "throttlingException"),
        (Kind::Model, "modelStreamErrorException"),
        (Kind::Timeout, "modelStreamErrorException"),
        (Kind::Unavailable, "serviceUnavailableException"),
        (Kind::Internal, "internalServerException"),
        (Kind::Invalid, "validationException"),
    ] {
        let mut encoder = Api::Converse.stream(context());
        let bytes = encoder.problem(&Problem::new(kind, "Broken."));
        let message = read_message_from(bytes.as_ref()).expect("a frame");
        assert_eq!(header(&message, ":message-type"), "exception");
        assert_eq!(header(&message, ":exception-type"), name);
        assert_eq!(message.payload().as_ref(), br#"{"message":"Broken."}"#);
        assert!(encoder.finish().is_empty() && encoder.event(&busy_stream()[0]).is_empty());
    }
    let sign = Api::Converse.stream(context()).keep_alive();
    assert_eq!(header(&read_message_from(sign.as_ref()).expect("a frame"), ":event-type"), "keepAlive");
}
