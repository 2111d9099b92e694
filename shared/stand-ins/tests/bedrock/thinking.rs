//! Thinking, several tool calls in an answer, and answers to a JSON schema.

use aws_sdk_bedrockruntime::{
    operation::converse::ConverseOutput,
    types::{
        ContentBlock, ContentBlockDelta, ContentBlockStart, ConversationRole, JsonSchemaDefinition, Message,
        OutputConfig, OutputFormat, OutputFormatStructure, OutputFormatType, ReasoningContentBlock,
        ReasoningContentBlockDelta, ReasoningTextBlock, StopReason, Tool, ToolConfiguration, ToolInputSchema,
        ToolResultBlock, ToolResultContentBlock, ToolSpecification,
    },
};
use aws_smithy_types::Document;
use serde_json::{Value, json};
use spillway_stand_ins::bedrock::tokens;

use crate::{
    calls::messages_body,
    support::{Bedrock, chunks, drain, invoke, object, open, refused, text, usage, user},
};

const THINKING_PROMPT: &str = "[[thinking_tokens=20]] [[output_tokens=5]]";

fn thinking(budget_tokens: u64) -> Document {
    let thinking = object(&[("type", Document::from("enabled")), ("budget_tokens", Document::from(budget_tokens))]);
    object(&[("thinking", thinking)])
}

fn thinking_text(answer: &ConverseOutput) -> ReasoningTextBlock {
    let message = answer.output().unwrap().as_message().unwrap();
    message.content()[0].as_reasoning_content().unwrap().as_reasoning_text().unwrap().clone()
}

#[tokio::test]
async fn thinking_comes_first_is_signed_and_counts_as_output() {
    let bedrock = Bedrock::start().await;
    let call = bedrock.converse("m", THINKING_PROMPT).additional_model_request_fields(thinking(1_024));
    let answer = call.send().await.unwrap();
    let thinking_text = thinking_text(&answer);
    assert_eq!(tokens::text_tokens(thinking_text.text()), 20);
    assert!(!thinking_text.signature().unwrap().is_empty());
    assert_eq!((tokens::text_tokens(&text(&answer)), usage(&answer).1), (5, 25));
}

#[tokio::test]
async fn thinking_is_streamed_before_the_text_and_ends_with_its_signature() {
    let bedrock = Bedrock::start().await;
    let call = bedrock.converse_stream("m", THINKING_PROMPT).additional_model_request_fields(thinking(1_024));
    let (events, error) = drain(&mut open(call).await).await;
    assert_eq!(error, None);
    let deltas = events.iter().filter_map(|event| {
        let event = event.as_content_block_delta().ok()?;
        Some((event.content_block_index(), event.delta()?))
    });
    let kinds = deltas.map(|(index, delta)| match delta {
        ContentBlockDelta::ReasoningContent(ReasoningContentBlockDelta::Text(_)) => (index, "thoughts"),
        ContentBlockDelta::ReasoningContent(ReasoningContentBlockDelta::Signature(_)) => (index, "signature"),
        ContentBlockDelta::Text(_) => (index, "text"),
        _ => (index, "other"),
    });
    let kinds: Vec<_> = kinds.collect();
    assert_eq!(kinds, [(0, "thoughts"), (0, "thoughts"), (0, "thoughts"), (0, "signature"), (1, "text")]);
    assert_eq!(events.last().unwrap().as_metadata().unwrap().usage().unwrap().output_tokens(), 25);
}

#[tokio::test]
async fn thinking_can_be_sent_back_unless_it_was_changed() {
    let bedrock = Bedrock::start().await;
    let call = bedrock.converse("m", THINKING_PROMPT).additional_model_request_fields(thinking(1_024));
    let first = call.send().await.unwrap();
    let send_back = |thinking_text: ReasoningTextBlock| {
        let block = ContentBlock::ReasoningContent(ReasoningContentBlock::ReasoningText(thinking_text));
        let answer = Message::builder().role(ConversationRole::Assistant).content(block);
        let answer = answer.content(ContentBlock::Text(text(&first))).build().unwrap();
        bedrock.converse("m", THINKING_PROMPT).messages(answer).messages(user("go on")).send()
    };
    let thinking_text = thinking_text(&first);
    send_back(thinking_text.clone()).await.unwrap();
    let changed = ReasoningTextBlock::builder().text("something else").set_signature(thinking_text.signature);
    let changed = changed.build().unwrap();
    let (code, _, message) = refused(send_back(changed).await);
    assert_eq!(code, "ValidationException");
    assert!(message.contains("messages.1.content.0: Invalid `signature` in `thinking` block"), "{message}");
}

#[tokio::test]
async fn settings_that_exclude_thinking_are_refused() {
    let bedrock = Bedrock::start().await;
    for (budget_tokens, max_tokens, expected) in
        [(1_000, 4_000, "1024"), (2_000, 2_000, "`max_tokens` must be greater")]
    {
        let call = bedrock.converse("m", "x").inference_config(crate::support::max_tokens(max_tokens));
        let call = call.additional_model_request_fields(thinking(budget_tokens));
        let (code, _, message) = refused(call.send().await);
        assert_eq!(code, "ValidationException");
        assert!(message.contains(expected), "{message} does not say {expected}");
    }
}

fn messages_thinking() -> Value {
    let mut body = messages_body(THINKING_PROMPT, 2_000);
    body["thinking"] = json!({ "type": "enabled", "budget_tokens": 1_024 });
    body
}

