//! InvokeModel in the formats of the providers, complete and streamed.

use aws_sdk_bedrockruntime::{
    primitives::Blob,
    types::{CountTokensInput, InvokeModelTokensRequest},
};
use serde_json::{Value, json};
use spillway_stand_ins::bedrock::tokens;

use crate::support::{Bedrock, chunks, invoke, refused};

const NOVA: &str = "eu.amazon.nova-lite-v1:0";
const LLAMA: &str = "us.meta.llama4-scout-17b-instruct-v1:0";
const CHAT: &str = "openai.gpt-oss-120b-1:0";

fn nova(prompt: &str) -> Value {
    json!({
        "schemaVersion": "messages-v1",
        "system": [{ "text": "abcd" }],
        "messages": [{ "role": "user", "content": [{ "text": prompt }] }],
        "inferenceConfig": { "maxTokens": 20, "topK": 3 },
    })
}

fn llama(prompt: &str) -> Value {
    json!({ "prompt": prompt, "max_gen_len": 20, "temperature": 0.5 })
}

fn chat(prompt: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": prompt }], "max_completion_tokens": 20 })
}

#[tokio::test]
async fn nova_responds_in_the_format_of_converse() {
    let bedrock = Bedrock::start().await;
    let answer = invoke(&bedrock, NOVA, &nova(&tokens::sized_prompt(100, 30))).await;
    assert_eq!(answer["stopReason"], "max_tokens");
    let text = answer["output"]["message"]["content"][0]["text"].as_str().unwrap();
    assert_eq!(tokens::text_tokens(text), 20);
    let usage = json!({
        "inputTokens": 101, "outputTokens": 20, "totalTokens": 121,
        "cacheReadInputTokenCount": 0, "cacheWriteInputTokenCount": 0,
    });
    assert_eq!(answer["usage"], usage);
}

#[tokio::test]
async fn nova_streams_the_events_of_converse_as_chunks() {
    let bedrock = Bedrock::start().await;
    let chunks = chunks(&bedrock, NOVA, &nova(&tokens::sized_prompt(100, 10))).await;
    let name = |chunk: &Value| {
        let mut names = chunk.as_object().unwrap().keys().cloned();
        names.find(|name| name != "amazon-bedrock-invocationMetrics").unwrap()
    };
    let names: Vec<_> = chunks.iter().map(name).collect();
    let delta = "contentBlockDelta";
    assert_eq!(names, ["messageStart", delta, delta, "contentBlockStop", "messageStop", "metadata"]);
    assert_eq!(chunks[4]["messageStop"]["stopReason"], "end_turn");
    assert_eq!(chunks[5]["metadata"]["usage"]["outputTokens"], 10);
}

#[tokio::test]
async fn llama_continues_its_prompt() {
    let bedrock = Bedrock::start().await;
    let prompt = "<|begin_of_text|>hello [[output_tokens=30]]";
    let answer = invoke(&bedrock, LLAMA, &llama(prompt)).await;
    assert_eq!(tokens::text_tokens(answer["generation"].as_str().unwrap()), 20);
    assert_eq!(answer["prompt_token_count"], tokens::text_tokens(prompt));
    assert_eq!((&answer["generation_token_count"], &answer["stop_reason"]), (&20.into(), &"length".into()));
    let chunks = chunks(&bedrock, LLAMA, &llama(prompt)).await;
    let streamed: String = chunks.iter().map(|chunk| chunk["generation"].as_str().unwrap()).collect();
    assert_eq!(streamed, answer["generation"].as_str().unwrap());
    assert_eq!(chunks[0]["prompt_token_count"], answer["prompt_token_count"]);
    assert_eq!((&chunks[1]["prompt_token_count"], &chunks[0]["stop_reason"]), (&Value::Null, &Value::Null));
    let last = chunks.last().unwrap();
    assert_eq!((&last["stop_reason"], &last["generation_token_count"]), (&"length".into(), &20.into()));
}

