//! Complete responses.

use serde_json::{Value, json};
use spillway::dialect::Echo;

use super::{API, context_for, patch, rendered, weather};
use crate::{context, parse, sent};

#[test]
fn a_response_has_all_of_openais_members() {
    let content = json!([
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"text": "Hel"}, {"citationsContent": {"content": [{"text": "lo"}]}}, {"unknown": {}},
        {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Ulm"}}}]);
    assert_eq!(
        rendered(&context(), content, "tool_use"),
        json!({
            "id": "resp_r1", "object": "response", "created_at": 1_700_000_000, "completed_at": null,
            "status": "completed", "background": false, "error": null, "incomplete_details": null,
            "instructions": null, "max_output_tokens": null, "max_tool_calls": null, "metadata": {}, "model": "claude",
            "output": [
                {"id": "rs_r1_0", "type": "reasoning", "summary": [],
                    "content": [{"type": "reasoning_text", "text": "Hm."}]},
                {"id": "msg_r1_1", "type": "message", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}]},
                {"id": "fc_r1_2", "type": "function_call", "status": "completed", "call_id": "t1", "name": "weather",
                    "arguments": "{\"city\":\"Ulm\"}"}],
            "parallel_tool_calls": true, "presence_penalty": 0, "frequency_penalty": 0, "previous_response_id": null,
            "prompt_cache_key": null, "reasoning": {"effort": null, "summary": null}, "safety_identifier": null,
            "service_tier": "default", "store": false, "temperature": 1, "text": {"format": {"type": "text"}},
            "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1, "truncation": "disabled",
            "usage": {"input_tokens": 1110, "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 1000},
                "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 1115},
            "user": null,
        })
    );
}

#[test]
fn a_response_repeats_its_request() {
    let repeated = json!({"instructions": "Be brief.", "max_output_tokens": 50, "metadata": {"a": "b"},
        "temperature": 0.5, "top_p": 0.5, "user": "u", "prompt_cache_key": "k", "safety_identifier": "s",
        "max_tool_calls": 3, "tool_choice": {"type": "function", "name": "weather"}, "service_tier": "flex"});
    let mut request = repeated.clone();
    request["tools"] = json!([weather(), {"type": "function", "name": "clock"}]);
    request["text"] = json!({"verbosity": "low"});
    request["reasoning"] = json!({"effort": "low"});
    request["truncation"] = json!("auto");
    let response = rendered(&context_for(request), json!([]), "end_turn");
    for (name, value) in repeated.as_object().expect("members") {
        assert_eq!(&response[name], value, "{name}");
    }
    let clock = json!({"type": "function", "name": "clock", "description": null, "parameters": null, "strict": null});
    assert_eq!(response["tools"], json!([weather(), clock]));
    assert_eq!(response["text"], json!({"format": {"type": "text"}, "verbosity": "low"}));
    assert_eq!(response["reasoning"], json!({"effort": "low", "summary": null}));
    assert_eq!(response["truncation"], "disabled", "the behaviour, not the parameter");
}

#[test]
fn every_stop_reason_has_a_status() {
    for (stop_reason, status, reason) in [
        ("end_turn", "completed", None),
        ("stop_sequence", "completed", None),
        ("tool_use", "completed", None),
        ("max_tokens", "incomplete", Some("max_output_tokens")),
        ("model_context_window_exceeded", "incomplete", Some("max_output_tokens")),
        ("guardrail_intervened", "incomplete", Some("content_filter")),
        ("content_filtered", "incomplete", Some("content_filter")),
        ("of_tomorrow", "completed", None),
    ] {
        let content = json!([{"text": "Hi"}, {"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}]);
        let response = rendered(&context(), content, stop_reason);
        assert_eq!(response["status"], status);
        assert_eq!(response["incomplete_details"]["reason"].as_str(), reason);
        assert_eq!(
            (&response["output"][0]["status"], &response["output"][1]["status"]),
            (&json!("completed"), &json!(status))
        );
    }
}

#[test]
fn tool_calls_use_the_callers_names() {
    let crm = json!({"type": "namespace", "name": "crm", "tools": [weather(), patch()]});
    let context = context_for(json!({"tools": [patch(), crm]}));
    let call = |name: &str, input: Value| json!({"toolUse": {"toolUseId": "t", "name": name, "input": input}});
    let content = json!([
        call("patch", json!({"input": "a\nb"})),
        call("patch", json!({"other": 1})),
        call("crm__weather", json!({})),
        call("crm__patch", json!({"input": "x"})),
        call("invented", Value::Null),
    ]);
    let response = rendered(&context, content, "tool_use");
    let member = |index: usize, name: &str| response["output"][index][name].clone();
    assert_eq!((member(0, "type"), member(0, "input")), (json!("custom_tool_call"), json!("a\nb")));
    assert_eq!((member(0, "id"), member(0, "namespace")), (json!("ctc_r1_0"), Value::Null));
    assert_eq!(member(1, "input"), r#"{"other":1}"#, "unexpected input is passed on unchanged");
    assert_eq!(
        (member(2, "type"), member(2, "name"), member(2, "namespace")),
        (json!("function_call"), json!("weather"), json!("crm"))
    );
    assert_eq!(
        (member(3, "input"), member(3, "name"), member(3, "namespace")),
        (json!("x"), json!("patch"), json!("crm"))
    );
    assert_eq!((member(4, "type"), member(4, "arguments")), (json!("function_call"), json!("{}")));
}

#[test]
fn reasoning_has_the_requested_form() {
    let content = json!([{"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "c2VjcmV0"}}]);
    let items = |extra: Value| rendered(&context_for(extra), content.clone(), "end_turn")["output"].clone();
    let summary = items(json!({"reasoning": {"summary": "auto"}}));
    assert_eq!(summary[0]["summary"], json!([{"type": "summary_text", "text": "Hm."}]));
    assert_eq!((summary[0].get("content"), summary[0].get("encrypted_content")), (None, None));
    let encrypted = items(json!({"include": ["reasoning.encrypted_content"]}));
    assert_eq!(encrypted[0]["content"][0]["text"], "Hm.");
    assert!(
        encrypted[0]["encrypted_content"].is_string() && encrypted[1]["encrypted_content"].is_string(),
        "{encrypted}"
    );
    assert_eq!(encrypted[1]["summary"], json!([]));
}

#[test]
fn reasoning_returns_to_the_model_unchanged() {
    let content = json!([{"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "c2VjcmV0"}}, {"text": "Hi"}]);
    let response =
        rendered(&context_for(json!({"include": ["reasoning.encrypted_content"]})), content.clone(), "end_turn");
    let request = parse(API, &json!({"input": response["output"]}));
    assert_eq!(sent(&request)["messages"], json!([{"role": "assistant", "content": content}]));
    assert_eq!(request.ignored, Vec::<String>::new());
}

#[test]
fn foreign_reasoning_is_left_out_and_listed_as_ignored() {
    for foreign in [json!(null), json!("gAAAAAB"), json!("bnVsbA=="), json!("eyJyZWRhY3RlZENvbnRlbnQiOiItIn0=")] {
        let item = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": foreign});
        let request = parse(API, &json!({"input": [{"role": "user", "content": "Hi"}, item]}));
        assert_eq!(sent(&request)["messages"].as_array().map(Vec::len), Some(1));
        assert_eq!(request.ignored, ["input[].reasoning"]);
    }
}

#[test]
fn a_plain_request_has_nothing_to_repeat() {
    assert_eq!(context_for(json!({})).echo.response.tools, []);
    assert_eq!(context().echo, Echo::default());
}
