//! Streams that wait: keep-alives until they begin, events as they come, and errors in the format
//! of the dialect.

use serde_json::{Value, json};

use super::{WAITS, all_chats};
use crate::support::{
    Deployment,
    answer::{Answer, Events},
    chat,
    jobs::{DEAD_LETTER_QUEUE, JOB_QUEUE, ONE_REQUEST, two_tenants},
};

const CHAT: &str = "/v1/chat/completions";

/// The keep-alives of the dialects.
const KEEP_ALIVES: [&str; 3] = [": keep-alive", "event: ping", "keepAlive"];

fn has_keep_alive(text: &str) -> bool {
    KEEP_ALIVES.iter().any(|keep_alive| text.contains(keep_alive))
}

/// Returns all streaming chat routes with bodies for `model`.
fn all_streams(model: &str, output_tokens: u64) -> Vec<(String, Value)> {
    let streams = all_chats(output_tokens).into_iter().filter(|(.., is_stream)| *is_stream);
    let for_model = |(path, mut body, _): (String, Value, bool)| {
        if body.get("model").is_some() {
            body["model"] = json!(model);
        }
        (path.replace("/m/", &format!("/{model}/")), body)
    };
    streams.map(for_model).collect()
}

#[tokio::test]
async fn a_waiting_stream_sends_keep_alives_until_it_begins() {
    let deployment = Deployment::with_tenants(WAITS).await;
    for (path, body) in all_streams("m", 12) {
        let _running = deployment.occupy("t", ONE_REQUEST, 60_000).await;
        let answer = deployment.very_quickly(Answer::to(deployment.post(&path, "t", &body))).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(has_keep_alive(&answer.text()), "{path}: {}", answer.text());
        deployment.world.advance(60_000);
    }
    assert_eq!(deployment.simulator().await["total"]["requests"], 4);
    assert_eq!(deployment.quota("t").await["settled"]["output_tokens"], 4 * 12);
}

