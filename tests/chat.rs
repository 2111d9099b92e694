//! A chat in each dialect: format, usage and headers, keys, paths and protocols.

use serde_json::json;

use crate::support::{
    Deployment,
    answer::{Answer, aws_client, aws_message, deployment, pool, three_chats, used},
    chat, key, one_tenant,
};

const LIMITS: &str = "{ requests_per_minute = 100, tokens_per_minute = 10000, in_flight = 5 }";

/// Tokens that the simulator counts for the prompt `[[output_tokens=N]]` with one digit: a message
/// of 19 bytes.
const PROMPT_TOKENS: u64 = 9;

#[tokio::test]
async fn each_dialect_answers_in_its_own_format() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let [openai, anthropic, bedrock] = three_chats(5, Some(8));

    let answer = deployment.ask(openai.0, "t", &openai.1).await;
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("m")));
    assert_eq!(body["choices"].as_array().map(Vec::len), Some(1));
    let choice = &body["choices"][0];
    assert_eq!((&choice["message"]["role"], &choice["finish_reason"]), (&json!("assistant"), &json!("stop")));
    assert!(choice["message"]["content"].as_str().is_some_and(|text| text.starts_with("You said:")), "{body}");
    let (prompt, total) = (PROMPT_TOKENS, PROMPT_TOKENS + 5);
    assert_eq!(body["usage"]["prompt_tokens"], prompt);
    assert_eq!((&body["usage"]["completion_tokens"], &body["usage"]["total_tokens"]), (&json!(5), &json!(total)));
    assert_eq!(body["id"], format!("chatcmpl-{}", answer.header("x-request-id")));

    let answer = deployment.ask(anthropic.0, "t", &anthropic.1).await;
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!((&body["type"], &body["role"], &body["model"]), (&json!("message"), &json!("assistant"), &json!("m")));
    assert_eq!((&body["content"][0]["type"], &body["stop_reason"]), (&json!("text"), &json!("end_turn")));
    assert_eq!((&body["usage"]["input_tokens"], &body["usage"]["output_tokens"]), (&json!(prompt), &json!(5)));
    assert_eq!(body["id"], format!("msg_{}", answer.header("request-id")));

    let answer = deployment.ask(bedrock.0, "t", &bedrock.1).await;
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!((&body["output"]["message"]["role"], &body["stopReason"]), (&json!("assistant"), &json!("end_turn")));
    assert!(body["output"]["message"]["content"][0]["text"].is_string(), "{body}");
    assert_eq!((&body["usage"]["inputTokens"], &body["usage"]["totalTokens"]), (&json!(prompt), &json!(total)));
    assert!(!answer.header("x-amzn-requestid").is_empty());
}

#[tokio::test]
async fn the_settled_usage_equals_the_usage_counted_by_the_simulator() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    for (path, body) in three_chats(5, Some(800)) {
        assert_eq!(deployment.ask(path, "t", &body).await.status, 200);
    }
    let quota = deployment.quota("t").await;
    let total = &deployment.simulator().await["total"];
    let settled = json!({ "requests": 3, "input_tokens": 27, "output_tokens": 15, "cost_microusd": 27 + 2 * 15 });
    assert_eq!(quota["settled"], settled);
    assert_eq!((&total["input_tokens"], &total["output_tokens"]), (&json!(27), &json!(15)));
    let expected = (3, total["quota_tokens"].as_u64().expect("a count"), 0);
    let limits = (used(&quota, "requests_per_minute"), used(&quota, "tokens_per_minute"), used(&quota, "in_flight"));
    assert_eq!(limits, expected);
}

