//! Complete responses: Converse, InvokeModel and CountTokens.

use aws_sdk_bedrockruntime::{
    primitives::Blob,
    types::{
        CachePointBlock, CachePointType, ContentBlock, ConversationRole, ConverseTokensRequest, CountTokensInput,
        InferenceConfiguration, InvokeModelTokensRequest, PerformanceConfigLatency, PerformanceConfiguration,
        ServiceTier, ServiceTierType, StopReason, Tool, ToolConfiguration, ToolInputSchema, ToolSpecification,
    },
};
use aws_smithy_types::Document;
use serde_json::{Value, json};
use spillway_stand_ins::bedrock::tokens;

use crate::support::{Bedrock, invoke, max_tokens, message, object, refused, text, usage, user};

#[tokio::test]
async fn an_answer_is_repeatable_and_has_the_requested_length() {
    let bedrock = Bedrock::start().await;
    let prompt = tokens::sized_prompt(1_000, 123);
    let first = bedrock.converse("any.model-v1:0", &prompt).send().await.unwrap();
    let second = bedrock.converse("any.model-v1:0", &prompt).send().await.unwrap();
    assert_eq!(usage(&first), (1_000, 123, 1_123));
    assert_eq!(first.stop_reason(), &StopReason::EndTurn);
    assert_eq!(tokens::text_tokens(&text(&first)), 123);
    assert_eq!(text(&first), text(&second));
    let stats = bedrock.stats().await;
    assert_eq!(stats["total"]["input_tokens"], 2_000);
    assert_eq!(stats["models"]["any.model-v1:0"]["output_tokens"], 246);
}

#[tokio::test]
async fn an_answer_ends_at_max_tokens_or_a_stop_sequence() {
    let bedrock = Bedrock::start().await;
    let short = bedrock.converse("m", "hello").inference_config(max_tokens(5)).send().await.unwrap();
    assert_eq!((short.stop_reason(), usage(&short).1), (&StopReason::MaxTokens, 5));

    let stop = InferenceConfiguration::builder().stop_sequences("three").build();
    let stopped = bedrock.converse("m", "one two three four").inference_config(stop).send().await.unwrap();
    assert_eq!(stopped.stop_reason(), &StopReason::StopSequence);
    assert_eq!(text(&stopped), "You said: one two ");
}

/// Returns a configuration with the tool `weather`.
pub fn weather() -> ToolConfiguration {
    let schema = ToolInputSchema::Json(object(&[("type", Document::from("object"))]));
    let tool = ToolSpecification::builder().name("weather").input_schema(schema).build().unwrap();
    ToolConfiguration::builder().tools(Tool::ToolSpec(tool)).build().unwrap()
}

