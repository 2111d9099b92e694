//! Anthropic messages.

use serde_json::{Value, json};
use spillway::dialect::Api;
use spillway::{
    chat::Output,
    problem::{Kind, Problem},
};

use super::{PNG, answer, busy_stream, context, event, parse, payloads, rejection_message, rendered, sent, streamed};

fn converse(body: Value) -> Value {
    super::converse(Api::Messages, body)
}

fn hello(extra: Value) -> Value {
    let mut body = json!({"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]});
    let extra = extra.as_object().expect("extra members").clone();
    body.as_object_mut().expect("an object").extend(extra);
    body
}

#[test]
fn a_plain_request_becomes_converse() {
    let request = parse(
        Api::Messages,
        &hello(json!({
        "system": "Be brief.", "temperature": 0, "top_p": 0.9, "top_k": 5, "stop_sequences": ["END"], "stream": true,
        "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "u"}})),
    );
    assert_eq!((request.model.as_str(), request.stream, request.max_tokens), ("claude", true, Some(2_000)));
    assert_eq!(request.ignored, ["metadata"]);
    assert_eq!(
        sent(&request),
        json!({
            "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
            "system": [{"text": "Be brief."}],
            "inferenceConfig": {"maxTokens": 2000, "temperature": 0, "topP": 0.9, "stopSequences": ["END"]},
            "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5},
            "additionalModelResponseFieldPaths": ["/stop_sequence"],
        })
    );
}

#[test]
fn an_absent_output_limit_is_left_to_the_tenants_default() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    assert_eq!(parse(Api::Messages, &body).max_tokens, None);
}

#[test]
fn cache_control_becomes_a_cache_point_after_its_block() {
    let control = json!({"type": "ephemeral"});
    let body = converse(json!({
        "system": [{"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": control}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": control}]}],
    }));
    let point = json!({"cachePoint": {"type": "default"}});
    assert_eq!(body["system"], json!([{"text": "Long."}, {"cachePoint": {"type": "default", "ttl": "1h"}}]));
    assert_eq!(body["messages"][0]["content"], json!([{"text": "Hi"}, point]));
    assert_eq!(body["toolConfig"]["tools"][1], point);
    let body = converse(hello(json!({"cache_control": control})));
    assert_eq!(body["messages"][0]["content"], json!([{"text": "Hi"}, point]));
    let body = hello(json!({"cache_control": {"type": "ephemeral", "ttl": "2h"}}));
    rejection_message(Api::Messages, body, "cache_control.ttl");
}

#[test]
fn every_block_becomes_a_converse_block() {
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}});
    let body = converse(json!({"messages": [
        {"role": "user", "content": [
            image,
            {"type": "document", "title": "A: b", "context": "c", "citations": {"enabled": true},
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Plain."}},
            {"type": "document", "source": {"type": "content", "content": "Part."}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "AAAA"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [{"type": "text", "text": "No"}, image]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "Yes"},
            {"type": "tool_result", "tool_use_id": "t3"}]},
    ]}));
    let image = json!({"image": {"format": "png", "source": {"bytes": PNG}}});
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": [
                image,
                {"document": {"format": "pdf", "name": "A b", "source": {"bytes": "AAAA"}, "context": "c",
                    "citations": {"enabled": true}}},
                {"document": {"format": "txt", "name": "document-1", "source": {"text": "Plain."}}},
                {"document": {"format": "txt", "name": "document-2", "source": {"content": [{"text": "Part."}]}}}]},
            {"role": "assistant", "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
                {"reasoningContent": {"redactedContent": "AAAA"}},
                {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"x": 1}}}]},
            {"role": "user", "content": [
                {"toolResult": {"toolUseId": "t1", "content": [{"text": "No"}, image], "status": "error"}},
                {"toolResult": {"toolUseId": "t2", "content": [{"text": "Yes"}]}},
                {"toolResult": {"toolUseId": "t3", "content": []}}]},
        ])
    );
}