#[tokio::test]
async fn every_answer_reports_its_pool_its_request_id_and_the_state_of_the_limits() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    for (path, body) in three_chats(5, Some(8)) {
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-spillway-pool"), "on-demand");
        assert_eq!(answer.header("x-spillway-max-tokens"), "", "{path}: the request sets the limit");
        assert_eq!(answer.header("x-request-id").len(), 36, "{path}");
        let policy = answer.header("ratelimit-policy");
        assert!(policy.contains(r#""requests_per_minute";q=100;w=60"#), "{policy}");
        assert!(policy.contains(r#""in_flight";q=5"#), "{policy}");
        assert!(answer.header("ratelimit").contains(r#""in_flight";r=4;"#), "{}", answer.header("ratelimit"));
        let (limit, remaining, count) = match path {
            "/v1/chat/completions" => ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-requests", "99"),
            "/v1/messages" => ("anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-requests-remaining", "98"),
            _ => continue,
        };
        assert_eq!((answer.header(limit), answer.header(remaining)), ("10000", count));
    }
}

#[tokio::test]
async fn an_unset_output_limit_becomes_the_tenants_default_and_the_answer_reports_it() {
    let settings = deployment("default_max_tokens = 7", &pool("on-demand", "on_demand", "sim.model", ""));
    let deployment = Deployment::start(&settings).await;
    for (path, body) in three_chats(100, None) {
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-spillway-max-tokens"), "7", "{path}");
    }
    assert_eq!(deployment.quota("t").await["settled"]["output_tokens"], 21);
}

#[tokio::test]
async fn a_default_output_limit_shrinks_to_fit_a_small_token_limit() {
    for (path, body) in three_chats(100, None) {
        let deployment = Deployment::start(&one_tenant("{ tokens_per_minute = 150 }")).await;
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let max_tokens: u64 = answer.header("x-spillway-max-tokens").parse().expect("a number");
        assert!((1..100).contains(&max_tokens), "{path}: {max_tokens}");
        assert!(answer.header("ratelimit").contains(r#""tokens_per_minute";r=0;"#), "{}", answer.header("ratelimit"));
        assert_eq!(deployment.quota("t").await["settled"]["output_tokens"], max_tokens);
    }
}

#[tokio::test]
async fn a_key_is_accepted_in_each_of_three_headers() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let url = format!("{}/v1/chat/completions", deployment.world.url);
    let signature = "AWS4-HMAC-SHA256 Credential=spillway/20261123/us-east-1/bedrock/aws4_request, Signature=00";
    let all_headers: [&[(&str, &str)]; 4] = [
        &[("authorization", &format!("Bearer {}", key("t")))],
        &[("authorization", &format!("bearer  {}", key("t")))],
        &[("x-api-key", &key("t"))],
        &[("authorization", signature), ("x-amz-security-token", &key("t"))],
    ];
    for headers in all_headers {
        let request =
            headers.iter().fold(deployment.http.post(&url), |request, (name, value)| request.header(*name, *value));
        let answer = Answer::to(request.json(&chat(5, 8))).await;
        assert_eq!(answer.status, 200, "{:?}: {}", headers[0].0, answer.text());
    }
}

#[tokio::test]
async fn vendor_prefixes_lead_to_the_same_routes() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let [(_, openai), (_, anthropic), _] = three_chats(5, Some(8));
    let answer = deployment.ask("/openai/v1/chat/completions", "t", &openai).await;
    assert_eq!(answer.json()["object"], "chat.completion", "{}", answer.text());
    for path in ["/anthropic/v1/messages", "/v1/messages?beta=true", "/v1/messages/"] {
        let answer = deployment.ask(path, "t", &anthropic).await;
        assert_eq!(answer.json()["type"], "message", "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_header_of_one_vendor_does_not_change_the_dialect_of_anothers_path() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let request = deployment.post("/v1/chat/completions", "t", &chat(5, 8)).header("anthropic-version", "2023-06-01");
    let answer = Answer::to(request).await;
    assert_eq!(answer.json()["object"], "chat.completion", "{}", answer.text());
}

#[tokio::test]
async fn a_bedrock_model_id_is_accepted_in_every_encoding() {
    const ARN: &str = "arn:aws:bedrock:us-east-1:000000000000:provisioned-model/abc0";
    const ID: &str = "anthropic.claude-haiku-4-5-20251001-v1:0";
    let pools = pool("provisioned", "provisioned", ARN, "") + &pool("on-demand", "on_demand", ID, "");
    let deployment = Deployment::start(&deployment("", &pools)).await;
    let [.., (_, body)] = three_chats(5, Some(8));
    let ids = [
        "m".to_owned(),
        ID.to_owned(),
        ID.replace(':', "%3A"),
        ID.replace(':', "%3a"),
        ARN.to_owned(),
        ARN.replace('/', "%2F"),
        ARN.replace(':', "%3A").replace('/', "%2F"),
    ];
    for id in &ids {
        let answer = deployment.ask(&format!("/model/{id}/converse"), "t", &body).await;
        assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, "provisioned"), "{id}: {}", answer.text());
    }
    assert_eq!(deployment.simulator().await["models"][ARN]["succeeded"], ids.len());
}

#[tokio::test]
async fn the_aws_sdk_reads_answers_and_streams() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let client = aws_client(&deployment);
    let prompt = || aws_message("[[output_tokens=5]] Hello");
    let answer = client.converse().model_id("m").messages(prompt()).send().await.expect("an answer");
    let message = answer.output().and_then(|output| output.as_message().ok()).expect("a message");
    assert!(message.content()[0].as_text().expect("text").starts_with("You said: Hello"));
    assert_eq!(answer.usage().expect("usage").output_tokens(), 5);

    let mut stream = client.converse_stream().model_id("m").messages(prompt()).send().await.expect("a stream").stream;
    let (mut text, mut output_tokens) = (String::new(), None);
    while let Some(event) = stream.recv().await.expect("an event") {
        if let Ok(delta) = event.as_content_block_delta() {
            text.push_str(delta.delta().and_then(|delta| delta.as_text().ok()).map_or("", String::as_str));
        }
        if let Ok(metadata) = event.as_metadata() {
            output_tokens = metadata.usage().map(|usage| usage.output_tokens());
        }
    }
    assert!(text.starts_with("You said: Hello"), "{text}");
    assert_eq!(output_tokens, Some(5));
}

#[tokio::test]
async fn the_aws_sdk_reads_refusals_as_its_own_exceptions() {
    let deployment = Deployment::start(&one_tenant("{ requests_per_minute = 1 }")).await;
    let client = aws_client(&deployment);
    let converse = |model: &str| client.converse().model_id(model).messages(aws_message("[[output_tokens=5]]")).send();
    let error = converse("other").await.expect_err("no such model").into_service_error();
    assert!(error.is_resource_not_found_exception(), "{error:?}");
    converse("m").await.expect("room for one request");
    let error = converse("m").await.expect_err("no room for two requests").into_service_error();
    assert!(error.is_throttling_exception(), "{error:?}");
}

#[tokio::test]
async fn one_port_serves_http_1_and_http_2() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let url = format!("{}/v1/chat/completions", deployment.world.url);
    let http_2 = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    for (client, version) in [(&deployment.http, reqwest::Version::HTTP_11), (&http_2, reqwest::Version::HTTP_2)] {
        let response = client.post(&url).bearer_auth(key("t")).json(&chat(5, 8)).send().await.expect("an answer");
        assert_eq!(response.version(), version);
        assert_eq!(Answer::read(response).await.status, 200);
    }
}

#[tokio::test]
async fn a_tool_call_is_returned_in_the_format_of_its_dialect() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let prompt = r#"[[tool=weather {"city":"Oslo"}]]"#;
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    let messages = json!([{ "role": "user", "content": prompt }]);
    let body = json!({ "model": "m", "messages": messages, "tools": [
        { "type": "function", "function": { "name": "weather", "parameters": schema } },
    ] });
    let answer = deployment.ask("/v1/chat/completions", "t", &body).await.json();
    let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call, &json!({ "name": "weather", "arguments": r#"{"city":"Oslo"}"# }), "{answer}");

    let body = json!({ "model": "m", "messages": messages, "tools": [{ "name": "weather", "input_schema": schema }] });
    let answer = deployment.ask("/v1/messages", "t", &body).await.json();
    assert_eq!(answer["stop_reason"], "tool_use", "{answer}");
    assert_eq!(answer["content"][0]["input"], json!({ "city": "Oslo" }));

    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": prompt }] }], "toolConfig": { "tools": [
        { "toolSpec": { "name": "weather", "inputSchema": { "json": schema } } },
    ] } });
    let answer = deployment.ask("/model/m/converse", "t", &body).await.json();
    assert_eq!(answer["output"]["message"]["content"][0]["toolUse"]["input"], json!({ "city": "Oslo" }), "{answer}");
}

