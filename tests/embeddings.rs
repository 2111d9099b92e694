//! Embeddings: a request makes several calls of Bedrock, and each of them counts.

use serde_json::{Value, json};

use crate::support::{
    Deployment,
    answer::{deployment, pool, used},
};

const PATH: &str = "/v1/embeddings";
const TITAN: &str = "amazon.titan-embed-text-v2:0";

async fn start(limits: &str, model_id: &str, pool_fields: &str) -> Deployment {
    let fields = format!("limits = {{ {limits} }}");
    let deployment = Deployment::start(&deployment(&fields, &pool("only", "on_demand", model_id, pool_fields))).await;
    deployment.advance_to_noon();
    deployment
}

fn texts(count: usize) -> Value {
    let texts: Vec<String> = (0..count).map(|number| format!("text number {number}")).collect();
    json!({ "model": "m", "input": texts })
}

#[tokio::test]
async fn each_call_of_an_embeddings_request_counts_as_a_request() {
    for (model_id, count, calls) in [(TITAN, 5, 5), ("cohere.embed-multilingual-v3", 200, 3)] {
        let deployment = start("requests_per_minute = 6, in_flight = 1", model_id, "").await;
        let answer = deployment.ask(PATH, "t", &texts(count)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["data"].as_array().map(Vec::len), Some(count));
        let total = deployment.simulator().await["total"].clone();
        assert_eq!(total["requests"], json!(calls), "{total}");
        let quota = deployment.quota_when("t", |quota| used(quota, "in_flight") == 0).await;
        assert_eq!(used(&quota, "requests_per_minute"), calls);
        let refused = deployment.ask(PATH, "t", &texts(count)).await;
        let is_refused = refused.status == 429 && refused.header("x-spillway-limit") == "requests_per_minute";
        assert!(is_refused == (2 * calls > 6), "{}: {}", refused.status, refused.text());
    }
}

#[tokio::test]
async fn a_request_of_more_calls_than_a_whole_limit_is_refused_by_name() {
    let tenant = start("requests_per_minute = 6", TITAN, "").await.ask(PATH, "t", &texts(2048)).await;
    assert_eq!(tenant.status, 400, "{}", tenant.text());
    assert_eq!(tenant.json()["error"]["param"], "input");
    let message = tenant.json()["error"]["message"].as_str().expect("a message").to_owned();
    let expected = "This request can never be admitted: 2048 calls of the model, which count as requests, exceed the \
                    whole limit requests_per_minute of 6 of tenant t. Send fewer texts.";
    assert_eq!(message, expected);
    let deployment = start("requests_per_minute = 100", TITAN, "limits = { requests_per_minute = 6 }").await;
    let pool = deployment.ask(PATH, "t", &texts(7)).await;
    assert_eq!((pool.status, &pool.json()["error"]["param"]), (400, &json!("input")), "{}", pool.text());
    assert!(pool.text().contains("It takes 7 calls. Send fewer texts."), "{}", pool.text());
    assert_eq!(deployment.simulator().await["total"]["requests"], json!(0));
}

#[tokio::test]
async fn a_throttled_text_is_sent_again_alone_so_that_no_paid_vector_is_lost() {
    let deployment = start("requests_per_minute = 100", TITAN, "").await;
    deployment.set_model_faults(&[json!({ "throttle": 0.25 })]).await;
    let answer = deployment.ask(PATH, "t", &texts(20)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["data"].as_array().map(Vec::len), Some(20));
    let total = deployment.simulator().await["total"].clone();
    assert_eq!(total["succeeded"], json!(20), "each text is paid once: {total}");
    assert!(total["throttled"].as_u64().is_some_and(|throttled| throttled >= 4), "{total}");
    assert!(total["peak_in_flight"].as_u64().is_some_and(|peak| peak <= 8), "{total}");
    let settled = deployment.quota_when("t", |quota| quota["settled"]["requests"] == 1).await;
    assert_eq!(settled["settled"]["input_tokens"], answer.json()["usage"]["total_tokens"]);
}

#[tokio::test]
async fn a_quota_of_the_day_ends_a_request_at_once() {
    let deployment = start("requests_per_minute = 100", TITAN, "").await;
    deployment.set_model_faults(&[json!({ "daily_quota": true, "share": 0.25 })]).await;
    let answer = deployment.ask(PATH, "t", &texts(20)).await;
    assert_eq!(answer.status, 429, "{}", answer.text());
}
