//! Bodies that are sent to the model unconverted, their cost, and requests that need no model.

use aws_sdk_bedrockruntime::{
    primitives::Blob,
    types::{
        ConverseTokensRequest, CountTokensInput, GuardrailAction, GuardrailContentBlock, GuardrailContentSource,
        GuardrailTextBlock, ResponseStream,
    },
};
use serde_json::{Value, json};

use crate::support::{
    Deployment,
    answer::{Answer, Events, aws_client, aws_message, deployment, pool, three_chats, used, within},
};

const FIELDS: &str = "limits = { requests_per_minute = 100, tokens_per_minute = 100000, in_flight = 10 }";

/// Tokens that the simulator counts for the prompt `[[output_tokens=N]]` with one digit.
const PROMPT_TOKENS: u64 = 9;

const CLAUDE: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";

async fn claude() -> Deployment {
    Deployment::start(&deployment(FIELDS, &pool("only", "on_demand", CLAUDE, "burndown = 5"))).await
}

fn messages(output_tokens: u64) -> Value {
    json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 50,
        "messages": [{ "role": "user", "content": format!("[[output_tokens={output_tokens}]]") }] })
}

/// Returns the types of Anthropic's events.
fn types(events: &[(String, String)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn a_message_for_claude_is_sent_to_the_model_unconverted_whole_or_streamed() {
    let deployment = claude().await;
    let [_, (path, mut body), _] = three_chats(5, Some(50));
    let whole = deployment.ask(path, "t", &body).await;
    assert_eq!((whole.status, whole.header("x-spillway-pool")), (200, "only"));
    assert!(whole.json()["id"].as_str().is_some_and(|id| id.starts_with("msg_bdrk_")), "{}", whole.text());
    assert_eq!(whole.json()["usage"]["output_tokens"], 5);
    body["stream"] = json!(true);
    let response = within(deployment.post(path, "t", &body).send()).await.expect("a stream");
    let events = Events::of(response).rest().await;
    let (first, last) = (events.first().expect("events"), events.last().expect("events"));
    assert_eq!((first.0.as_str(), last.0.as_str()), ("message_start", "message_stop"), "{:?}", types(&events));
    assert_eq!(last.1, r#"{"type":"message_stop"}"#, "Bedrock's metrics are removed");
    let start: Value = serde_json::from_str(&first.1).expect("JSON");
    assert_eq!(start["message"]["usage"]["input_tokens"], PROMPT_TOKENS);
}

#[tokio::test]
async fn the_same_request_costs_the_same_in_every_api_whole_or_streamed() {
    let deployment = claude().await;
    let mut requests = three_chats(5, Some(50)).map(|(path, body)| (path, body)).to_vec();
    for (path, body) in three_chats(5, Some(50)) {
        let mut body = body;
        if path == "/model/m/converse" {
            requests.push(("/model/m/converse-stream", body));
        } else {
            body["stream"] = json!(true);
            requests.push((path, body));
        }
    }
    requests.push(("/model/m/invoke", messages(5)));
    requests.push(("/model/m/invoke-with-response-stream", messages(5)));
    let mut before = deployment.quota("t").await;
    for (path, body) in requests {
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let after = deployment.quota_when("t", |quota| used(quota, "in_flight") == 0).await;
        let spent = |name: &str| after["settled"][name].as_u64().zip(before["settled"][name].as_u64());
        let spent = |name: &str| spent(name).map(|(after, before)| after - before);
        let cost = (spent("input_tokens"), spent("output_tokens"), spent("cost_microusd"));
        assert_eq!(cost, (Some(PROMPT_TOKENS), Some(5), Some(PROMPT_TOKENS + 2 * 5)), "{path}");
        let minute = used(&after, "tokens_per_minute") - used(&before, "tokens_per_minute");
        assert_eq!(minute, PROMPT_TOKENS + 5 * 5, "{path}");
        before = after;
    }
}

#[tokio::test]
async fn an_aws_sdk_invokes_a_model_and_reads_its_usage() {
    let deployment = claude().await;
    let client = aws_client(&deployment);
    let body = Blob::new(messages(5).to_string());
    let invoked = within(client.invoke_model().model_id("m").body(body.clone()).send()).await.expect("an answer");
    let message: Value = serde_json::from_slice(invoked.body().as_ref()).expect("JSON");
    assert_eq!(message["usage"]["output_tokens"], 5);
    let stream = client.invoke_model_with_response_stream().model_id("m").body(body).send();
    let mut stream = within(stream).await.expect("a stream").body;
    let mut chunks = Vec::new();
    while let Some(ResponseStream::Chunk(chunk)) = within(stream.recv()).await.expect("a chunk") {
        let bytes = chunk.bytes.expect("bytes");
        chunks.push(serde_json::from_slice::<Value>(bytes.as_ref()).expect("JSON"));
    }
    assert_eq!(chunks[0]["type"], "message_start");
    let metrics = &chunks.last().expect("chunks")["amazon-bedrock-invocationMetrics"];
    assert_eq!((&metrics["inputTokenCount"], &metrics["outputTokenCount"]), (&json!(PROMPT_TOKENS), &json!(5)));
}

#[tokio::test]
async fn invoke_model_without_a_content_type_returns_the_models_headers() {
    let deployment = claude().await;
    let url = format!("{}/model/m/invoke", deployment.world.url);
    let request = deployment.http.post(url).bearer_auth(crate::support::key("t")).body(messages(5).to_string());
    let answer = Answer::to(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-amzn-bedrock-input-token-count"), PROMPT_TOKENS.to_string());
    assert_eq!(answer.header("x-amzn-bedrock-output-token-count"), "5");
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn a_body_without_an_output_limit_gets_the_default_and_the_answer_reports_it() {
    let fields = format!("{FIELDS}\ndefault_max_tokens = 30");
    let deployment = Deployment::start(&deployment(&fields, &pool("only", "on_demand", CLAUDE, ""))).await;
    let mut body = messages(40);
    body.as_object_mut().expect("an object").shift_remove("max_tokens");
    for path in ["/model/m/invoke", "/v1/messages"] {
        if path == "/v1/messages" {
            body["model"] = json!("m");
        }
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!((answer.status, answer.header("x-spillway-max-tokens")), (200, "30"), "{}", answer.text());
        assert_eq!(answer.json()["stop_reason"], "max_tokens");
    }
}

#[tokio::test]
async fn a_bad_body_gets_the_models_own_error_and_costs_nothing() {
    let deployment = claude().await;
    let invalid = json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 5, "messages": [] });
    let answer = deployment.ask("/model/m/invoke", "t", &invalid).await;
    assert_eq!((answer.status, answer.header("x-amzn-errortype")), (400, "ValidationException"));
    assert!(answer.text().contains("at least one message"), "{}", answer.text());
    let quota = deployment.quota("t").await;
    assert_eq!((used(&quota, "requests_per_minute"), used(&quota, "tokens_per_minute")), (0, 0));
}

#[tokio::test]
async fn tokens_are_counted_free_of_charge_in_both_dialects() {
    let deployment = claude().await;
    let [_, (_, body), _] = three_chats(5, None);
    let counted = deployment.ask("/v1/messages/count_tokens", "t", &body).await;
    assert_eq!((counted.status, counted.json()), (200, json!({ "input_tokens": PROMPT_TOKENS })));
    assert_eq!(counted.header("x-spillway-estimated"), "");
    let client = aws_client(&deployment);
    let request = ConverseTokensRequest::builder().messages(aws_message("[[output_tokens=5]]")).build();
    let counting = client.count_tokens().model_id("m").input(CountTokensInput::Converse(request));
    assert_eq!(within(counting.send()).await.expect("a count").input_tokens as u64, PROMPT_TOKENS);
    let quota = deployment.quota("t").await;
    assert_eq!(used(&quota, "requests_per_minute"), 0);
}

#[tokio::test]
async fn tokens_that_bedrock_cannot_count_are_estimated_and_the_answer_reports_it() {
    let arn = "arn:aws:bedrock:us-east-1:000000000000:provisioned-model/abcdefabcdef";
    let deployment = Deployment::start(&deployment(FIELDS, &pool("only", "provisioned", arn, ""))).await;
    let [_, (_, body), _] = three_chats(5, None);
    let counted = deployment.ask("/v1/messages/count_tokens", "t", &body).await;
    assert_eq!((counted.status, counted.header("x-spillway-estimated")), (200, "true"));
    assert!(counted.json()["input_tokens"].as_u64().is_some_and(|tokens| tokens >= PROMPT_TOKENS));
}

#[tokio::test]
async fn a_service_tier_selects_among_the_pools_that_have_it() {
    let pools = pool("usual", "on_demand", "sim.usual", "")
        + &pool("cheap", "on_demand", "sim.cheap", "service_tier = \"flex\"");
    let deployment = Deployment::start(&deployment(FIELDS, &pools)).await;
    let [(path, mut body), _, (converse_path, mut converse)] = three_chats(5, Some(50));
    assert_eq!(deployment.ask(path, "t", &body).await.header("x-spillway-pool"), "usual");
    body["service_tier"] = json!("flex");
    assert_eq!(deployment.ask(path, "t", &body).await.header("x-spillway-pool"), "cheap");
    converse["serviceTier"] = json!({ "type": "flex" });
    assert_eq!(deployment.ask(converse_path, "t", &converse).await.header("x-spillway-pool"), "cheap");
    body["service_tier"] = json!("priority");
    let refused = deployment.ask(path, "t", &body).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("service_tier")));
}

#[tokio::test]
async fn the_models_of_a_tenant_are_listed_as_inference_profiles() {
    let deployment = claude().await;
    let list = Answer::to(deployment.get("/inference-profiles?type=SYSTEM_DEFINED", "t")).await.json();
    assert_eq!(list["inferenceProfileSummaries"][0]["inferenceProfileId"], "m");
    let found = Answer::to(deployment.get(&format!("/inference-profiles/{CLAUDE}"), "t")).await;
    assert_eq!((found.status, &found.json()["status"]), (200, &json!("ACTIVE")));
    let unknown = Answer::to(deployment.get("/inference-profiles/nothing", "t")).await;
    assert_eq!((unknown.status, unknown.header("x-amzn-errortype")), (404, "ResourceNotFoundException"));
}

#[tokio::test]
async fn a_message_for_claude_becomes_a_job_and_keeps_its_beta_headers() {
    let fields = "limits = { requests_per_minute = 1 }";
    let deployment = Deployment::start(&deployment(fields, &pool("only", "on_demand", CLAUDE, ""))).await;
    let [_, (path, body), _] = three_chats(5, Some(50));
    assert_eq!(deployment.ask(path, "t", &body).await.status, 200);
    let request = deployment.post(path, "t", &body).header("prefer", "respond-async");
    let accepted = Answer::to(request.header("anthropic-beta", "context-1m-2025-08-07")).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let id = accepted.json()["id"].as_str().expect("an id").to_owned();
    let kept = deployment.stored(&id).await.call.headers;
    assert_eq!(kept.get("anthropic-beta"), Some("context-1m-2025-08-07"), "{kept:?}");
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    let result = deployment.result("t", &id).await;
    assert!(result.json()["id"].as_str().is_some_and(|id| id.starts_with("msg_bdrk_")), "{}", result.text());
}

#[tokio::test]
async fn texts_are_embedded_by_titan_and_by_cohere() {
    for (model_id, calls) in [("amazon.titan-embed-text-v2:0", 2), ("cohere.embed-multilingual-v3", 1)] {
        let deployment = Deployment::start(&deployment(FIELDS, &pool("only", "on_demand", model_id, ""))).await;
        let mut body = json!({ "model": "m", "input": ["one text", "another"] });
        let floats = deployment.ask("/v1/embeddings", "t", &body).await;
        assert_eq!(floats.status, 200, "{}", floats.text());
        let list = floats.json();
        let vector: Vec<f32> = serde_json::from_value(list["data"][1]["embedding"].clone()).expect("numbers");
        let tokens = list["usage"]["total_tokens"].as_u64().expect("a count");
        assert!(tokens > 0 && vector.len() >= 256, "{tokens} tokens, {} numbers", vector.len());
        body["encoding_format"] = json!("base64");
        let packed = deployment.ask("/v1/embeddings", "t", &body).await.json();
        let packed = packed["data"][1]["embedding"].as_str().expect("base64").to_owned();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, packed).expect("base64");
        let unpacked: Vec<f32> =
            bytes.chunks(4).map(|chunk| f32::from_le_bytes(chunk.try_into().expect("4 bytes"))).collect();
        assert_eq!(unpacked, vector);
        let total = deployment.simulator().await["total"].clone();
        assert_eq!(total["succeeded"].as_u64(), Some(2 * calls), "{total}");
        let settled = deployment.quota("t").await["settled"].clone();
        assert_eq!((&settled["input_tokens"], &settled["output_tokens"]), (&json!(2 * tokens), &json!(0)));
    }
}

