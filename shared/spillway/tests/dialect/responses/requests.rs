//! Requests: translation to Converse, errors, and ignored parameters.

use serde_json::{Value, json};

use super::{API, context_for, hello, patch, rendered, weather};
use crate::{PNG, parse, rejection_message, sent};

fn converse(body: Value) -> Value {
    crate::converse(API, body)
}

#[test]
fn a_plain_request_becomes_converse() {
    let request = parse(
        API,
        &hello(json!({"instructions": "Be brief.", "max_output_tokens": 50, "temperature": 0.5, "top_p": 1,
            "stream": true, "reasoning": {"effort": "minimal"}, "store": false, "tool_choice": "auto",
            "truncation": "disabled", "service_tier": "flex", "metadata": {"a": "b"}})),
    );
    assert_eq!((request.model.as_str(), request.stream, request.max_tokens), ("claude", true, Some(50)));
    assert_eq!((request.service_tier.as_deref(), &request.ignored), (Some("flex"), &vec![]));
    assert_eq!(
        sent(&request),
        json!({"messages": [{"role": "user", "content": [{"text": "Hi"}]}], "system": [{"text": "Be brief."}],
            "inferenceConfig": {"maxTokens": 50, "temperature": 0.5, "topP": 1}, "outputConfig": {"effort": "low"}})
    );
}

#[test]
fn items_become_messages() {
    let body = converse(json!({"instructions": "One.", "tools": [weather(), patch()], "input": [
        {"role": "developer", "content": "Two."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "phase": "commentary", "content": [
            {"type": "output_text", "text": "Hm.", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "No."}]},
        {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "weather", "arguments": "{\"city\":\"Ulm\"}"},
        {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "x"},
        {"type": "function_call", "call_id": "c", "name": "find", "namespace": "crm", "arguments": ""},
        {"type": "function_call_output", "call_id": "a", "output": "Rain"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "Done"}]},
        {"type": "function_call_output", "call_id": "c", "output": ""},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "So?"},
    ]}));
    let result = |id: &str, content: Value| json!({"toolResult": {"toolUseId": id, "content": content}});
    let call = |id: &str, name: &str, input: Value| json!({"toolUse": {"toolUseId": id, "name": name, "input": input}});
    assert_eq!(body["system"], json!([{"text": "One."}, {"text": "Two."}]));
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": [{"text": "Weather?"}]},
            {"role": "assistant", "content": [{"text": "Hm."}, {"text": "No."},
                call("a", "weather", json!({"city": "Ulm"})), call("b", "patch", json!({"input": "x"})),
                call("c", "crm__find", json!({}))]},
            {"role": "user", "content": [result("a", json!([{"text": "Rain"}])), result("b", json!([{"text": "Done"}])),
                result("c", json!([])), {"text": "So?"}]},
        ])
    );
}

#[test]
fn functions_custom_tools_and_namespaces_become_functions() {
    let crm = json!({"type": "namespace", "name": "crm", "description": "", "tools": [
        {"type": "function", "name": "find", "parameters": {"type": "object"}}, {"type": "custom", "name": "note"}]});
    let request = parse(API, &hello(json!({"tools": [weather(), patch(), crm], "tool_choice": "required"})));
    let text = json!({"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"],
        "additionalProperties": false});
    let spec = |name: &str, schema: &Value| json!({"name": name, "inputSchema": {"json": schema}});
    let mut expected = [
        spec("weather", &weather()["parameters"]),
        spec("patch", &text),
        spec("crm__find", &json!({"type": "object"})),
        spec("crm__note", &text),
    ];
    (expected[0]["description"], expected[0]["strict"]) = (json!("Asks."), json!(true));
    expected[1]["description"] = json!("Edits.\n\nThe input must match this lark grammar:\nstart: x");
    let tools = expected.map(|spec| json!({"toolSpec": spec}));
    assert_eq!(sent(&request)["toolConfig"], json!({"tools": tools, "toolChoice": {"any": {}}}));
    assert_eq!(request.ignored, ["tools[].format"], "a grammar is described but not enforced");

    let schema = sent(&request)["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"].to_string();
    assert_eq!(schema, r#"{"type":"object","properties":{"z":{},"a":{}}}"#, "the members keep their order");
}

