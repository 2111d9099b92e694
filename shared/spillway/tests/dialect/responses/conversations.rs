//! Properties of responses for any output of a model: nothing is lost when an answer returns to the
//! model, and a stream has the same content as a whole call.

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::{Value, json};
use spillway::dialect::{AnswerContext, Api};
use spillway::{
    chat::{Answer, Output, StreamEvent},
    usage::Usage,
};

use crate::{context, event, payloads, read, streamed};

const STOPS: [&str; 7] = [
    "end_turn",
    "tool_use",
    "max_tokens",
    "stop_sequence",
    "model_context_window_exceeded",
    "guardrail_intervened",
    "content_filtered",
];

/// A request with the items `input`, and with a function and a custom tool, both also in a
/// namespace.
fn request(input: &Value, has_summary: bool) -> Value {
    let tools = json!([{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}]);
    let tools = json!([tools[0], tools[1], {"type": "namespace", "name": "n", "tools": tools}]);
    let reasoning = if has_summary { json!({"summary": "auto"}) } else { Value::Null };
    json!({"model": "m", "input": input, "tools": tools, "reasoning": reasoning,
        "include": ["reasoning.encrypted_content"]})
}

fn context_with(has_summary: bool) -> AnswerContext {
    let body = request(&json!("Hi"), has_summary).to_string();
    let (_, echo) = read(Api::Responses, body.as_bytes(), None, false).expect("a valid request");
    AnswerContext { echo, ..context() }
}

fn block() -> impl Strategy<Value = Value> {
    let call = |name: &'static str, input: Value| json!({"toolUse": {"toolUseId": "t", "name": name, "input": input}});
    let function = (prop::sample::select(&["f", "n__f"][..]), prop::collection::btree_map(".*", ".*", 0..3));
    let custom = (prop::sample::select(&["c", "n__c"][..]), ".*");
    let reasoning = |(text, signature): (String, String)| {
        let mut reasoning = json!({"text": text});
        if !signature.is_empty() {
            reasoning["signature"] = json!(signature);
        }
        json!({"reasoningContent": {"reasoningText": reasoning}})
    };
    let redacted = |bytes: Vec<u8>| json!({"reasoningContent": {"redactedContent": STANDARD.encode(bytes)}});
    prop_oneof![
        3 => ".+".prop_map(|text| json!({"text": text})),
        2 => function.prop_map(move |(name, input)| call(name, json!(input))),
        2 => custom.prop_map(move |(name, text)| call(name, json!({"input": text}))),
        2 => (".+", "[a-z]{0,4}").prop_map(reasoning),
        1 => prop::collection::vec(any::<u8>(), 1..9).prop_map(redacted),
    ]
}

/// Output of a model, without consecutive text blocks.
fn content() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(block(), 1..6).prop_map(|mut blocks| {
        blocks.dedup_by(|next, before| next.get("text").is_some() && before.get("text").is_some());
        blocks
    })
}

fn converse_answer(content: &[Value], stop_reason: &str) -> Answer {
    let message = json!({"role": "assistant", "content": content});
    let body = json!({"output": {"message": message}, "stopReason": stop_reason});
    Answer {
        output: Output::Converse(body),
        usage: Some(Usage { input_tokens: 3, output_tokens: 4, ..Usage::default() }),
    }
}

fn response(context: &AnswerContext, answer: &Answer) -> Value {
    serde_json::from_slice(&Api::Responses.answer(context, answer).body).expect("JSON")
}

/// `text` in pieces of at most `length` characters.
fn pieces(text: &str, length: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(length).map(|piece| piece.iter().collect()).collect()
}

/// The events in which Bedrock streams `content`.
fn events(content: &[Value], stop_reason: &str, length: usize) -> Vec<StreamEvent> {
    let mut events = vec![event("messageStart", json!({"role": "assistant"}))];
    for (index, block) in content.iter().enumerate() {
        let delta = |delta: Value| event("contentBlockDelta", json!({"contentBlockIndex": index, "delta": delta}));
        let text = |pointer: &str| block.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if let Some(call) = block.get("toolUse") {
            let start = json!({"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}});
            events.push(event("contentBlockStart", json!({"contentBlockIndex": index, "start": start})));
            let input = pieces(&call["input"].to_string(), length).into_iter();
            events.extend(input.map(|input| delta(json!({"toolUse": {"input": input}}))));
        }
        events.extend(pieces(text("/text"), length).into_iter().map(|text| delta(json!({"text": text}))));
        let thoughts = pieces(text("/reasoningContent/reasoningText/text"), length).into_iter();
        events.extend(thoughts.map(|text| delta(json!({"reasoningContent": {"text": text}}))));
        for (pointer, name) in [("reasoningText/signature", "signature"), ("redactedContent", "redactedContent")] {
            let found = block.pointer(&format!("/reasoningContent/{pointer}"));
            events.extend(found.map(|found| delta(json!({"reasoningContent": {name: found}}))));
        }
        events.push(event("contentBlockStop", json!({"contentBlockIndex": index})));
    }
    events.push(event("messageStop", json!({"stopReason": stop_reason})));
    events.push(event("metadata", json!({"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}})));
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn an_answer_returns_to_the_model_unchanged(content in content(), stop in prop::sample::select(&STOPS[..]), has_summary: bool) {
        let response = response(&context_with(has_summary), &converse_answer(&content, stop));
        let body = request(&response["output"], has_summary).to_string();
        let (request, _) = read(Api::Responses, body.as_bytes(), None, false).expect("valid items");
        let message = json!({"role": "assistant", "content": content});
        prop_assert_eq!(&crate::sent(&request)["messages"], &json!([message]));
        prop_assert!(request.ignored.is_empty());
    }

    #[test]
    fn a_stream_ends_with_the_response_of_a_whole_call(
        content in content(), stop in prop::sample::select(&STOPS[..]), has_summary: bool, length in 1..9_usize,
    ) {
        let context = context_with(has_summary);
        let events = payloads(&streamed(Api::Responses, context.clone(), &events(&content, stop, length)));
        let response = response(&context, &converse_answer(&content, stop));
        prop_assert_eq!(&events.last().expect("events")["response"], &response);
        let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().expect("a number")).collect();
        prop_assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
        for (name, items) in [("response.output_item.added", false), ("response.output_item.done", true)] {
            let matching = events.iter().filter(|event| event["type"] == name);
            let found: Vec<&Value> = matching.map(|event| if items { &event["item"] } else { &event["item"]["id"] }).collect();
            let output = response["output"].as_array().expect("items").iter();
            let expected: Vec<&Value> = output.map(|item| if items { item } else { &item["id"] }).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_deltas_of_an_item_are_its_text(content in content(), length in 1..9_usize) {
        let events = payloads(&streamed(Api::Responses, context_with(false), &events(&content, "end_turn", length)));
        for done in events.iter().filter(|event| event["type"] == "response.output_item.done") {
            let item = &done["item"];
            let of_item = events.iter().filter(|event| event["item_id"] == item["id"]);
            let text: String = of_item.filter_map(|event| event["delta"].as_str()).collect();
            let whole = ["/content/0/text", "/arguments", "/input"].iter().find_map(|at| item.pointer(at));
            prop_assert_eq!(text, whole.and_then(Value::as_str).unwrap_or_default());
        }
    }
}
