//! Complete responses.

use serde_json::{Value, json};
use spillway::dialect::Echo;

use super::{API, context_of, patch, rendered, weather};
use crate::{context, parse, sent};

#[test]
fn a_response_has_every_member_that_openais_has() {
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
    let asked = json!({"instructions": "Be brief.", "max_output_tokens": 50, "metadata": {"a": "b"},
        "temperature": 0.5, "top_p": 0.5, "user": "u", "prompt_cache_key": "k", "safety_identifier": "s",
        "max_tool_calls": 3, "tool_choice": {"type": "function", "name": "weather"}, "service_tier": "flex"});
    let mut request = asked.clone();
    request["tools"] = json!([weather(), {"type": "function", "name": "clock"}]);
    request["text"] = json!({"verbosity": "low"});
    request["reasoning"] = json!({"effort": "low"});
    request["truncation"] = json!("auto");
    let response = rendered(&context_of(request), json!([]), "end_turn");
    for (name, value) in asked.as_object().expect("members") {
        assert_eq!(&response[name], value, "{name}");
    }
    let clock = json!({"type": "function", "name": "clock", "description": null, "parameters": null, "strict": null});
    assert_eq!(response["tools"], json!([weather(), clock]));
    assert_eq!(response["text"], json!({"format": {"type": "text"}, "verbosity": "low"}));
    assert_eq!(response["reasoning"], json!({"effort": "low", "summary": null}));
    assert_eq!(response["truncation"], "disabled", "what happens, not what was asked");
}

#[test]
fn every_reason_to_stop_has_a_status() {
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
fn calls_come_back_as_the_caller_knows_the_tools() {
    let crm = json!({"type": "namespace", "name": "crm", "tools": [weather(), patch()]});
    let context = context_of(json!({"tools": [patch(), crm]}));
    let call = |name: &str, input: Value| json!({"toolUse": {"toolUseId": "t", "name": name, "input": input}});
    let content = json!([
        call("patch", json!({"input": "a\nb"})),
        call("patch", json!({"other": 1})),
        call("crm__weather", json!({})),
        call("crm__patch", json!({"input": "x"})),
        call("invented", Value::Null),
    ]);
    let response = rendered(&context, content, "tool_use");
    let told = |index: usize, name: &str| response["output"][index][name].clone();
    assert_eq!((told(0, "type"), told(0, "input")), (json!("custom_tool_call"), json!("a\nb")));
    assert_eq!((told(0, "id"), told(0, "namespace")), (json!("ctc_r1_0"), Value::Null));
    assert_eq!(told(1, "input"), r#"{"other":1}"#, "what is not as it should be is told as it is");
    assert_eq!(
        (told(2, "type"), told(2, "name"), told(2, "namespace")),
        (json!("function_call"), json!("weather"), json!("crm"))
    );
    assert_eq!((told(3, "input"), told(3, "name"), told(3, "namespace")), (json!("x"), json!("patch"), json!("crm")));
    assert_eq!((told(4, "type"), told(4, "arguments")), (json!("function_call"), json!("{}")));
}

#[test]
fn reasoning_is_told_in_the_form_that_was_asked_for() {
    let content = json!([{"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "c2VjcmV0"}}]);
    let items = |extra: Value| rendered(&context_of(extra), content.clone(), "end_turn")["output"].clone();
    let summary = items(json!({"reasoning": {"summary": "auto"}}));
    assert_eq!(summary[0]["summary"], json!([{"type": "summary_text", "text": "Hm."}]));
    assert_eq!((summary[0].get("content"), summary[0].get("encrypted_content")), (None, None));
    let sealed = items(json!({"include": ["reasoning.encrypted_content"]}));
    assert_eq!(sealed[0]["content"][0]["text"], "Hm.");
    assert!(sealed[0]["encrypted_content"].is_string() && sealed[1]["encrypted_content"].is_string(), "{sealed}");
    assert_eq!(sealed[1]["summary"], json!([]));
}

#[test]
fn reasoning_goes_back_to_the_model_exactly_as_it_came() {
    let content = json!([{"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "c2VjcmV0"}}, {"text": "Hi"}]);
    let response =
        rendered(&context_of(json!({"include": ["reasoning.encrypted_content"]})), content.clone(), "end_turn");
    let request = parse(API, &json!({"input": response["output"]}));
    assert_eq!(sent(&request)["messages"], json!([{"role": "assistant", "content": content}]));
    assert_eq!(request.ignored, Vec::<String>::new());
}

#[test]
fn reasoning_that_is_not_ours_is_left_out_and_named() {
    for foreign in [json!(null), json!("gAAAAAB"), json!("bnVsbA=="), json!("eyJyZWRhY3RlZENvbnRlbnQiOiItIn0=")] {
        let item = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": foreign});
        let request = parse(API, &json!({"input": [{"role": "user", "content": "Hi"}, item]}));
        assert_eq!(sent(&request)["messages"].as_array().map(Vec::len), Some(1));
        assert_eq!(request.ignored, ["input[].reasoning"]);
    }
}

#[test]
fn nothing_of_a_request_is_repeated_unasked() {
    assert_eq!(context_of(json!({})).echo.response.tools, []);
    assert_eq!(context().echo, Echo::default());
}
