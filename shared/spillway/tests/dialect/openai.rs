//! OpenAI chat completions.

use serde_json::{Value, json};
use spillway::dialect::{AnswerContext, Api, Echo};
use spillway::problem::{Kind, Problem};

use super::{PNG, answer, busy_stream, context, event, parse, payloads, read, rejection_message, sent, streamed};

fn converse(body: Value) -> Value {
    super::converse(Api::ChatCompletions, body)
}

fn hello(extra: Value) -> Value {
    let mut body = json!({"model": "claude", "messages": [{"role": "user", "content": "Hi"}]});
    let extra = extra.as_object().expect("extra members").clone();
    body.as_object_mut().expect("an object").extend(extra);
    body
}

fn weather_tool() -> Value {
    let parameters = json!({"type": "object", "properties": {"z": {}, "a": {}}});
    json!({"type": "function", "function": {"name": "weather", "description": "Asks.", "parameters": parameters}})
}

#[test]
fn a_plain_request_becomes_converse() {
    let request = parse(
        Api::ChatCompletions,
        &hello(json!({
        "max_completion_tokens": 50, "temperature": 0.5, "top_p": 1, "stop": "END", "stream": true,
        "stream_options": {"include_usage": true}})),
    );
    assert_eq!((request.model.as_str(), request.stream), ("claude", true));
    assert_eq!((request.max_tokens, &request.ignored), (Some(50), &vec![]));
    assert_eq!(
        sent(&request),
        json!({"messages": [{"role": "user", "content": [{"text": "Hi"}]}],
            "inferenceConfig": {"maxTokens": 50, "temperature": 0.5, "topP": 1, "stopSequences": ["END"]}})
    );
}

#[test]
fn the_model_in_the_body_takes_precedence_over_the_path() {
    let body = json!({"messages": [{"role": "user", "content": "Hi"}]}).to_string();
    let model =
        |body: &str, path| read(Api::ChatCompletions, body.as_bytes(), path, false).map(|(request, _)| request.model);
    assert_eq!(model(&body, Some("path")).as_deref(), Ok("path"));
    assert_eq!(model(&hello(json!({})).to_string(), Some("path")).as_deref(), Ok("claude"));
    assert_eq!(model(&body, None).unwrap_err().message, "model: is missing");
}

#[test]
fn system_messages_move_to_system_and_messages_of_one_role_merge() {
    let body = converse(json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "Two."}, {"type": "text", "text": ""}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "Three."},
    ]}));
    assert_eq!(
        body,
        json!({"messages": [{"role": "user", "content": [{"text": "One."}, {"text": "Two."}, {"text": "Three."}]}],
            "system": [{"text": "Be brief."}, {"text": "Be kind."}]})
    );
}

#[test]
fn tool_calls_and_their_results_become_blocks() {
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}});
    let body = converse(json!({"tools": [weather_tool()], "tool_choice": "required", "messages": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": null, "tool_calls": [call("a", r#"{"city":"Ulm"}"#), call("b", "")]},
        {"role": "tool", "tool_call_id": "a", "content": "Rain"},
        {"role": "tool", "tool_call_id": "b", "content":
            [{"type": "text", "text": "Sun", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": "So?"},
    ]}));
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": [{"text": "Weather?"}]},
            {"role": "assistant", "content": [
                {"toolUse": {"toolUseId": "a", "name": "weather", "input": {"city": "Ulm"}}},
                {"toolUse": {"toolUseId": "b", "name": "weather", "input": {}}}]},
            {"role": "user", "content": [
                {"toolResult": {"toolUseId": "a", "content": [{"text": "Rain"}]}},
                {"toolResult": {"toolUseId": "b", "content": [{"text": "Sun"}]}},
                {"cachePoint": {"type": "default"}},
                {"text": "So?"}]},
        ])
    );
    let schema = json!({"type": "object", "properties": {"z": {}, "a": {}}});
    let spec = json!({"name": "weather", "inputSchema": {"json": schema}, "description": "Asks."});
    assert_eq!(body["toolConfig"], json!({"tools": [{"toolSpec": spec}], "toolChoice": {"any": {}}}));
}