#[tokio::test]
async fn llama_without_a_maximum_reserves_only_its_default() {
    let bedrock = Bedrock::start_with(&format!("[[pools]]\nmodel_id = \"{LLAMA}\"\ntokens_per_minute = 600")).await;
    invoke(&bedrock, LLAMA, &json!({ "prompt": "hello" })).await;
}

#[tokio::test]
async fn chat_completions_are_answered_and_streamed() {
    let bedrock = Bedrock::start().await;
    let prompt = tokens::sized_prompt(100, 30);
    let answer = invoke(&bedrock, CHAT, &chat(&prompt)).await;
    assert_eq!((&answer["object"], &answer["model"]), (&"chat.completion".into(), &CHAT.into()));
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120 }));
    let chunks = chunks(&bedrock, CHAT, &chat(&prompt)).await;
    let delta = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    let streamed: String = chunks.iter().map(delta).collect();
    assert_eq!(streamed, choice["message"]["content"].as_str().unwrap());
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"]));
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"][0]["finish_reason"], &last["usage"]), (&"length".into(), &answer["usage"]));
}

#[tokio::test]
async fn all_choices_are_returned_and_billed() {
    let bedrock = Bedrock::start().await;
    let mut body = chat(&tokens::sized_prompt(100, 30));
    body["n"] = json!(3);
    let answer = invoke(&bedrock, CHAT, &body).await;
    let indexes: Vec<_> = answer["choices"].as_array().unwrap().iter().map(|choice| &choice["index"]).collect();
    assert_eq!((indexes, &answer["usage"]["completion_tokens"]), (vec![&json!(0), &json!(1), &json!(2)], &json!(60)));
    let chunks = chunks(&bedrock, CHAT, &body).await;
    for choice in answer["choices"].as_array().unwrap() {
        let deltas = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|delta| delta["index"] == choice["index"]);
        let text: String = deltas.filter_map(|delta| delta["delta"]["content"].as_str()).collect();
        assert_eq!(text, choice["message"]["content"].as_str().unwrap());
    }
    assert_eq!(chunks.last().unwrap()["usage"], answer["usage"]);
    body["n"] = json!(1);
    body["best_of"] = json!(4);
    let best = invoke(&bedrock, CHAT, &body).await;
    let choices = best["choices"].as_array().unwrap().len();
    assert_eq!((choices, &best["usage"]["completion_tokens"]), (1, &json!(80)));
}

