//! Details that the SDK hides: headers, statuses and protocols.

use serde_json::{Value, json};

use crate::{calls::messages_body, support::Bedrock};

fn hello() -> String {
    json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] }).to_string()
}

fn header(response: &http::Response<()>, name: &str) -> String {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn every_response_has_a_request_id_and_every_error_has_a_type() {
    let bedrock = Bedrock::start().await;
    let (answer, _) = bedrock.send("POST", "/model/m/converse", &hello()).await;
    assert_eq!(header(&answer, "x-amzn-requestid").len(), 36);
    for (method, path, body, status, code) in [
        ("POST", "/model/sim.throttled/converse", hello(), 429, "ThrottlingException"),
        ("POST", "/model/m/converse", "{".to_owned(), 400, "SerializationException"),
        ("POST", "/model/m/invoke", "{".to_owned(), 400, "ValidationException"),
        ("POST", "/model/m/dance", hello(), 404, "UnknownOperationException"),
        ("GET", "/model/m/converse", String::new(), 404, "UnknownOperationException"),
        ("GET", "/", String::new(), 404, "UnknownOperationException"),
    ] {
        let (response, body) = bedrock.send(method, path, &body).await;
        assert_eq!(response.status(), status, "{path}");
        let error_type = header(&response, "x-amzn-errortype");
        assert_eq!(error_type.split(':').next(), Some(code), "{path}");
        assert_eq!(header(&response, "x-amzn-requestid").len(), 36, "{path}");
        assert_eq!(header(&response, "retry-after"), "", "{path}");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body["message"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_supported() {
    let bedrock = Bedrock::start().await;
    let (response, body) = bedrock.send_with("POST", "/model/m/converse", &[], &hello(), true).await;
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["stopReason"], "end_turn");
}

#[tokio::test]
async fn invoke_model_has_its_usage_and_its_settings_in_headers() {
    let bedrock = Bedrock::start().await;
    let headers = [
        ("x-amzn-bedrock-service-tier", "priority"),
        ("x-amzn-bedrock-performanceconfig-latency", "optimized"),
        ("x-amzn-bedrock-request-metadata", r#"{"tenant":"t"}"#),
    ];
    let body = messages_body("[[output_tokens=9]]", 50).to_string();
    let (response, _) = bedrock.send_with("POST", "/model/a%3Ab/invoke", &headers, &body, false).await;
    assert_eq!(header(&response, "content-type"), "application/json");
    assert_eq!(header(&response, "x-amzn-bedrock-input-token-count"), "9");
    assert_eq!(header(&response, "x-amzn-bedrock-output-token-count"), "9");
    assert_eq!(header(&response, "x-amzn-bedrock-cache-read-input-token-count"), "0");
    assert!(!header(&response, "x-amzn-bedrock-invocation-latency").is_empty());
    assert_eq!(header(&response, "x-amzn-bedrock-service-tier"), "priority");
    assert_eq!(header(&response, "x-amzn-bedrock-performanceconfig-latency"), "optimized");
    let stats = bedrock.stats().await;
    assert_eq!((&stats["tenants"]["t"]["succeeded"], &stats["models"]["a:b"]["succeeded"]), (&1.into(), &1.into()));
}

#[tokio::test]
async fn an_invoke_stream_reports_the_content_type_of_its_chunks() {
    let bedrock = Bedrock::start().await;
    let body = messages_body("hello", 50).to_string();
    let headers = [("x-amzn-bedrock-service-tier", "flex")];
    let path = "/model/m/invoke-with-response-stream";
    let (response, _) = bedrock.send_with("POST", path, &headers, &body, false).await;
    assert_eq!(header(&response, "content-type"), "application/vnd.amazon.eventstream");
    assert_eq!(header(&response, "x-amzn-bedrock-content-type"), "application/json");
    assert_eq!(header(&response, "x-amzn-bedrock-service-tier"), "flex");
}

#[tokio::test]
async fn the_simulator_has_a_health_route() {
    let bedrock = Bedrock::start().await;
    assert_eq!(bedrock.control("GET", "health", "").await.0, 200);
    assert_eq!(bedrock.control("GET", "elsewhere", "").await.0, 404);
}