#[test]
fn tools_and_tool_choice_become_tool_config() {
    let tool = json!({"name": "f", "description": "Does.", "input_schema": {"type": "object"}, "strict": true});
    let choose = |choice: Value| converse(hello(json!({"tools": [tool], "tool_choice": choice})));
    let spec =
        json!({"name": "f", "inputSchema": {"json": {"type": "object"}}, "description": "Does.", "strict": true});
    assert_eq!(
        choose(json!({"type": "auto"}))["toolConfig"],
        json!({"tools": [{"toolSpec": spec}], "toolChoice": {"auto": {}}})
    );
    assert_eq!(choose(json!({"type": "any"}))["toolConfig"]["toolChoice"], json!({"any": {}}));
    let named = json!({"type": "tool", "name": "f"});
    assert_eq!(choose(named)["toolConfig"]["toolChoice"], json!({"tool": {"name": "f"}}));
    assert_eq!(choose(json!({"type": "none"})).get("toolConfig"), None);
    let body = hello(json!({"tools": [tool], "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}));
    assert_eq!(parse(Api::Messages, &body).ignored, ["tool_choice.disable_parallel_tool_use"]);
}

#[test]
fn effort_and_schema_become_output_config() {
    let format = json!({"type": "json_schema", "schema": {"type": "object"}});
    let text_format = json!({"type": "json_schema",
        "structure": {"jsonSchema": {"schema": r#"{"type":"object"}"#}}});
    let body = converse(hello(json!({"output_config": {"effort": "max", "format": format}})));
    assert_eq!(body["outputConfig"], json!({"textFormat": text_format, "effort": "max"}));
    let body = converse(hello(json!({"output_format": format})));
    assert_eq!(body["outputConfig"], json!({"textFormat": text_format}));
}

#[test]
fn parameters_that_would_change_the_answer_are_rejected_by_name() {
    for (param, extra) in [
        ("container", json!({"container": "c"})),
        ("mcp_servers", json!({"mcp_servers": [{"url": "u"}]})),
        ("tools[0].type", json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]})),
        ("tools[0].input_schema", json!({"tools": [{"name": "f"}]})),
        ("tool_choice", json!({"tool_choice": {"type": "any"}})),
        ("tool_choice.type", json!({"tool_choice": {"type": "perhaps"}})),
        ("inference_geo", json!({"inference_geo": "us"})),
        ("speed", json!({"speed": "fast"})),
        ("temperature", json!({"temperature": 1.01})),
        ("top_k", json!({"top_k": -1})),
        ("thinking", json!({"thinking": true})),
        ("max_tokens", json!({"max_tokens": 0})),
        ("max_tokens", json!({"max_tokens": 1e30})),
        ("stop_sequences", json!({"stop_sequences": "END"})),
        ("output_config.effort", json!({"output_config": {"effort": "minimal"}})),
        ("system", json!({"system": 7})),
        ("system[0].type", json!({"system": [{"type": "image"}]})),
    ] {
        rejection_message(Api::Messages, hello(extra), param);
    }
    assert_eq!(
        converse(hello(json!({"mcp_servers": [], "container": null})))["messages"].as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn errors_in_messages_name_the_path() {
    let message = |content: Value, at: &str| {
        let body = json!({"messages": [{"role": "user", "content": content}]});
        rejection_message(Api::Messages, body, at)
    };
    message(json!(7), "messages[0].content");
    message(json!([]), "messages[0].content");
    message(json!(["Hi"]), "messages[0].content[0]");
    message(json!([{"type": "server_tool_use"}]), "messages[0].content[0].type");
    message(json!([{"type": "text"}]), "messages[0].content[0].text");
    let url = json!({"type": "url", "url": "https://example.com/a.png"});
    message(json!([{"type": "image", "source": url}]), "messages[0].content[0].source.type");
    message(
        json!([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "thinking", "thinking": "x"}]}]),
        "messages[0].content[0].content",
    );
}

#[test]
fn an_answer_is_a_message() {
    let content = json!([
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "AAAA"}},
        {"text": "Hello"}, {"unknown": {}},
        {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"x": 1}}}]);
    assert_eq!(
        rendered(Api::Messages, &answer(content, "tool_use")),
        json!({
            "id": "msg_r1", "type": "message", "role": "assistant", "model": "claude",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "AAAA"},
                {"type": "text", "text": "Hello", "citations": null},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}, "caller": {"type": "direct"}}],
            "stop_reason": "tool_use", "stop_sequence": null, "stop_details": null, "container": null,
            "usage": {"input_tokens": 10, "cache_creation_input_tokens": 1000, "cache_read_input_tokens": 100,
                "cache_creation": {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400},
                "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 2}, "server_tool_use": null,
                "service_tier": null, "inference_geo": null},
        })
    );
}