#[tokio::test]
async fn chat_completions_call_tools_and_then_answer_with_text() {
    let bedrock = Bedrock::start().await;
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name, "parameters": {} } });
    let question = json!({ "role": "user", "content": r#"[[tool=weather {"place":"Oslo"}]] [[tool=time]]"# });
    let mut body = json!({ "messages": [question], "tools": [tool("weather"), tool("time")] });
    let answer = invoke(&bedrock, CHAT, &body).await;
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&"tool_calls".into(), &Value::Null));
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    let functions: Vec<_> =
        calls.iter().map(|call| (&call["function"]["name"], &call["function"]["arguments"])).collect();
    assert_eq!(functions, [(&json!("weather"), &json!(r#"{"place":"Oslo"}"#)), (&json!("time"), &json!("{}"))]);

    let streamed = chunks(&bedrock, CHAT, &body).await;
    let deltas =
        streamed.iter().flat_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten());
    let first_call = deltas.filter(|delta| delta["index"] == 0);
    let arguments: String = first_call.map(|delta| delta["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(arguments, r#"{"place":"Oslo"}"#);

    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(choice["message"].clone());
    messages.extend(calls.iter().map(|call| json!({ "role": "tool", "tool_call_id": call["id"], "content": "fine" })));
    let answer = invoke(&bedrock, CHAT, &body).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn the_last_chunk_carries_the_metrics_in_every_format() {
    let bedrock = Bedrock::start().await;
    let prompt = tokens::sized_prompt(60, 10);
    let counted = tokens::prompt_tokens(&prompt);
    let text = tokens::text_tokens(&prompt);
    for (model_id, body, input_tokens) in
        [(NOVA, nova(&prompt), counted + 1), (LLAMA, llama(&prompt), text), (CHAT, chat(&prompt), counted)]
    {
        let chunks = chunks(&bedrock, model_id, &body).await;
        let (last, previous) = chunks.split_last().unwrap();
        let metrics = &last["amazon-bedrock-invocationMetrics"];
        assert_eq!((&metrics["inputTokenCount"], &metrics["outputTokenCount"]), (&input_tokens.into(), &10.into()));
        assert!(previous.iter().all(|chunk| chunk.get("amazon-bedrock-invocationMetrics").is_none()), "{model_id}");
    }
}

#[tokio::test]
async fn settings_set_the_format_of_a_provisioned_throughput() {
    let arn = "arn:aws:bedrock:eu-west-1:000000000000:provisioned-model/abcdefghijkl";
    let bedrock = Bedrock::start_with(&format!("[[pools]]\nmodel_id = \"{arn}\"\nbody = \"llama\"")).await;
    assert!(invoke(&bedrock, arn, &llama("hello")).await["generation"].is_string());
}

#[tokio::test]
async fn a_body_of_another_format_is_refused_with_the_message_of_bedrock() {
    let bedrock = Bedrock::start().await;
    for (model_id, body, expected) in [
        (NOVA, json!({ "prompt": "x" }), "#: required key [messages] not found#: extraneous key [prompt]"),
        (NOVA, json!({ "messages": [] }), "'messages'"),
        (NOVA, json!({ "messages": "x" }), "#/messages"),
        (LLAMA, json!({ "messages": [] }), "#: required key [prompt] not found#: extraneous key [messages]"),
        (LLAMA, json!({ "prompt": "x", "max_gen_len": 0 }), "#/max_gen_len"),
        (LLAMA, json!({ "prompt": "x", "temperature": 1.5 }), "#/temperature"),
        (CHAT, json!({ "prompt": "x" }), "#: required key [messages] not found"),
        (CHAT, json!({ "messages": [{ "role": "robot", "content": "x" }] }), "#/messages/0/role"),
        (CHAT, json!([]), "Malformed input request"),
        ("ai21.jamba-1-5-large-v1:0", chat("x"), "The provided model identifier is invalid"),
    ] {
        let body = Blob::new(body.to_string());
        let (code, status, message) = refused(bedrock.client.invoke_model().model_id(model_id).body(body).send().await);
        assert_eq!((code.as_str(), status), ("ValidationException", 400));
        assert!(message.contains(expected), "{message} does not say {expected}");
    }
}

#[tokio::test]
async fn the_tokens_of_every_format_can_be_counted() {
    let bedrock = Bedrock::start().await;
    let prompt = tokens::sized_prompt(777, 1);
    for (model_id, body, expected) in [
        ("amazon.nova-lite-v1:0", nova(&prompt), 778),
        ("meta.llama3-3-70b-instruct-v1:0", llama(&prompt), 773),
        (CHAT, chat(&prompt), 777),
    ] {
        let body = Blob::new(body.to_string());
        let input = CountTokensInput::InvokeModel(InvokeModelTokensRequest::builder().body(body).build().unwrap());
        let counted = bedrock.client.count_tokens().model_id(model_id).input(input).send().await.unwrap();
        assert_eq!(counted.input_tokens(), expected, "{model_id}");
    }
}

#[tokio::test]
async fn inference_profiles_and_uncountable_models_do_not_count_tokens() {
    let bedrock = Bedrock::start_with(
        "[[pools]]\nmodel_id = \"m\"\nuncountable = true\n[[pools]]\nmodel_id = \"eu.anthropic.claude\"",
    )
    .await;
    for model_id in ["m", "eu.anthropic.claude", "sim.uncountable"] {
        let body = Blob::new(crate::calls::messages_body("x", 1).to_string());
        let input = CountTokensInput::InvokeModel(InvokeModelTokensRequest::builder().body(body).build().unwrap());
        let (code, status, message) =
            refused(bedrock.client.count_tokens().model_id(model_id).input(input).send().await);
        assert_eq!((code.as_str(), status), ("ValidationException", 400), "{model_id}");
        assert_eq!(message, "The provided model doesn't support counting tokens.");
    }
}