#[tokio::test]
async fn applying_a_guardrail_counts_as_one_request_without_tokens() {
    let fields = format!("{FIELDS}\nguardrails = [{{ id = \"gr1\" }}]");
    let deployment = Deployment::start(&deployment(&fields, &pool("only", "on_demand", CLAUDE, ""))).await;
    let client = aws_client(&deployment);
    let apply = |text: &str| {
        let text = GuardrailTextBlock::builder().text(text).build().expect("a text");
        let content = GuardrailContentBlock::Text(text);
        let call = client.apply_guardrail().guardrail_identifier("gr1").guardrail_version("1");
        call.source(GuardrailContentSource::Input).content(content).send()
    };
    let passed = within(apply("harmless")).await.expect("an answer");
    assert_eq!(passed.action(), &GuardrailAction::None);
    let blocked = within(apply("sim-blocked")).await.expect("an answer");
    assert_eq!(blocked.action(), &GuardrailAction::GuardrailIntervened);
    let quota = deployment.quota("t").await;
    assert_eq!((used(&quota, "requests_per_minute"), used(&quota, "tokens_per_minute")), (2, 0));
    for (id, status, error) in [("not", 403, "AccessDeniedException"), ("gr1", 400, "ValidationException")] {
        let path = format!("/guardrail/{id}/version/1/apply");
        let refused = deployment.ask(&path, "t", &json!({ "source": "INPUT", "content": [] })).await;
        assert_eq!((refused.status, refused.header("x-amzn-errortype")), (status, error));
    }
    let quota = deployment.quota("t").await;
    assert_eq!((used(&quota, "requests_per_minute"), used(&quota, "in_flight")), (2, 0));
}