#[test]
fn a_schema_keeps_the_order_of_its_members() {
    let body = converse(hello(json!({"tools": [weather_tool()]})));
    let schema = body["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"].to_string();
    assert_eq!(schema, r#"{"type":"object","properties":{"z":{},"a":{}}}"#);
}

#[test]
fn tool_choice_none_removes_the_tools_unless_the_history_needs_them() {
    let without_history = hello(json!({"tools": [weather_tool()], "tool_choice": "none"}));
    assert_eq!(converse(without_history).get("toolConfig"), None);
    let body = json!({"model": "m", "tools": [weather_tool()], "tool_choice": "none",
        "messages": [{"role": "tool", "tool_call_id": "a", "content": "Rain"}]});
    let request = parse(Api::ChatCompletions, &body);
    assert!(super::body(&request).contains_key("toolConfig"));
    assert_eq!(request.ignored, ["tool_choice"]);
}

#[test]
fn a_tool_can_be_required_only_if_there_are_tools() {
    let named = json!({"type": "function", "function": {"name": "weather"}});
    let body = converse(hello(json!({"tools": [weather_tool()], "tool_choice": named})));
    assert_eq!(body["toolConfig"]["toolChoice"], json!({"tool": {"name": "weather"}}));
    rejection_message(Api::ChatCompletions, hello(json!({"tool_choice": named})), "tool_choice");
    rejection_message(Api::ChatCompletions, hello(json!({"tools": [], "tool_choice": "required"})), "tool_choice");
    assert_eq!(converse(hello(json!({"tools": [], "tool_choice": "auto"}))).get("toolConfig"), None);
}

#[test]
fn images_and_files_become_blocks() {
    let part = |url: String| json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]);
    let body = converse(json!({"messages": part(format!("data:image/png;base64,{PNG}"))}));
    assert_eq!(body["messages"][0]["content"], json!([{"image": {"format": "png", "source": {"bytes": PNG}}}]));
    let at = "messages[0].content[0].image_url.url";
    for url in
        ["https://example.com/a.png", "data:image/png,raw", "data:image/tiff;base64,AAAA", "data:image/png;base64,A"]
    {
        rejection_message(Api::ChatCompletions, json!({"messages": part(url.to_owned())}), at);
    }
    let file = json!({"filename": "a/b.pdf", "file_data": "data:application/pdf;base64,AAAA"});
    let body = converse(json!({"messages": [{"role": "user", "content": [{"type": "file", "file": file}]}]}));
    assert_eq!(
        body["messages"][0]["content"][0],
        json!({"document": {"format": "pdf", "name": "a b pdf", "source": {"bytes": "AAAA"}}})
    );
}

#[test]
fn a_json_schema_becomes_a_text_format() {
    let schema = json!({"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "city", "strict": true, "schema": schema}});
    let body = converse(hello(json!({"response_format": format, "reasoning_effort": "minimal"})));
    assert_eq!(
        body["outputConfig"],
        json!({"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {
            "schema": r#"{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}}}"#,
            "name": "city"}}}, "effort": "low"})
    );
    assert_eq!(converse(hello(json!({"response_format": {"type": "text"}}))).get("outputConfig"), None);
    let format = json!({"response_format": {"type": "json_object"}});
    assert!(rejection_message(Api::ChatCompletions, hello(format), "response_format.type").contains("use json_schema"));
}