#[tokio::test]
async fn a_directive_calls_an_offered_tool() {
    let bedrock = Bedrock::start().await;
    let call = bedrock.converse("m", r#"[[tool=weather {"place":"Oslo"}]]"#).tool_config(weather());
    let answer = call.send().await.unwrap();
    assert_eq!(answer.stop_reason(), &StopReason::ToolUse);
    let message = answer.output().unwrap().as_message().unwrap();
    let tool_use = message.content()[0].as_tool_use().unwrap();
    assert_eq!((tool_use.name(), tool_use.input()), ("weather", &object(&[("place", Document::from("Oslo"))])));
    let counted = tokens::tool_use_tokens("weather", r#"{"place":"Oslo"}"#);
    assert_eq!(u64::try_from(usage(&answer).1).unwrap(), counted);
}

#[tokio::test]
async fn an_arn_is_a_model_id() {
    let arn = "arn:aws:bedrock:eu-west-1:000000000000:provisioned-model/abcdefghijkl";
    let bedrock = Bedrock::start_with(&format!("[[pools]]\nmodel_id = \"{arn}\"")).await;
    bedrock.converse(arn, "hello").send().await.unwrap();
    assert_eq!(bedrock.stats().await["models"][arn]["succeeded"], 1);
    let (code, status, _) = refused(bedrock.converse("arn:of:another", "hello").send().await);
    assert_eq!((code.as_str(), status), ("ResourceNotFoundException", 404));
}

#[tokio::test]
async fn service_tier_and_latency_are_returned() {
    let bedrock = Bedrock::start().await;
    let flex = ServiceTier::builder().r#type(ServiceTierType::Flex).build().unwrap();
    let fast = PerformanceConfiguration::builder().latency(PerformanceConfigLatency::Optimized).build();
    let answer = bedrock.converse("m", "x").service_tier(flex).performance_config(fast).send().await.unwrap();
    assert_eq!(answer.service_tier().unwrap().r#type(), &ServiceTierType::Flex);
    assert_eq!(answer.performance_config().unwrap().latency(), &PerformanceConfigLatency::Optimized);
}

#[tokio::test]
async fn a_cached_prefix_is_written_once_and_then_read() {
    let bedrock = Bedrock::start().await;
    let long = ContentBlock::Text(tokens::sized_prompt(2_004, 8));
    let point = CachePointBlock::builder().r#type(CachePointType::Default).build().unwrap();
    let converse = || {
        let mut question = message(ConversationRole::User, long.clone());
        question.content.push(ContentBlock::CachePoint(point.clone()));
        question.content.push(ContentBlock::Text("next".into()));
        bedrock.client.converse().model_id("m").messages(question).send()
    };
    let (first, second) = (converse().await.unwrap(), converse().await.unwrap());
    let counts = |answer: &aws_sdk_bedrockruntime::operation::converse::ConverseOutput| {
        let usage = answer.usage().unwrap();
        (usage.input_tokens(), usage.cache_read_input_tokens(), usage.cache_write_input_tokens())
    };
    assert_eq!(counts(&first), (1, Some(0), Some(2_004)));
    assert_eq!(counts(&second), (1, Some(2_004), Some(0)));
    assert_eq!(first.usage().unwrap().cache_details().len(), 1);
}

#[tokio::test]
async fn cache_writes_are_reported_by_time_to_live() {
    let bedrock = Bedrock::start().await;
    let part = |beginning: &str| json!({ "text": format!("{beginning}{}", "x".repeat(8_000)) });
    let point = |ttl: &str| json!({ "cachePoint": { "type": "default", "ttl": ttl } });
    let content = json!([part("a"), point("1h"), part("b"), point("5m"), part("c"), point("5m")]);
    let body = json!({ "messages": [{ "role": "user", "content": content }] }).to_string();
    let (_, answer) = bedrock.send("POST", "/model/m/converse", &body).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let details = json!([{ "ttl": "5m", "inputTokens": 4_002 }, { "ttl": "1h", "inputTokens": 2_005 }]);
    assert_eq!(answer["usage"]["cacheDetails"], details);

    let block = |beginning: &str, ttl: &str| {
        let control = json!({ "type": "ephemeral", "ttl": ttl });
        json!({ "type": "text", "text": format!("{beginning}{}", "y".repeat(8_000)), "cache_control": control })
    };
    let mut body = messages_body("", 10);
    body["messages"][0]["content"] = json!([block("a", "1h"), block("b", "5m")]);
    let usage = &invoke(&bedrock, "m", &body).await["usage"];
    let creation = json!({ "ephemeral_5m_input_tokens": 2_001, "ephemeral_1h_input_tokens": 2_005 });
    assert_eq!((&usage["cache_creation"], &usage["cache_creation_input_tokens"]), (&creation, &4_006.into()));
}

/// Returns a body in Anthropic's Messages format.
pub fn messages_body(prompt: &str, max_tokens: u64) -> Value {
    json!({
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": max_tokens,
        "messages": [{ "role": "user", "content": prompt }],
    })
}

#[tokio::test]
async fn invoke_model_supports_the_anthropic_format() {
    let bedrock = Bedrock::start().await;
    let answer = invoke(&bedrock, "m", &messages_body(&tokens::sized_prompt(200, 30), 20)).await;
    assert_eq!(answer["usage"]["input_tokens"], 200);
    assert_eq!(answer["usage"]["output_tokens"], 20);
    assert_eq!(answer["stop_reason"], "max_tokens");
    assert_eq!(tokens::text_tokens(answer["content"][0]["text"].as_str().unwrap()), 20);
}

#[tokio::test]
async fn count_tokens_does_not_generate_an_answer() {
    let bedrock = Bedrock::start().await;
    let prompt = tokens::sized_prompt(777, 1);
    let converse = ConverseTokensRequest::builder().messages(user(&prompt)).build();
    let body = Blob::new(messages_body(&prompt, 1).to_string());
    let invoke = InvokeModelTokensRequest::builder().body(body).build().unwrap();
    for input in [CountTokensInput::Converse(converse), CountTokensInput::InvokeModel(invoke)] {
        let counted = bedrock.client.count_tokens().model_id("m").input(input).send().await.unwrap();
        assert_eq!(counted.input_tokens(), 777);
    }
    assert_eq!(bedrock.stats().await["total"]["requests"], 0);
}

#[tokio::test]
async fn invalid_requests_get_a_validation_error() {
    let bedrock = Bedrock::start_with("[[pools]]\nmodel_id = \"m\"\nmax_output_tokens = 100").await;
    let assistant_first = message(ConversationRole::Assistant, ContentBlock::Text("x".into()));
    let hot = InferenceConfiguration::builder().temperature(1.5).build();
    for (call, expected) in [
        (bedrock.client.converse().model_id("m"), "'messages'"),
        (bedrock.client.converse().model_id("m").messages(assistant_first), "must start with a user message"),
        (bedrock.converse("m", "x").messages(user("y")), "must alternate"),
        (bedrock.converse("m", "x").inference_config(max_tokens(0)), "inferenceConfig.maxTokens"),
        (bedrock.converse("m", "x").inference_config(max_tokens(101)), "model limit of 100"),
        (bedrock.converse("m", "x").inference_config(hot), "inferenceConfig.temperature"),
    ] {
        let (code, status, message) = refused(call.send().await);
        assert_eq!((code.as_str(), status), ("ValidationException", 400));
        assert!(message.contains(expected), "{message} does not name {expected}");
    }
    assert_eq!(bedrock.stats().await["models"]["m"]["failed"], 6);
}