#[tokio::test]
async fn a_stream_waits_no_longer_than_its_client_would() {
    let deployment = Deployment::with_tenants(WAITS).await;
    deployment.set_model_faults(&[json!({ "throttle": true })]).await;
    for (path, body) in all_streams("m", 5) {
        let before = deployment.world.app.clock.now();
        let request = deployment.post(&path, "t", &body).header("x-stainless-timeout", "40");
        let answer = deployment.very_quickly(Answer::to(request)).await;
        let waited_ms = (deployment.world.app.clock.now() - before).as_ms();
        assert!((36_000..90_000).contains(&waited_ms), "{path}: {waited_ms} ms");
        let has_error = answer.text().contains("error") || answer.text().contains("throttlingException");
        assert!(has_error, "{path}: {}", answer.text());
    }
    assert_eq!(deployment.quota("t").await["settled"]["requests"], 0, "nothing is charged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_stream_sends_its_events_as_they_come() {
    let simulator = "[simulator]\ntime_to_first_token_ms = 500\ntokens_per_second = 20";
    let deployment = Deployment::start(&format!("{}\n{simulator}", two_tenants(WAITS))).await;
    deployment.advance_to_noon();
    // The model's pool is full for a moment.
    deployment.set_model_faults(&[json!({ "throttle": true, "times": 1 })]).await;
    let mut body = chat(200, 200);
    body["stream"] = json!(true);
    let response = deployment.quickly(deployment.post(CHAT, "t", &body).send()).await.expect("an answer");
    assert_eq!(response.headers()["x-spillway-pool"], "on-demand", "the stream began before its status was sent");
    let mut events = Events::of(response);
    let first = deployment.quickly(events.next()).await.expect("an event");
    assert!(first.1.contains("chat.completion.chunk"), "{first:?}");
    assert_eq!(deployment.jobs_of("t").await[0]["status"], "running", "the job has not ended");
    let rest = deployment.quickly(events.rest()).await;
    assert_eq!(rest.last().map(|(_, data)| data.as_str()), Some("[DONE]"));
}

#[tokio::test]
async fn a_stream_that_fails_after_its_head_ends_with_the_dialects_error() {
    let deployment = Deployment::with_tenants(WAITS).await;
    for (path, body) in all_streams("refuses", 5) {
        let _running = deployment.occupy("t", ONE_REQUEST, 60_000).await;
        let answer = deployment.very_quickly(Answer::to(deployment.post(&path, "t", &body))).await;
        let text = answer.text();
        assert!(answer.status == 200 && has_keep_alive(&text), "{path}: {text}");
        let has_error = match path.as_str() {
            "/v1/messages" => text.contains("event: error") && text.contains("invalid_request_error"),
            "/v1/responses" => text.contains("event: error") && text.contains("event: response.failed"),
            "/v1/chat/completions" => text.contains(r#"data: {"error":{"#),
            _ => text.contains(":exception-type") && text.contains("validationException"),
        };
        assert!(has_error && text.contains("Bedrock: "), "{path}: {text}");
        deployment.world.advance(60_000);
    }
    assert_eq!((deployment.messages_in(JOB_QUEUE).await, deployment.messages_in(DEAD_LETTER_QUEUE).await), (0, 0));
}

#[tokio::test]
async fn a_stream_that_fails_before_its_head_has_the_status_of_its_error() {
    let deployment = Deployment::with_tenants(WAITS).await;
    let invalid = json!({ "error": "ValidationException" });
    for (path, body) in all_streams("m", 5) {
        deployment.set_model_faults(std::slice::from_ref(&invalid)).await;
        let direct = deployment.ask(&path, "t", &body).await;
        // The model's pool is full for a moment.
        deployment.set_model_faults(&[json!({ "throttle": true, "times": 1 }), invalid.clone()]).await;
        let waited = deployment.quickly(Answer::to(deployment.post(&path, "t", &body))).await;
        assert_eq!((waited.status, direct.status), (400, 400), "{path}: {}", waited.text());
    }
    assert_eq!(deployment.jobs_of("t").await.len(), 4);
}

#[tokio::test]
async fn a_broken_stream_is_not_restarted_for_its_caller() {
    let deployment = Deployment::with_tenants(WAITS).await;
    for (path, body) in all_streams("breaks", 50) {
        let _running = deployment.occupy("t", ONE_REQUEST, 60_000).await;
        let answer = deployment.very_quickly(Answer::to(deployment.post(&path, "t", &body))).await;
        let text = answer.text();
        assert!(text.contains("error") || text.contains("exception"), "{path}: {text}");
        assert!(!text.contains("[DONE]") && !text.contains("message_stop") && !text.contains("response.completed"));
        if path == "/v1/responses" {
            let numbers: Vec<u64> = text
                .lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .map(|data| {
                    serde_json::from_str::<Value>(data).expect("JSON")["sequence_number"].as_u64().expect("a number")
                })
                .collect();
            assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "{text}");
        }
        deployment.world.advance(60_000);
    }
    let calls = deployment.simulator().await["tenants"]["t"]["requests"].clone();
    assert_eq!(calls, 4, "each stream is called once");
    assert_eq!(deployment.quota("t").await["limits"][0]["used"], 0);
}

#[tokio::test]
async fn a_stream_waits_for_the_lifetime_of_a_job_and_is_then_refused() {
    let deployment = Deployment::with_tenants(&format!("{WAITS}\njob_ttl_s = 100")).await;
    deployment.set_model_faults(&[json!({ "throttle": true })]).await;
    let mut body = chat(5, 5);
    body["stream"] = json!(true);
    let answer = deployment.very_quickly(Answer::to(deployment.post(CHAT, "t", &body))).await;
    let text = answer.text();
    assert!(answer.status == 200 && text.matches(": keep-alive").count() >= 4, "{text}");
    assert!(text.contains("rate_limit_exceeded") && !text.contains("[DONE]"), "{text}");
    let status = deployment.jobs_of("t").await[0]["status"].clone();
    assert!(status == "cancelled" || status == "expired", "{status}");
}
