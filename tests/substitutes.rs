//! Substitutes: pools of another model, which answer if the model itself cannot.

use serde_json::{Value, json};
use spillway::telemetry::Telemetry;

use crate::support::{
    Deployment,
    answer::{Answer, deployment, pool, three_chats},
    chat,
    recorded::Recorded,
};

const PATH: &str = "/v1/chat/completions";

const SONNET: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

const HAIKU: &str = "eu.anthropic.claude-haiku-4-5-20251001-v1:0";

const NOVA: &str = "eu.amazon.nova-lite-v1:0";

/// Settings of the model `m`, which is Claude Sonnet, with the substitute `model_id`.
fn settings(fields: &str, model_id: &str) -> String {
    let pools = pool("own", "on_demand", SONNET, "") + &pool("other", "on_demand", model_id, "substitute = true");
    deployment(fields, &pools)
}

/// Starts a deployment in which Sonnet is throttled.
async fn throttled(fields: &str, model_id: &str, events: &Recorded) -> Deployment {
    let deployment = Deployment::start_with(&settings(fields, model_id), Telemetry::to(events.clone())).await;
    deployment.set_model_faults(&[json!({ "model_id": SONNET, "throttle": true })]).await;
    deployment
}

#[tokio::test]
async fn an_answer_of_a_substitute_names_it_and_an_answer_of_the_model_does_not() {
    let events = Recorded::default();
    let deployment = throttled("", HAIKU, &events).await;
    for ((path, mut body), stream) in three_chats(5, Some(8)).into_iter().zip([true, false, false]) {
        body["stream"] = json!(stream);
        let body = if path.ends_with("converse") { three_chats(5, Some(8))[2].1.clone() } else { body };
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!((answer.status, answer.header("x-spillway-substitute")), (200, HAIKU), "{path}: {}", answer.text());
        assert_eq!(answer.header("x-spillway-pool"), "other", "{path}");
    }
    deployment.world.advance(1_000);
    let substitutes: Vec<Value> = events.requests().iter().map(|event| event["substitute"].clone()).collect();
    assert_eq!(substitutes, [json!(HAIKU), json!(HAIKU), json!(HAIKU)]);

    deployment.set_model_faults(&[]).await;
    let answer = deployment.ask(PATH, "t", &chat(5, 8)).await;
    assert_eq!((answer.header("x-spillway-pool"), answer.header("x-spillway-substitute")), ("own", ""));
    assert!(events.requests().pop().expect("an event").get("substitute").is_none());
}

#[tokio::test]
async fn a_tenant_can_refuse_substitutes() {
    let events = Recorded::default();
    let deployment = throttled("substitutes = false", HAIKU, &events).await;
    let answer = deployment.ask(PATH, "t", &chat(5, 8)).await;
    assert_eq!((answer.status, answer.header("x-spillway-limit")), (429, "model_capacity"), "{}", answer.text());
    let event = events.requests().pop().expect("an event");
    assert_eq!(event["skipped"], json!("other: substitutes, own: throttled"));
    assert_eq!(deployment.simulator().await["models"][HAIKU], json!(null));
}

#[tokio::test]
async fn the_id_of_a_substitute_does_not_name_the_model() {
    let deployment = throttled("", HAIKU, &Recorded::default()).await;
    let mut body = chat(5, 8);
    for (id, status) in [(HAIKU, 404), (SONNET, 200)] {
        body["model"] = json!(id);
        assert_eq!(deployment.ask(PATH, "t", &body).await.status, status, "{id}");
    }
}

#[tokio::test]
async fn a_body_in_the_models_own_format_goes_only_to_a_substitute_with_this_format() {
    let message = json!({ "max_tokens": 8, "messages": [{ "role": "user", "content": "a" }] });
    let (mut messages, mut native) = (message.clone(), message);
    messages["model"] = json!("m");
    native["anthropic_version"] = json!("bedrock-2023-05-31");
    let calls = [("/v1/messages", messages), ("/model/m/invoke", native)];
    for (substitute, status) in [(HAIKU, 200), (NOVA, 429)] {
        let events = Recorded::default();
        let deployment = throttled("", substitute, &events).await;
        for (path, body) in &calls {
            let answer = deployment.ask(path, "t", body).await;
            assert_eq!(answer.status, status, "{substitute} {path}: {}", answer.text());
            let event = events.requests().pop().expect("an event");
            let skipped = if status == 200 { "own: throttled" } else { "other: format, own: throttled" };
            assert_eq!(event["skipped"], json!(skipped), "{substitute} {path}");
        }
        let converse = deployment.ask(PATH, "t", &chat(5, 8)).await;
        assert_eq!((converse.status, converse.header("x-spillway-substitute")), (200, substitute));
    }
}

#[tokio::test]
async fn a_body_that_only_the_substitute_rejects_is_not_the_callers_fault() {
    let deployment = throttled("", "sim.refuses", &Recorded::default()).await;
    let answer = deployment.ask(PATH, "t", &chat(5, 8)).await;
    assert_eq!((answer.status, answer.header("x-spillway-limit")), (429, "model_capacity"), "{}", answer.text());
}

#[tokio::test]
async fn the_result_of_a_job_names_the_substitute_that_answered() {
    let deployment = throttled("", HAIKU, &Recorded::default()).await;
    deployment.advance_to_noon();
    let both = [SONNET, HAIKU].map(|id| json!({ "model_id": id, "throttle": true }));
    deployment.set_model_faults(&both).await;
    let id = deployment.submit(PATH, "t", &chat(5, 8)).await;
    deployment.set_model_faults(&both[..1]).await;
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    let result = deployment.result("t", &id).await;
    assert_eq!(result.header("x-spillway-substitute"), HAIKU, "{:?}", result.headers);
}

#[tokio::test]
async fn tokens_are_never_counted_by_a_substitute() {
    let arn = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc";
    let pools = pool("paid", "provisioned", arn, "") + &pool("other", "on_demand", HAIKU, "substitute = true");
    let deployment = Deployment::start(&deployment("", &pools)).await;
    let body = json!({ "input": { "converse": { "messages": [{ "role": "user", "content": [{ "text": "a" }] }] } } });
    let answer: Answer = deployment.ask("/model/m/count-tokens", "t", &body).await;
    assert_eq!((answer.status, answer.header("x-spillway-estimated")), (200, "true"), "{}", answer.text());
}
