//! Bodies in the model's own format: passed on, counted, and read if an answer needs it.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use spillway::dialect::{Api, Echo};
use spillway::stored_headers::StoredHeaders;
use spillway::{
    chat::{Answer, Format, Input, NativeInput, NativeReply, Output, Request, StreamEvent},
    problem::Problem,
    usage::Usage,
};

use super::{context, payloads};

fn read(api: Api, format: Format, body: &Value, headers: &[(&str, &str)]) -> Result<(Request, Echo), Problem> {
    let headers = headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    let headers: HeaderMap = headers.collect();
    api.read(body.to_string().as_bytes(), Some("path"), false)?.request(Some(format), &headers)
}

fn native(request: &Request) -> &NativeInput {
    let Input::Native(native) = &request.input else { panic!("a body of the model's own") };
    native
}

fn messages(extra: Value) -> Value {
    let mut body = json!({"model": "claude", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("members").clone());
    body
}

#[test]
fn claude_receives_a_message_unchanged() {
    let rest = json!({"thinking": {"type": "adaptive"}, "system": [{"type": "text", "text": "s",
        "cache_control": {"type": "ephemeral", "ttl": "1h"}}], "tools": [{"type": "bash_20250124", "name": "bash"}],
        "metadata": {"user_id": "u"}, "tomorrow": {"z": 1, "a": 2}});
    let mut sent = messages(rest.clone());
    sent["stream"] = json!(true);
    sent["max_tokens"] = json!(50);
    let (request, _) = read(Api::Messages, Format::Messages, &sent, &[]).expect("a valid request");
    assert_eq!((request.model.as_str(), request.stream, request.max_tokens), ("claude", true, Some(50)));
    let mut expected = messages(rest);
    expected.as_object_mut().expect("an object").shift_remove("model");
    expected["anthropic_version"] = json!("bedrock-2023-05-31");
    expected["max_tokens"] = json!(50);
    assert_eq!(Value::from(native(&request).bodies.clone()), json!([expected]));
    assert_eq!(request.ignored, Vec::<String>::new());
}

#[test]
fn supported_betas_are_passed_on_and_others_are_listed_as_ignored() {
    let header = [("anthropic-beta", "claude-code-20250219, context-1m-2025-08-07,advanced-tool-use-2025-11-20")];
    let (request, _) = read(Api::Messages, Format::Messages, &messages(json!({})), &header).expect("a valid request");
    let betas = ["context-1m-2025-08-07", "tool-search-tool-2025-10-19"];
    assert_eq!(native(&request).bodies[0]["anthropic_beta"], json!(betas));
    assert_eq!(request.ignored, ["anthropic-beta.claude-code-20250219"]);
    let named = messages(json!({"anthropic_beta": ["anything"]}));
    let (request, _) = read(Api::Messages, Format::Messages, &named, &header).expect("a valid request");
    assert_eq!(native(&request).bodies[0]["anthropic_beta"], json!(["anything"]));
}

#[test]
fn output_format_is_renamed_for_bedrock() {
    let format = json!({"type": "json_schema", "schema": {"type": "object"}});
    let sent = |members: Value| {
        let (request, _) = read(Api::Messages, Format::Messages, &messages(members), &[]).expect("a valid request");
        native(&request).bodies[0]["output_config"].clone()
    };
    assert_eq!(sent(json!({"output_format": format})), json!({"format": format}));
    let both = json!({"output_format": {}, "output_config": {"effort": "low", "format": format}});
    assert_eq!(sent(both), json!({"effort": "low", "format": format}));
    let wrong = messages(json!({"output_format": format, "output_config": 1}));
    let problem = read(Api::Messages, Format::Messages, &wrong, &[]).expect_err("an error");
    assert_eq!(problem.param.as_deref(), Some("output_config"));
}

#[test]
fn unsupported_parameters_are_rejected_for_claude_too() {
    for (member, value) in [("mcp_servers", json!([{}])), ("container", json!("c")), ("speed", json!("fast"))] {
        let problem = read(Api::Messages, Format::Messages, &messages(json!({ member: value })), &[]);
        assert_eq!(problem.expect_err("an error").param.as_deref(), Some(member));
    }
    let too_many = messages(json!({"max_tokens": 0}));
    let problem = read(Api::Messages, Format::Messages, &too_many, &[]).expect_err("an error");
    assert_eq!(problem.param.as_deref(), Some("max_tokens"));
}

#[test]
fn claudes_own_answer_passes_byte_for_byte() {
    let body = Bytes::from_static(br#"{"id": "msg_bdrk_1", "type":"message"}"#);
    let headers = StoredHeaders::from([("x-amzn-bedrock-input-token-count", "3")]);
    let replies = vec![NativeReply { headers, body: body.clone() }];
    let answer = Answer { output: Output::Native(replies), usage: None };
    let message = Api::Messages.answer(&context(), &answer);
    assert_eq!((message.status.as_u16(), &message.body), (200, &body));
    assert!(message.headers.iter().all(|(name, _)| !name.as_str().starts_with("x-amzn")));
    let invoked = Api::Invoke.answer(&context(), &answer);
    assert_eq!(&invoked.body, &body);
    assert!(invoked.headers.iter().any(|(name, value)| name == "x-amzn-bedrock-input-token-count" && value == "3"));
}

#[test]
fn claudes_own_events_pass_without_the_members_that_bedrock_adds() {
    let start = r#"{"type":"message_start","message":{"id":"m","usage":{"input_tokens":3,"output_tokens":1}}}"#;
    let stop =
        r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":3,"outputTokenCount":5}}"#;
    let mut encoder = Api::Messages.stream(context());
    let mut usage = None;
    let mut bytes = Vec::new();
    for (chunk, is_last) in [(start, false), ("no event", false), (stop, true)] {
        let event = StreamEvent::Native(Bytes::from_static(chunk.as_bytes()));
        assert_eq!(event.report(&mut usage), is_last);
        bytes.extend(encoder.event(&event));
    }
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 6, "two events");
    assert!(String::from_utf8_lossy(&bytes).starts_with(&format!("event: message_start\ndata: {start}\n\n")));
    assert_eq!(payloads(&bytes)[1], json!({"type": "message_stop"}));
    let expected = Usage { input_tokens: 3, output_tokens: 5, ..Usage::default() };
    assert_eq!(usage, Some(expected));
}

#[test]
fn usage_is_the_same_from_every_source() {
    let expected = Usage {
        input_tokens: 7,
        output_tokens: 9,
        cache_read_input_tokens: 20,
        cache_write_input_tokens: 30,
        cache_write_1h_input_tokens: 10,
        reasoning_tokens: 0,
    };
    let converse = json!({"inputTokens": 7, "outputTokens": 9, "cacheReadInputTokens": 20, "cacheWriteInputTokens": 30,
        "cacheDetails": [{"ttl": "5m", "inputTokens": 20}, {"ttl": "1h", "inputTokens": 10}]});
    assert_eq!(Usage::from_converse(&converse), expected);
    let in_stream = [
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1,
            "cache_read_input_tokens": 20, "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10}}}}),
        json!({"type": "message_delta", "usage": {"output_tokens": 9}}),
        json!({"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 7, "outputTokenCount": 9,
            "cacheReadInputTokenCount": 20, "cacheWriteInputTokenCount": 30}}),
    ];
    let mut usage = None;
    for event in in_stream {
        StreamEvent::Native(Bytes::from(event.to_string())).report(&mut usage);
    }
    assert_eq!(usage, Some(expected));
}

