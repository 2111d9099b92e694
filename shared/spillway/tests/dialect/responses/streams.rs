//! Streams of response events.

use serde_json::{Value, json};
use spillway::dialect::{Encoder, ResponseState, ResponseStream, ResumedStream, last_response};
use spillway::{
    chat::StreamEvent,
    problem::{Kind, Problem},
};

use super::{API, context_for, patch, rendered};
use crate::{busy_stream, context, event, payloads, streamed};

/// The types of the events of a stream, without the common prefix.
fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().expect("a type").trim_start_matches("response.")).collect()
}

#[test]
fn a_stream_opens_fills_and_closes_every_item() {
    let bytes = streamed(API, context(), &busy_stream());
    let events = payloads(&bytes);
    assert_eq!(
        types(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let names = String::from_utf8(bytes).expect("text");
    let names: Vec<&str> = names.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, events.iter().map(|event| event["type"].as_str().expect("a type")).collect::<Vec<_>>());
    assert_eq!(events[0]["response"]["status"], "in_progress");
    assert_eq!(
        events[10],
        json!({"type": "response.output_text.delta", "sequence_number": 10, "item_id": "msg_r1_1", "output_index": 1,
            "content_index": 0, "logprobs": [], "delta": "Hel"})
    );
    assert_eq!(events[22]["arguments"], "{}", "a tool without parameters still gets arguments");
}

#[test]
fn a_stream_ends_with_the_same_response_as_a_whole_call() {
    for extra in [json!({}), json!({"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]})] {
        let context = context_for(extra);
        let events = payloads(&streamed(API, context.clone(), &busy_stream()));
        let (last, events) = events.split_last().expect("events");
        let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
        assert_eq!(last["response"]["output"], done.map(|event| event["item"].clone()).collect::<Value>());
        let content = json!([
            {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}}, {"text": "Hello"},
            {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Ulm"}}},
            {"toolUse": {"toolUseId": "t2", "name": "clock", "input": {}}}]);
        let mut whole = rendered(&context, content, "tool_use");
        // The events do not report reasoning tokens.
        whole["usage"]["output_tokens_details"]["reasoning_tokens"] = json!(0);
        assert_eq!(last["response"], whole);
    }
}

#[test]
fn summaries_and_custom_tools_have_their_own_events() {
    let context = context_for(json!({"reasoning": {"summary": "auto"}, "tools": [patch()]}));
    let delta = |delta: Value| event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": delta}));
    let start = json!({"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t", "name": "patch"}}});
    let input =
        |text: &str| event("contentBlockDelta", json!({"contentBlockIndex": 1, "delta": {"toolUse": {"input": text}}}));
    let events = [
        delta(json!({"reasoningContent": {"text": "Hm."}})),
        event("contentBlockStart", start),
        input(r#"{"input": "a"#),
        input(r#"\nb"}"#),
    ];
    let events = payloads(&streamed(API, context, &events));
    assert_eq!(
        types(&events)[3..12],
        [
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done",
        ]
    );
    assert_eq!((&events[4]["summary_index"], &events[4]["delta"]), (&json!(0), &json!("Hm.")));
    assert_eq!((&events[9]["delta"], &events[10]["input"]), (&json!("a\nb"), &json!("a\nb")));
}

#[test]
fn a_truncated_stream_is_incomplete() {
    let text = event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": "Hel"}}));
    let stop = event("messageStop", json!({"stopReason": "max_tokens"}));
    let events = payloads(&streamed(API, context(), &[text, stop]));
    let last = events.last().expect("events");
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
}

#[test]
fn a_broken_stream_ends_in_an_error_and_a_failed_response() {
    for events in [&busy_stream()[..6], &[]] {
        let mut encoder = API.stream(context());
        let mut bytes: Vec<u8> = events.iter().flat_map(|event: &StreamEvent| encoder.event(event)).collect();
        bytes.extend(encoder.problem(&Problem::new(Kind::Model, "The model broke off.")));
        let events = payloads(&bytes);
        let [.., error, failed] = &events[..] else { panic!("too few events: {events:?}") };
        assert_eq!(types(&events)[..2], ["created", "in_progress"]);
        let error_body =
            json!({"message": "The model broke off.", "type": "server_error", "param": null, "code": "model_error"});
        assert_eq!(
            (&error["type"], &error["error"], &error["message"]),
            (&json!("error"), &error_body, &error_body["message"])
        );
        assert_eq!((&failed["type"], &failed["response"]["status"]), (&json!("response.failed"), &json!("failed")));
        let response_error = json!({"code": "server_error", "message": "The model broke off."});
        assert_eq!(failed["response"]["error"], response_error);
        assert!(encoder.finish().is_empty() && encoder.problem(&Problem::new(Kind::Internal, "")).is_empty());
    }
    assert_eq!(API.stream(context()).keep_alive(), ": keep-alive\n\n");
}

fn background() -> spillway::dialect::AnswerContext {
    context_for(json!({"background": true}))
}

#[test]
fn a_background_stream_begins_with_the_announced_events() {
    let bytes = streamed(API, background(), &busy_stream());
    let announced = ResponseStream::new(background()).announce();
    assert!(bytes.starts_with(&announced), "{}", String::from_utf8_lossy(&bytes));
    let events = payloads(&bytes);
    assert_eq!(types(&events)[..4], ["created", "queued", "in_progress", "output_item.added"]);
    assert_eq!(types(&payloads(&announced)), ["created", "queued"]);
    let statuses: Vec<&Value> = events[..3].iter().map(|event| &event["response"]["status"]).collect();
    assert_eq!(statuses, ["queued", "queued", "in_progress"]);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    assert_eq!(last_response(&bytes).as_ref(), Some(&events[events.len() - 1]["response"]));
    assert!(ResponseStream::new(context()).announce().is_empty(), "other streams begin when the model answers");
}

#[test]
fn a_background_stream_resumes_after_a_numbered_event() {
    let bytes = streamed(API, background(), &busy_stream());
    let events = payloads(&bytes);
    for after in 0..events.len() + 2 {
        let mut resumed = ResumedStream::after(Some(after as u64));
        let rest: Vec<u8> = bytes.chunks(100).flat_map(|piece| resumed.push(piece)).collect();
        assert_eq!(payloads(&rest), events[events.len().min(after + 1)..], "{after}");
    }
}

#[test]
fn a_background_response_without_an_answer_ends_with_its_status() {
    let failed = ResponseState::Failed { kind: Kind::Throttled, message: "No room.".into() };
    for (state, name, status) in
        [(failed, "response.failed", "failed"), (ResponseState::Cancelled, "response.incomplete", "cancelled")]
    {
        let mut stream = ResponseStream::new(background());
        stream.skip(7);
        let events = payloads(&stream.end_as(&state));
        assert_eq!((events.len(), &events[0]["type"], &events[0]["sequence_number"]), (1, &json!(name), &json!(7)));
        assert_eq!(events[0]["response"], state.response(&background()));
        assert_eq!(events[0]["response"]["status"], status);
        assert!(stream.end_as(&state).is_empty());
    }
}

#[test]
fn an_interrupted_connection_ends_with_an_error_outside_the_response() {
    let mut stream = ResponseStream::new(background());
    stream.skip(7);
    let events = payloads(&stream.interrupt(&Problem::new(Kind::Timeout, "Go on.")));
    assert_eq!((&events[0]["type"], &events[0]["sequence_number"]), (&json!("error"), &json!(6)));
    assert_eq!((events.len(), &events[0]["error"]["message"]), (1, &json!("Go on.")));
}

#[test]
fn a_problem_continues_the_numbers_of_events_that_were_sent_elsewhere() {
    for (sent_before, expected) in
        [(0, vec!["created", "in_progress", "error", "failed"]), (5, vec!["error", "failed"])]
    {
        let mut encoder: Encoder = API.stream(context());
        encoder.skip(sent_before);
        let events = payloads(&encoder.problem(&Problem::new(Kind::Model, "It broke.")));
        assert_eq!(types(&events), expected);
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], sent_before + number as u64);
        }
    }
}