#[test]
fn parameters_without_effect_are_listed_as_ignored() {
    let request = parse(
        Api::ChatCompletions,
        &json!({"model": "m", "seed": 7, "user": "u", "tomorrow": [1], "n": 1,
        "logprobs": false, "frequency_penalty": 0, "logit_bias": {}, "parallel_tool_calls": false, "store": null,
        "modalities": ["text"], "service_tier": "auto", "messages": [
            {"role": "user", "content": "Hi", "name": "bo"}, {"role": "user", "content": "Hi", "name": "bo"},
            {"role": "assistant", "content": "Yes", "annotations": [], "reasoning_content": "Hm"}]}),
    );
    let named = ["messages[].name", "messages[].reasoning_content", "parallel_tool_calls", "user", "seed", "tomorrow"];
    assert_eq!(request.ignored, named);
}

#[test]
fn parameters_that_would_change_the_answer_are_rejected_by_name() {
    for (name, value) in [
        ("n", json!(2)),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(3)),
        ("audio", json!({"voice": "alloy"})),
        ("modalities", json!(["text", "audio"])),
        ("functions", json!([{"name": "f"}])),
        ("function_call", json!("auto")),
        ("logit_bias", json!({"50256": -100})),
        ("presence_penalty", json!(0.1)),
        ("frequency_penalty", json!(-1)),
        ("web_search_options", json!({"search_context_size": "low"})),
        ("service_tier", json!("scale")),
        ("reasoning_effort", json!("enormous")),
        ("temperature", json!(1.5)),
        ("temperature", json!(-0.1)),
        ("top_p", json!("1")),
        ("stop", json!(7)),
        ("stop[1]", json!(["a", ""])),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(1.5)),
        ("max_tokens", json!("100")),
        ("max_completion_tokens", json!(2_147_483_648_u64)),
        ("stream", json!("yes")),
        ("tools", json!({})),
        ("tools[0].type", json!([{"type": "custom"}])),
        ("tools[0].function.name", json!([{"type": "function", "function": {}}])),
        ("tool_choice", json!("sometimes")),
    ] {
        let body = hello(json!({name.split(['[', '.']).next().unwrap(): value}));
        rejection_message(Api::ChatCompletions, body, name);
    }
    let message = rejection_message(Api::ChatCompletions, hello(json!({"temperature": 1.5})), "temperature");
    assert!(message.contains("0 to 1"), "{message}");
    rejection_message(
        Api::ChatCompletions,
        hello(json!({"max_tokens": 5, "max_completion_tokens": 6})),
        "max_completion_tokens",
    );
}

#[test]
fn errors_in_messages_name_the_path() {
    let message =
        |messages: Value, at: &str| rejection_message(Api::ChatCompletions, json!({"messages": messages}), at);
    let user = json!({"role": "user", "content": "Hi"});
    assert_eq!(
        message(json!([user, user, {"role": "user", "content": 7}]), "messages[2].content"),
        "messages[2].content: expected a string or an array of parts, got a number"
    );
    message(json!("Hi"), "messages");
    message(json!([]), "messages");
    message(json!([{"role": "system", "content": "Be brief."}]), "messages");
    message(json!(["Hi"]), "messages[0]");
    message(json!([{"content": "Hi"}]), "messages[0].role");
    message(json!([{"role": "robot", "content": "Hi"}]), "messages[0].role");
    message(json!([{"role": "user"}]), "messages[0].content");
    message(json!([{"role": "user", "content": ""}]), "messages[0].content");
    message(json!([{"role": "user", "content": [{"text": "Hi"}]}]), "messages[0].content[0].type");
    message(json!([{"role": "user", "content": [{"type": "input_audio"}]}]), "messages[0].content[0].type");
    let system = json!([{"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PNG}")}}]);
    message(json!([{"role": "system", "content": system}]), "messages[0].content");
    message(json!([{"role": "tool", "content": "Rain"}]), "messages[0].tool_call_id");
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}});
    let at = "messages[0].tool_calls[0].function.arguments";
    message(json!([{"role": "assistant", "tool_calls": [call]}]), at);
}

