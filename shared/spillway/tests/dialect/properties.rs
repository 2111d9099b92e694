//! Properties of any input: parsing and rendering never panic, errors quote nothing, and token
//! counts add up.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use spillway::dialect::{AnswerContext, Api, Echo};
use spillway::{
    chat::{Answer, Output, StreamEvent},
    usage::Usage,
};

use super::{PNG, body as sent_body, context, payloads, rendered};

/// A text of allowed characters that is longer than anything that an error repeats.
const SECRET: &str = "the-quick-brown-fox-jumps-over-the-lazy-dog-again";

/// Words that the dialects act on, so that random bodies pass the first checks.
const WORDS: [&str; 57] = [
    "model",
    "messages",
    "role",
    "content",
    "user",
    "assistant",
    "system",
    "tool",
    "type",
    "text",
    "image_url",
    "url",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "id",
    "tool_call_id",
    "max_tokens",
    "stop",
    "stream",
    "tools",
    "tool_choice",
    "parameters",
    "image",
    "source",
    "base64",
    "media_type",
    "data",
    "tool_use",
    "tool_result",
    "input",
    "tool_use_id",
    "thinking",
    "cache_control",
    "ephemeral",
    "ttl",
    "document",
    "inferenceConfig",
    "maxTokens",
    "response_format",
    "json_schema",
    "schema",
    "output_config",
    "toolUse",
    "delta",
    "usage",
    "contentBlockIndex",
    "message",
    "input_text",
    "input_image",
    "function_call",
    "function_call_output",
    "call_id",
    "output",
    "reasoning",
    "encrypted_content",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned), 1 => Just(SECRET.to_owned()), 1 => ".*"]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Valid requests with most of the members that are read.
fn valid_request(api: Api) -> Value {
    match api {
        Api::ChatCompletions => {
            json!({"model": "m", "max_tokens": 5, "temperature": 1, "stop": ["a"], "tool_choice": "auto",
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "t"},
                    {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PNG}")}}]},
                {"role": "assistant", "content": "a", "tool_calls": [
                    {"id": "i", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "i", "content": "r"}]})
        }
        Api::Responses => {
            json!({"model": "m", "max_output_tokens": 5, "instructions": "s", "tool_choice": "auto",
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}},
                {"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "c"}]}],
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}, "reasoning": {"effort": "low"},
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "t"},
                    {"type": "input_image", "image_url": format!("data:image/png;base64,{PNG}")}]},
                {"type": "reasoning", "summary": [], "encrypted_content": "eyJyZWRhY3RlZENvbnRlbnQiOiJBQUFBIn0="},
                {"type": "function_call", "call_id": "i", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "i", "output": "r"}]})
        }
        Api::Messages => json!({"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "s"}],
            "tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "auto"},
            "thinking": {"type": "disabled"}, "output_config": {"effort": "low"}, "messages": [
                {"role": "user", "content": [{"type": "text", "text": "t", "cache_control": {"type": "ephemeral"}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    {"type": "document", "source": {"type": "text", "data": "d"}}]},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "i", "name": "f", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "content": "r"}]}]}),
        Api::Converse | Api::Embeddings | Api::Invoke => {
            json!({"messages": [{"role": "user", "content": [{"text": "t"}]}], "system": [{"text": "s"}],
            "inferenceConfig": {"maxTokens": 5, "stopSequences": ["a"]}, "serviceTier": {"type": "default"},
            "additionalModelRequestFields": {"a": {}}, "requestMetadata": {"a": "b"}})
        }
    }
}

/// Replaces the value at the node number `place` (in reading order) by `with`.
fn replace(value: &mut Value, place: &mut usize, with: &Value) {
    if *place == 0 {
        *value = with.clone();
    }
    *place = place.wrapping_sub(1);
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(|element| replace(element, place, with)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, place, with)),
        _ => {}
    }
}

/// The APIs whose bodies become Converse.
const CHATS: [Api; 4] = [Api::ChatCompletions, Api::Responses, Api::Messages, Api::Converse];

fn api() -> impl Strategy<Value = Api> {
    prop::sample::select(CHATS.to_vec())
}

fn check_total(api: Api, body: &[u8]) {
    match super::read(api, body, Some("m"), false) {
        Ok((request, _)) => {
            assert!(sent_body(&request).contains_key("messages"));
            assert!(request.ignored.iter().all(|name| !name.contains(SECRET) && name.is_ascii()));
        }
        Err(problem) => {
            assert!(!problem.message.contains(SECRET), "{problem}");
            assert!(!problem.param.as_deref().unwrap_or_default().contains(SECRET), "{problem}");
            assert!(api.dialect().problem("r1", &problem).status.is_client_error());
        }
    }
}

fn converse_answer(body: Value, usage: Usage) -> Answer {
    Answer { output: Output::Converse(body), usage: Some(usage) }
}