#[test]
fn an_invoke_body_and_its_headers_pass_unchanged() {
    let body =
        json!({"inferenceConfig": {"maxTokens": 5}, "messages": [{"role": "user", "content": [{"text": "Hi"}]}]});
    let headers = [
        ("x-amzn-bedrock-guardrailidentifier", "g1"),
        ("x-amzn-bedrock-guardrailversion", "2"),
        ("x-amzn-bedrock-trace", "ENABLED"),
        ("x-amzn-bedrock-service-tier", "flex"),
        ("x-amzn-bedrock-request-metadata", r#"{"team": "a"}"#),
        ("accept", "*/*"),
    ];
    let (request, _) = read(Api::Invoke, Format::Nova, &body, &headers).expect("a valid request");
    assert_eq!((request.model.as_str(), request.max_tokens), ("path", Some(5)));
    assert_eq!(request.service_tier.as_deref(), Some("flex"));
    let native = native(&request);
    assert_eq!(Value::from(native.bodies.clone()), json!([body]));
    assert_eq!(native.options.guardrail_id.as_deref(), Some("g1"));
    assert_eq!(native.options.request_metadata.get("team"), Some(&json!("a")));
    for (name, value) in [
        ("x-amzn-bedrock-performanceconfig-latency", "optimized"),
        ("x-amzn-bedrock-service-tier", "fast"),
        ("x-amzn-bedrock-request-metadata", "[]"),
    ] {
        let problem = read(Api::Invoke, Format::Nova, &body, &[(name, value)]).expect_err("an error");
        assert_eq!(problem.param.as_deref(), Some(name));
    }
}

#[test]
fn texts_become_bodies_of_the_embedding_model() {
    let body = json!({"model": "e", "input": ["one", "two"], "dimensions": 256, "user": "u"});
    let (titan, _) = read(Api::Embeddings, Format::TitanEmbed, &body, &[]).expect("a valid request");
    let expected = json!([{"inputText": "one", "dimensions": 256}, {"inputText": "two", "dimensions": 256}]);
    assert_eq!(Value::from(native(&titan).bodies.clone()), expected);
    assert_eq!(titan.ignored, ["user"]);
    let many: Vec<String> = (0..97).map(|n| n.to_string()).collect();
    let body = json!({"model": "e", "input": many, "encoding_format": "base64"});
    let (cohere, echo) = read(Api::Embeddings, Format::CohereEmbed, &body, &[]).expect("a valid request");
    let sizes: Vec<usize> =
        native(&cohere).bodies.iter().map(|body| body["texts"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!((sizes, echo.base64), (vec![96, 1], true));
    assert_eq!(native(&cohere).bodies[0]["input_type"], "search_document");
}

#[test]
fn input_that_no_model_embeds_is_rejected() {
    for (input, param) in
        [(json!([1, 2]), "input"), (json!([[1]]), "input"), (json!([]), "input"), (json!(""), "input")]
    {
        let body = json!({"model": "e", "input": input});
        let problem = read(Api::Embeddings, Format::TitanEmbed, &body, &[]).expect_err("an error");
        assert_eq!(problem.param.as_deref(), Some(param));
    }
    let body = json!({"model": "e", "input": "text"});
    let problem = read(Api::Embeddings, Format::Messages, &body, &[]).expect_err("an error");
    assert_eq!(problem.param.as_deref(), Some("model"));
}

#[test]
fn vectors_keep_their_order_as_numbers_or_base64() {
    let reply = |body: Value| NativeReply { headers: StoredHeaders::default(), body: body.to_string().into() };
    let replies =
        vec![reply(json!({"embedding": [0.5, -1.0]})), reply(json!({"embeddings": {"float": [[1.0], [2.0]]}}))];
    let usage = Some(Usage { input_tokens: 4, ..Usage::default() });
    let answer = Answer { output: Output::Native(replies), usage };
    let list: Value = serde_json::from_slice(&Api::Embeddings.answer(&context(), &answer).body).expect("JSON");
    let vectors: Vec<&Value> = list["data"].as_array().expect("a list").iter().map(|item| &item["embedding"]).collect();
    assert_eq!(vectors, [&json!([0.5, -1.0]), &json!([1.0]), &json!([2.0])]);
    assert_eq!((&list["data"][2]["index"], &list["usage"]["total_tokens"]), (&json!(2), &json!(4)));
    let mut packed = context();
    packed.echo.base64 = true;
    let list: Value = serde_json::from_slice(&Api::Embeddings.answer(&packed, &answer).body).expect("JSON");
    assert_eq!(list["data"][0]["embedding"], "AAAAPwAAgL8=");
    let empty = Answer { output: Output::Native(vec![reply(json!({}))]), usage };
    assert_eq!(Api::Embeddings.answer(&context(), &empty).status.as_u16(), 502);
}

#[test]
fn tokens_are_counted_for_converse_and_invoke_bodies() {
    let to_count = |input: Value| {
        let body = json!({"input": input}).to_string();
        let draft = Api::Converse.read(body.as_bytes(), Some("m"), false).expect("an object");
        draft.to_count(Some(Format::Messages), &HeaderMap::new())
    };
    let converse = to_count(json!({"converse": {"messages": []}})).expect("a valid request");
    assert!(matches!(converse.input, Input::Converse(_)));
    let invoke = to_count(json!({"invokeModel": {"body": "eyJhIjogMX0="}})).expect("a valid request");
    assert_eq!(native(&invoke).bodies[0]["a"], 1);
    for (input, param) in [
        (json!({}), "input.invokeModel"),
        (json!({"invokeModel": {"body": "%"}}), "input.invokeModel.body"),
        (json!({"invokeModel": {"body": "WzFd"}}), "input.invokeModel.body"),
    ] {
        assert_eq!(to_count(input).expect_err("an error").param.as_deref(), Some(param));
    }
}