#[test]
fn an_answer_is_a_chat_completion() {
    let content = json!([
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"text": "Hel"}, {"citationsContent": {"content": [{"text": "lo"}]}}, {"unknown": {}},
        {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Ulm"}}}]);
    assert_eq!(
        super::rendered(Api::ChatCompletions, &answer(content, "tool_use")),
        json!({
            "id": "chatcmpl-r1", "object": "chat.completion", "created": 1_700_000_000, "model": "claude",
            "choices": [{"index": 0, "logprobs": null, "finish_reason": "tool_calls", "message": {
                "role": "assistant", "content": "Hello", "refusal": null, "annotations": [], "reasoning_content": "Hm.",
                "tool_calls": [{"id": "t1", "type": "function",
                    "function": {"name": "weather", "arguments": "{\"city\":\"Ulm\"}"}}]}}],
            "usage": {"prompt_tokens": 1110, "completion_tokens": 5, "total_tokens": 1115,
                "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 1000},
                "completion_tokens_details": {"reasoning_tokens": 2}},
        })
    );
}

#[test]
fn every_stop_reason_has_a_finish_reason() {
    for (stop_reason, finish_reason) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("of_tomorrow", "stop"),
    ] {
        let rendered = super::rendered(Api::ChatCompletions, &answer(json!([{"text": "Hi"}]), stop_reason));
        assert_eq!(rendered["choices"][0]["finish_reason"], finish_reason);
    }
}

#[test]
fn a_stream_has_role_deltas_finish_reason_usage_and_done() {
    let context = AnswerContext { echo: Echo { include_usage: true, ..Echo::default() }, ..context() };
    let chunks = payloads(&streamed(Api::ChatCompletions, context, &busy_stream()));
    let (done, chunks) = chunks.split_last().expect("chunks");
    let (usage, chunks) = chunks.split_last().expect("chunks");
    assert_eq!(done, "[DONE]");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["total_tokens"], 1115);
    let call = |call: Value| json!({"tool_calls": [call]});
    let start = |index: u8, id: &str, name: &str| {
        call(json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}))
    };
    let arguments = |index: u8, text: &str| call(json!({"index": index, "function": {"arguments": text}}));
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    assert_eq!(
        deltas,
        [
            &json!({"role": "assistant", "content": ""}),
            &json!({"reasoning_content": "Hm."}),
            &json!({"content": "Hel"}),
            &json!({"content": "lo"}),
            &start(0, "t1", "weather"),
            &arguments(0, "{\"city\":"),
            &arguments(0, "\"Ulm\"}"),
            &start(1, "t2", "clock"),
            &arguments(1, "{}"),
            &json!({}),
        ]
    );
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == "chatcmpl-r1"));
    assert_eq!(chunks.last().expect("chunks")["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn a_chunk_is_encoded_byte_for_byte() {
    let mut encoder = Api::ChatCompletions.stream(context());
    let bytes =
        encoder.event(&event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": "a\n\"b"}})));
    assert_eq!(
        bytes,
        "data: {\"id\":\"chatcmpl-r1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"claude\",\
         \"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\n\\\"b\",\"role\":\"assistant\"},\"logprobs\":null,\
         \"finish_reason\":null}]}\n\n"
    );
    assert_eq!(encoder.keep_alive(), ": keep-alive\n\n");
}

#[test]
fn usage_is_streamed_only_on_request() {
    let text = String::from_utf8(streamed(Api::ChatCompletions, context(), &busy_stream())).expect("text");
    assert!(!text.contains("usage"), "{text}");
}

#[test]
fn a_broken_stream_ends_in_an_error_object() {
    let mut encoder = Api::ChatCompletions.stream(context());
    encoder.event(&busy_stream()[0]);
    let bytes = encoder.problem(&Problem::new(Kind::Model, "The model broke off."));
    let error =
        json!({"message": "The model broke off.", "type": "server_error", "param": null, "code": "model_error"});
    assert_eq!(payloads(&bytes), [json!({"error": error})]);
    assert!(encoder.finish().is_empty() && encoder.problem(&Problem::new(Kind::Internal, "")).is_empty());
}