#[tokio::test]
async fn ignored_parameters_are_reported() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let mut body = chat(5, 8);
    body["seed"] = json!(1);
    body["not_invented_yet"] = json!(true);
    let answer = deployment.ask("/v1/chat/completions", "t", &body).await;
    assert_eq!((answer.status, answer.header("x-spillway-ignored")), (200, "seed, not_invented_yet"));
    assert_eq!(deployment.ask("/v1/chat/completions", "t", &chat(5, 8)).await.header("x-spillway-ignored"), "");
}

#[tokio::test]
async fn a_caller_cannot_name_another_tenant_in_the_invocation_log() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let [.., (path, mut body)] = three_chats(5, Some(8));
    body["requestMetadata"] = json!({ "tenant": "another-tenant", "team": "blue" });
    assert_eq!(deployment.ask(path, "t", &body).await.status, 200);
    let tenants = deployment.simulator().await["tenants"].clone();
    assert_eq!(tenants.as_object().map(|tenants| tenants.keys().cloned().collect()), Some(vec!["t".to_owned()]));
}

#[tokio::test]
async fn liveness_routes_need_no_key() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let answer = Answer::to(deployment.http.get(format!("{}/healthz", deployment.world.url))).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "status": "ok" })));
    assert_eq!(Answer::to(deployment.http.head(format!("{}/", deployment.world.url))).await.status, 200);
}