fn usage() -> impl Strategy<Value = Usage> {
    let count = || prop_oneof![0..5_u64, 0..1_000_000_u64];
    (count(), count(), count(), count()).prop_map(|(input, output, read, write)| Usage {
        input_tokens: input,
        output_tokens: output,
        cache_read_input_tokens: read,
        cache_write_input_tokens: write,
        cache_write_1h_input_tokens: write / 3,
        reasoning_tokens: output / 2,
    })
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_rejected(api in api(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_total(api, &bytes);
    }

    #[test]
    fn any_object_is_parsed_or_rejected_without_quoting_it(api in api(), value in value()) {
        check_total(api, value.to_string().as_bytes());
    }

    #[test]
    fn a_valid_request_with_any_value_anywhere_is_parsed_or_rejected_without_quoting_it(
        api in api(), place in 0..40_usize, with in value(),
    ) {
        let mut body = valid_request(api);
        replace(&mut body, &mut { place }, &with);
        check_total(api, body.to_string().as_bytes());
    }

    #[test]
    fn any_events_are_encoded_and_the_stream_ends(
        api in api(), include_usage: bool,
        events in prop::collection::vec((prop::sample::select(&["messageStart", "contentBlockStart",
            "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "other"][..]), value()), 0..12),
    ) {
        let mut encoder = api.stream(AnswerContext { echo: Echo { include_usage, ..Echo::default() }, ..context() });
        for (name, payload) in events {
            encoder.event(&StreamEvent::Converse { name: name.to_owned(), payload });
        }
        encoder.finish();
        prop_assert!(encoder.finish().is_empty());
    }

    #[test]
    fn any_answer_is_rendered(api in api(), body in value()) {
        let body = json!({"output": {"message": {"content": [body]}}});
        let rendered = rendered(api, &converse_answer(body, Usage::default()));
        prop_assert!(rendered.is_object());
    }

    #[test]
    fn every_token_is_counted_once(usage in usage()) {
        let total = usage.input_tokens + usage.output_tokens + usage.cache_read_input_tokens
            + usage.cache_write_input_tokens;
        let answer = converse_answer(json!({}), usage);
        let count = |rendered: &Value, name: &str| rendered["usage"][name].as_u64().unwrap();
        let openai = rendered(Api::ChatCompletions, &answer);
        prop_assert_eq!(count(&openai, "prompt_tokens") + count(&openai, "completion_tokens"), total);
        prop_assert_eq!(count(&openai, "total_tokens"), total);
        let responses = rendered(Api::Responses, &answer);
        prop_assert_eq!(count(&responses, "input_tokens") + count(&responses, "output_tokens"), total);
        prop_assert_eq!(count(&responses, "total_tokens"), total);
        let anthropic = rendered(Api::Messages, &answer);
        let names = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
        prop_assert_eq!(names.map(|name| count(&anthropic, name)).iter().sum::<u64>(), total);
    }

    #[test]
    fn text_is_unchanged_in_requests_and_answers(texts in prop::collection::vec(".+", 1..4)) {
        let content: Vec<Value> = texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
        let body = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
        let request = super::parse(Api::Messages, &body);
        let message = sent_body(&request)["messages"][0].clone();
        let answer = converse_answer(json!({"output": {"message": message}}), Usage::default());
        let expected: Vec<Value> = texts.iter().map(|text| json!({"type": "text", "text": text, "citations": null})).collect();
        prop_assert_eq!(&rendered(Api::Messages, &answer)["content"], &Value::from(expected));
    }

    #[test]
    fn a_string_means_the_same_as_a_text_block(text in ".+") {
        for (api, content) in [
            (Api::ChatCompletions, json!(text)),
            (Api::ChatCompletions, json!([{"type": "text", "text": text}])),
            (Api::Messages, json!(text)),
            (Api::Messages, json!([{"type": "text", "text": text}])),
        ] {
            let body = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
            let request = super::parse(api, &body);
            prop_assert_eq!(&sent_body(&request)["messages"][0]["content"], &json!([{"text": text}]));
        }
        let message = json!([{"role": "user", "content": [{"type": "input_text", "text": text}]}]);
        for input in [json!(text), json!([{"role": "user", "content": text}]), message] {
            let request = super::parse(Api::Responses, &json!({"model": "m", "input": input}));
            prop_assert_eq!(&sent_body(&request)["messages"][0]["content"], &json!([{"text": text}]));
        }
    }

    #[test]
    fn streaming_does_not_change_text(texts in prop::collection::vec(".+", 1..6)) {
        let events: Vec<StreamEvent> = texts.iter().map(|text| {
            super::event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": text}}))
        }).collect();
        let joined = |api, pointer: &str| -> String {
            let events = payloads(&super::streamed(api, context(), &events));
            events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect()
        };
        prop_assert_eq!(joined(Api::ChatCompletions, "/choices/0/delta/content"), texts.concat());
        prop_assert_eq!(joined(Api::Messages, "/delta/text"), texts.concat());
        prop_assert_eq!(joined(Api::Responses, "/delta"), texts.concat());
    }
}

#[test]
fn the_valid_requests_of_these_properties_are_valid() {
    for api in CHATS {
        let request = super::parse(api, &valid_request(api));
        assert_ne!(sent_body(&request), &Map::new());
        assert_eq!(request.max_tokens, Some(5));
    }
}

#[test]
fn a_long_word_is_truncated_in_errors() {
    for api in [Api::ChatCompletions, Api::Messages, Api::Converse] {
        let body = json!({"messages": [{"role": SECRET, "content": []}]});
        let message = super::rejection_message(api, body, "messages[0].role");
        assert!(message.contains(&SECRET[..32]) && !message.contains(&SECRET[..33]), "{message}");
    }
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], SECRET: 1, "ü\n": 1});
    assert_eq!(super::parse(Api::ChatCompletions, &body).ignored, [&SECRET[..32], "??"]);
}