#[test]
fn the_stop_sequence_is_returned_if_the_model_reports_it() {
    let mut answer = answer(json!([{"text": "Hi"}]), "stop_sequence");
    let Output::Converse(body) = &mut answer.output else { panic!("a Converse reply") };
    body["additionalModelResponseFields"] = json!({"stop_sequence": "END"});
    assert_eq!(rendered(Api::Messages, &answer)["stop_sequence"], "END");
}

#[test]
fn a_stream_opens_and_closes_every_block_in_order() {
    let bytes = streamed(Api::Messages, context(), &busy_stream());
    let events = payloads(&bytes);
    let start =
        |index: u8, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let delta = |index: u8, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let stop = |index: u8| json!({"type": "content_block_stop", "index": index});
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 0);
    assert_eq!(
        events[1..],
        [
            start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "Hm."})),
            delta(0, json!({"type": "signature_delta", "signature": "c2ln"})),
            stop(0),
            start(1, json!({"type": "text", "text": ""})),
            delta(1, json!({"type": "text_delta", "text": "Hel"})),
            delta(1, json!({"type": "text_delta", "text": "lo"})),
            stop(1),
            start(2, json!({"type": "tool_use", "id": "t1", "name": "weather", "input": {}})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"city\":"})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "\"Ulm\"}"})),
            stop(2),
            start(3, json!({"type": "tool_use", "id": "t2", "name": "clock", "input": {}})),
            delta(3, json!({"type": "input_json_delta", "partial_json": ""})),
            stop(3),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
                "usage": {"input_tokens": 10, "cache_creation_input_tokens": 1000, "cache_read_input_tokens": 100,
                    "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 0},
                    "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 0}, "server_tool_use": null,
                    "service_tier": null, "inference_geo": null}}),
            json!({"type": "message_stop"}),
        ]
    );
    let text = String::from_utf8(bytes).expect("text");
    let names = text.lines().filter_map(|line| line.strip_prefix("event: "));
    assert!(names.eq(events.iter().map(|event| event["type"].as_str().expect("a type"))));
}

#[test]
fn a_block_that_bedrock_never_closes_is_closed() {
    let text = |block: u64| event("contentBlockDelta", json!({"contentBlockIndex": block, "delta": {"text": "a"}}));
    let redacted = json!({"contentBlockIndex": 2, "delta": {"reasoningContent": {"redactedContent": "AAAA"}}});
    let events = [
        text(0),
        text(1),
        event("contentBlockDelta", redacted),
        event("messageStop", json!({"stopReason": "end_turn"})),
    ];
    let types: Vec<String> = payloads(&streamed(Api::Messages, context(), &events))
        .iter()
        .map(|event| event["type"].as_str().expect("a type").replace("content_block_", ""))
        .collect();
    let expected = "message_start start delta stop start delta stop start stop message_delta message_stop";
    assert_eq!(types.join(" "), expected);
}

#[test]
fn the_end_of_a_message_waits_for_the_usage() {
    let mut encoder = Api::Messages.stream(context());
    encoder.event(&event("messageStart", json!({})));
    assert!(encoder.event(&event("messageStop", json!({"stopReason": "max_tokens"}))).is_empty());
    let end = encoder.finish();
    assert_eq!(payloads(&end)[0]["delta"]["stop_reason"], "max_tokens");
}

#[test]
fn a_broken_stream_ends_in_an_error_event() {
    let mut encoder = Api::Messages.stream(context());
    encoder.event(&busy_stream()[0]);
    let bytes = encoder.problem(&Problem::new(Kind::Unavailable, "Gone."));
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Gone."}, "request_id": "r1"});
    assert!(bytes.starts_with(b"event: error\n"));
    assert_eq!(payloads(&bytes), [error]);
    assert!(encoder.finish().is_empty());
    assert_eq!(encoder.keep_alive(), "event: ping\ndata: {\"type\": \"ping\"}\n\n");
}