#[tokio::test]
async fn messages_report_the_tokens_of_the_thinking() {
    let bedrock = Bedrock::start().await;
    let answer = invoke(&bedrock, "m", &messages_thinking()).await;
    assert_eq!(answer["content"][0]["type"], "thinking");
    assert_eq!(answer["usage"]["output_tokens"], 25);
    assert_eq!(answer["usage"]["output_tokens_details"]["thinking_tokens"], 20);

    let mut follow_up = messages_thinking();
    let turns = follow_up["messages"].as_array_mut().unwrap();
    turns.push(json!({ "role": "assistant", "content": answer["content"] }));
    turns.push(json!({ "role": "user", "content": "go on" }));
    assert_eq!(invoke(&bedrock, "m", &follow_up).await["stop_reason"], "end_turn");

    let events = chunks(&bedrock, "m", &messages_thinking()).await;
    let kinds: Vec<_> = events.iter().filter_map(|event| event["delta"]["type"].as_str()).collect();
    assert_eq!(kinds, ["thinking_delta", "thinking_delta", "thinking_delta", "signature_delta", "text_delta"]);
    let delta = events.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!(delta["usage"]["output_tokens_details"]["thinking_tokens"], 20);
}

fn tools() -> ToolConfiguration {
    let schema = ToolInputSchema::Json(object(&[("type", Document::from("object"))]));
    let tool = |name: &str| {
        let tool = ToolSpecification::builder().name(name).input_schema(schema.clone()).build().unwrap();
        Tool::ToolSpec(tool)
    };
    ToolConfiguration::builder().tools(tool("weather")).tools(tool("time")).build().unwrap()
}

const CALLS: &str = r#"[[tool=weather {"place":"Oslo"}]] [[tool=time {"zone":"CET"}]]"#;

#[tokio::test]
async fn an_answer_can_call_several_tools_and_their_results_get_a_text() {
    let bedrock = Bedrock::start().await;
    let first = bedrock.converse("m", CALLS).tool_config(tools()).send().await.unwrap();
    assert_eq!(first.stop_reason(), &StopReason::ToolUse);
    let calling = first.output().unwrap().as_message().unwrap();
    let calls: Vec<_> = calling.content().iter().map(|block| block.as_tool_use().unwrap()).collect();
    assert_eq!(calls.iter().map(|call| call.name()).collect::<Vec<_>>(), ["weather", "time"]);
    assert_ne!(calls[0].tool_use_id(), calls[1].tool_use_id());

    let result = |id: &str| {
        let result = ToolResultBlock::builder().tool_use_id(id).content(ToolResultContentBlock::Text("fine".into()));
        ContentBlock::ToolResult(result.build().unwrap())
    };
    let results = calls.iter().map(|call| result(call.tool_use_id())).collect();
    let results = Message::builder().role(ConversationRole::User).set_content(Some(results)).build().unwrap();
    let call = bedrock.converse("m", CALLS).tool_config(tools()).messages(calling.clone()).messages(results);
    assert_eq!(call.send().await.unwrap().stop_reason(), &StopReason::EndTurn);
}

#[tokio::test]
async fn several_tool_calls_are_streamed_as_separate_blocks() {
    let bedrock = Bedrock::start().await;
    let call = bedrock.converse_stream("m", CALLS).tool_config(tools());
    let (events, error) = drain(&mut open(call).await).await;
    assert_eq!(error, None);
    let starts = events.iter().filter_map(|event| {
        let event = event.as_content_block_start().ok()?;
        let Some(ContentBlockStart::ToolUse(start)) = event.start() else { return None };
        Some((event.content_block_index(), start.name()))
    });
    assert_eq!(starts.collect::<Vec<_>>(), [(0, "weather"), (1, "time")]);
    let input = |index: i32| {
        let deltas = events.iter().filter_map(|event| event.as_content_block_delta().ok());
        let block_deltas = deltas.filter(|delta| delta.content_block_index() == index);
        block_deltas.filter_map(|delta| Some(delta.delta()?.as_tool_use().ok()?.input().to_owned())).collect::<String>()
    };
    assert_eq!((input(0).as_str(), input(1).as_str()), (r#"{"place":"Oslo"}"#, r#"{"zone":"CET"}"#));
}

#[tokio::test]
async fn messages_can_disable_parallel_tool_calls() {
    let bedrock = Bedrock::start().await;
    let mut body = messages_body(CALLS, 500);
    body["tools"] = json!([{ "name": "weather", "input_schema": {} }, { "name": "time", "input_schema": {} }]);
    let names = |answer: &Value| {
        answer["content"].as_array().unwrap().iter().map(|block| block["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&invoke(&bedrock, "m", &body).await), ["weather", "time"]);
    body["tool_choice"] = json!({ "type": "auto", "disable_parallel_tool_use": true });
    assert_eq!(names(&invoke(&bedrock, "m", &body).await), ["weather"]);
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "size": { "enum": ["small", "large"] },
            "n": { "type": "integer" },
        },
        "required": ["name", "size"],
        "additionalProperties": false,
    })
}

#[tokio::test]
async fn a_schema_is_answered_by_json_that_satisfies_it() {
    let bedrock = Bedrock::start().await;
    let definition = JsonSchemaDefinition::builder().schema(schema().to_string()).name("thing").build().unwrap();
    let format = OutputFormat::builder()
        .r#type(OutputFormatType::JsonSchema)
        .structure(OutputFormatStructure::JsonSchema(definition))
        .build()
        .unwrap();
    let config = OutputConfig::builder().text_format(format).build();
    let answer = bedrock.converse("m", "hello").output_config(config).send().await.unwrap();
    let expected = json!({ "name": "text", "size": "small", "n": 1 });
    assert_eq!(serde_json::from_str::<Value>(&text(&answer)).unwrap(), expected);

    let mut body = messages_body("hello", 500);
    body["output_config"] = json!({ "format": { "type": "json_schema", "schema": schema() } });
    let answer = invoke(&bedrock, "m", &body).await;
    let text = answer["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);
}