#[tokio::test]
async fn thinking_and_parallel_tool_calls_reach_the_caller() {
    let deployment = claude().await;
    let prompt = "[[thinking_tokens=4]] [[tool=weather]] [[tool=time]]";
    let schema = json!({ "type": "object", "properties": {} });
    let tools: Vec<Value> =
        ["weather", "time"].iter().map(|name| json!({ "name": name, "input_schema": schema })).collect();
    let body = json!({ "model": "m", "max_tokens": 4000, "tools": tools,
        "thinking": { "type": "enabled", "budget_tokens": 1024 }, "messages": [{ "role": "user", "content": prompt }] });
    let message = deployment.ask("/v1/messages", "t", &body).await.json();
    let kinds: Vec<&str> =
        message["content"].as_array().expect("content").iter().filter_map(|block| block["type"].as_str()).collect();
    assert_eq!(kinds, ["thinking", "tool_use", "tool_use"], "{message}");
    assert_eq!(message["usage"]["output_tokens_details"]["thinking_tokens"], 4);
    let functions: Vec<Value> = ["weather", "time"]
        .iter()
        .map(|name| json!({ "type": "function", "function": { "name": name, "parameters": schema } }))
        .collect();
    let mut body = json!({ "model": "m", "max_tokens": 4000, "tools": functions,
        "messages": [{ "role": "user", "content": "[[tool=weather]] [[tool=time]]" }] });
    let whole = deployment.ask("/v1/chat/completions", "t", &body).await.json();
    assert_eq!(whole["choices"][0]["message"]["tool_calls"].as_array().map(Vec::len), Some(2), "{whole}");
    body["stream"] = json!(true);
    let response = within(deployment.post("/v1/chat/completions", "t", &body).send()).await.expect("a stream");
    let events = Events::of(response).rest().await;
    let second = events.iter().any(|(_, data)| data.contains(r#""tool_calls":[{"index":1,"#));
    assert!(second, "no second tool call: {events:?}");
}