#[test]
fn an_item_can_add_tools() {
    let item = json!({"type": "additional_tools", "id": "at_1", "role": "developer", "tools": [weather()]});
    let body = converse(json!({"input": [item, {"role": "user", "content": "Hi"}], "tool_choice": "required"}));
    assert_eq!(body["toolConfig"]["tools"][0]["toolSpec"]["name"], "weather");
}

#[test]
fn a_tool_can_be_required_only_if_there_are_tools() {
    let crm = json!({"type": "namespace", "name": "crm", "tools": [weather()]});
    for (choice, name) in [
        (json!({"type": "function", "name": "weather"}), "weather"),
        (json!({"type": "custom", "name": "patch"}), "patch"),
        (json!({"type": "function", "namespace": "crm", "name": "weather"}), "crm__weather"),
    ] {
        let body = converse(hello(json!({"tools": [weather(), patch(), crm], "tool_choice": choice})));
        assert_eq!(body["toolConfig"]["toolChoice"], json!({"tool": {"name": name}}));
        rejection_message(API, hello(json!({"tool_choice": choice})), "tool_choice");
    }
    assert_eq!(converse(hello(json!({"tools": [weather()], "tool_choice": "none"}))).get("toolConfig"), None);
    rejection_message(API, hello(json!({"tools": [weather()], "tool_choice": {"type": "mcp"}})), "tool_choice.type");
}

#[test]
fn images_and_files_become_blocks() {
    let part = |part: Value| json!({"input": [{"role": "user", "content": [part]}]});
    let image = |url: String| part(json!({"type": "input_image", "detail": "auto", "image_url": url}));
    let request = parse(API, &image(format!("data:image/png;base64,{PNG}")));
    let content = json!([{"image": {"format": "png", "source": {"bytes": PNG}}}]);
    assert_eq!((&sent(&request)["messages"][0]["content"], &request.ignored), (&content, &vec![]));
    let at = "input[0].content[0].image_url";
    for url in ["https://example.com/a.png", "data:image/tiff;base64,AAAA", "data:image/png;base64,A"] {
        rejection_message(API, image(url.to_owned()), at);
    }
    let file = json!({"type": "input_file", "filename": "a/b.pdf", "file_data": "data:application/pdf;base64,AAAA"});
    let document = json!({"document": {"format": "pdf", "name": "a b pdf", "source": {"bytes": "AAAA"}}});
    assert_eq!(converse(part(file))["messages"][0]["content"], json!([document]));
    for (kind, name) in [("input_image", "file_id"), ("input_file", "file_id"), ("input_file", "file_url")] {
        let at = format!("input[0].content[0].{name}");
        assert!(rejection_message(API, part(json!({"type": kind, name: "f"})), &at).contains("; send "));
    }
    let seen = json!([{"type": "input_image", "image_url": format!("data:image/png;base64,{PNG}")}]);
    let output = json!({"input": [{"type": "function_call_output", "call_id": "a", "output": seen}]});
    assert_eq!(converse(output)["messages"][0]["content"][0]["toolResult"]["content"], content);
}

#[test]
fn a_json_schema_becomes_a_text_format() {
    let schema = json!({"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}});
    let format = json!({"type": "json_schema", "name": "city", "strict": true, "schema": schema});
    let request = parse(API, &hello(json!({"text": {"format": format, "verbosity": "low"}})));
    assert_eq!(
        sent(&request)["outputConfig"],
        json!({"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {
            "schema": r#"{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}}}"#,
            "name": "city"}}}})
    );
    assert_eq!(request.ignored, ["text.verbosity"]);
    assert_eq!(converse(hello(json!({"text": {"format": {"type": "text"}}}))).get("outputConfig"), None);
    let format = json!({"text": {"format": {"type": "json_object"}}});
    assert!(rejection_message(API, hello(format), "text.format.type").contains("use json_schema"));
}

#[test]
fn requests_of_codex_are_accepted_and_list_ignored_parameters() {
    let request = parse(
        API,
        &hello(json!({"tools": [weather(), {"type": "web_search", "external_web_access": false},
                {"type": "tool_search", "execution": "client"}],
            "parallel_tool_calls": false, "reasoning": {"effort": "medium", "summary": "auto", "context": "all_turns"},
            "include": ["reasoning.encrypted_content", "web_search_call.results"], "store": true, "truncation": "auto",
            "stream_options": {"include_obfuscation": false}, "prompt_cache_key": "k", "user": "u", "max_tool_calls": 3,
            "client_metadata": {}, "background": false, "previous_response_id": null, "top_logprobs": 0})),
    );
    let named = [
        "parallel_tool_calls",
        "tools[].web_search",
        "tools[].tool_search",
        "reasoning.context",
        "include",
        "store",
        "truncation",
        "prompt_cache_key",
        "user",
        "max_tool_calls",
    ];
    assert_eq!(request.ignored, named);
    assert_eq!(sent(&request)["toolConfig"]["tools"].as_array().map(Vec::len), Some(1));
}

#[test]
fn parameters_that_would_change_the_answer_are_rejected_by_name() {
    for (name, value) in [
        ("background", json!("yes")),
        ("conversation", json!("conv_1")),
        ("previous_response_id", json!("resp_1")),
        ("prompt", json!({"id": "pmpt_1"})),
        ("moderation", json!({"model": "m"})),
        ("top_logprobs", json!(3)),
        ("frequency_penalty", json!(0.5)),
        ("presence_penalty", json!(-1)),
        ("include", json!(["message.output_text.logprobs"])),
        ("include[1]", json!(["reasoning.encrypted_content", 7])),
        ("service_tier", json!("scale")),
        ("reasoning.effort", json!({"effort": "enormous"})),
        ("reasoning.summary", json!({"summary": "long"})),
        ("truncation", json!("middle")),
        ("temperature", json!(1.5)),
        ("top_p", json!("1")),
        ("max_output_tokens", json!(0)),
        ("metadata", json!("m")),
        ("store", json!("yes")),
        ("stream", json!("yes")),
        ("instructions", json!([])),
        ("tools", json!({})),
        ("tools[0].name", json!([{"type": "function"}])),
        ("tools[0].format.type", json!([{"type": "custom", "name": "c", "format": {"type": "regex"}}])),
        ("tools[0].tools[0].type", json!([{"type": "namespace", "name": "n", "tools": [{"type": "namespace"}]}])),
        ("tool_choice", json!("sometimes")),
        ("input", json!(7)),
        ("input", json!("")),
        ("input", json!([])),
        ("input[0]", json!(["Hi"])),
        ("input[0].type", json!([{"type": "item_reference", "id": "msg_1"}])),
        ("input[0].type", json!([{"type": "computer_call"}])),
        ("input[0].role", json!([{"content": "Hi"}])),
        ("input[0].role", json!([{"role": "tool", "content": "Hi"}])),
        ("input[0].content", json!([{"role": "user", "content": ""}])),
        ("input[0].content[0].type", json!([{"role": "user", "content": [{"type": "input_audio"}]}])),
        ("input[0].call_id", json!([{"type": "function_call", "name": "f", "arguments": "{}"}])),
        ("input[0].arguments", json!([{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{"}])),
        ("input[0].output", json!([{"type": "function_call_output", "call_id": "a"}])),
    ] {
        rejection_message(API, hello(json!({name.split(['[', '.']).next().unwrap(): value})), name);
    }
    for hosted in [
        "web_search",
        "web_search_preview",
        "file_search",
        "code_interpreter",
        "mcp",
        "local_shell",
        "shell",
        "computer",
    ] {
        let message = rejection_message(API, hello(json!({"tools": [{"type": hosted}]})), "tools[0].type");
        assert!(message.contains(hosted), "{message}");
    }
    rejection_message(API, json!({"model": "m"}), "input");
}

#[test]
fn a_background_response_is_always_stored() {
    let message = rejection_message(API, hello(json!({"background": true, "store": false})), "store");
    assert!(message.contains("stored"), "{message}");
    for extra in [json!({"background": true}), json!({"background": true, "store": true})] {
        assert_eq!(parse(API, &hello(extra.clone())).ignored, [""; 0], "{extra}");
        let response = rendered(&context_for(extra), json!([{"text": "Hi"}]), "end_turn");
        assert_eq!((&response["background"], &response["store"]), (&json!(true), &json!(true)));
    }
    assert_eq!(parse(API, &hello(json!({"store": false}))).ignored, [""; 0]);
}
