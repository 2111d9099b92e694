//! Right-sizing: tenants can opt in to reservations based on the tokens of recent answers.

use serde_json::json;
use spillway::{
    quota::Observation,
    units::{Millis, UnixMs},
};

use crate::support::{
    Deployment,
    answer::{deployment, pool, used},
    chat,
};

const PATH: &str = "/v1/chat/completions";

/// Starts a deployment at noon with a tenant that has `right_sizing` and a limit of
/// `tokens_per_minute`.
async fn start(right_sizing: &str, tokens_per_minute: u64) -> Deployment {
    let fields = format!(
        "right_sizing = \"{right_sizing}\"\nlimits = {{ tokens_per_minute = {tokens_per_minute}, in_flight = 10 }}"
    );
    let pools = pool("on-demand", "on_demand", "sim.model", "limits = { tokens_per_minute = 900000 }");
    let deployment = Deployment::start(&deployment(&fields, &pools)).await;
    deployment.advance_to_noon();
    deployment
}

impl Deployment {
    /// Records a hundred answers of twenty tokens, as if other processes had returned them.
    async fn record_a_hundred_answers(&self) {
        let observation = Observation { output_tokens: 20, estimated_input_tokens: 30, measured_input_tokens: 30 };
        let other_process = self.another_app().await;
        for _ in 0..112 {
            other_process.histories.add("t", "m", observation).await.expect("the ledger");
        }
    }

    async fn regained(&self) -> u64 {
        self.quota("t").await["regained_tokens"].as_u64().expect("tokens")
    }
}

#[tokio::test]
async fn the_next_request_reserves_the_tokens_that_a_hundred_answers_took() {
    let deployment = start("reserve", 500_000).await;
    for _ in 0..112 {
        assert_eq!(deployment.chat("t", 20, 1_000).await.status(), 200);
    }
    let learning = deployment.regained().await;
    // Every process reads new records within two minutes.
    deployment.world.advance(120_000);
    assert_eq!(deployment.chat("t", 20, 1_000).await.status(), 200);
    let regained = deployment.regained().await - learning;
    assert!((970..=980).contains(&regained), "a thousand tokens were requested, about twenty reserved: {regained}");
}

#[tokio::test]
async fn the_model_gets_the_callers_output_limit_and_tokens_above_the_reservation_are_charged() {
    let deployment = start("reserve", 500_000).await;
    deployment.record_a_hundred_answers().await;
    let answer = deployment.ask(PATH, "t", &chat(700, 1_000)).await;
    assert_eq!((answer.status, answer.header("x-spillway-max-tokens")), (200, ""));
    assert_eq!(answer.json()["usage"]["completion_tokens"], 700);
    let charged = used(&deployment.quota("t").await, "tokens_per_minute");
    assert_eq!(json!(charged), answer.json()["usage"]["total_tokens"]);
}

#[tokio::test]
async fn a_tenant_that_opts_in_sends_the_model_the_output_limit_that_it_reserves() {
    let deployment = start("send", 500_000).await;
    deployment.record_a_hundred_answers().await;
    let answer = deployment.ask(PATH, "t", &chat(700, 1_000)).await;
    let sent: u64 = answer.header("x-spillway-max-tokens").parse().expect("the cap that was sent");
    assert!((20..=24).contains(&sent), "{sent}");
    assert_eq!(answer.json()["usage"]["completion_tokens"], json!(sent));
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn right_sizing_admits_more_requests_under_the_same_limit() {
    let mut admitted = Vec::new();
    for right_sizing in ["off", "reserve"] {
        let deployment = start(right_sizing, 4_000).await;
        deployment.record_a_hundred_answers().await;
        let mut answered = 0;
        while deployment.chat("t", 20, 1_000).await.status() == 200 {
            answered += 1;
        }
        assert_eq!(deployment.regained().await > 0, right_sizing == "reserve");
        admitted.push(answered);
    }
    assert!(admitted[1] > admitted[0], "{admitted:?}");
}

#[tokio::test]
async fn many_processes_with_few_requests_each_learn_together() {
    let deployment = start("reserve", 500_000).await;
    let observation = Observation { output_tokens: 20, estimated_input_tokens: 30, measured_input_tokens: 30 };
    let writes = async || deployment.dynamodb_operations().await["UpdateItem"].as_u64().unwrap_or_default();
    let before = writes().await;
    for _ in 0..40 {
        let process = deployment.another_app().await;
        for _ in 0..3 {
            process.histories.add("t", "m", observation).await.expect("the ledger");
            process.clock.advance(Millis::from_s(30));
        }
    }
    assert_eq!(writes().await - before, 40, "each process writes once a minute");
    assert_eq!(deployment.chat("t", 20, 1_000).await.status(), 200);
    assert!(deployment.regained().await > 900, "{}", deployment.regained().await);
}

#[tokio::test]
async fn a_request_also_writes_the_old_observations_of_another_tenant() {
    let deployment = start("reserve", 500_000).await;
    let observation = Observation { output_tokens: 20, estimated_input_tokens: 30, measured_input_tokens: 30 };
    for _ in 0..100 {
        let process = deployment.another_app().await;
        process.histories.add("t", "m", observation).await.expect("the ledger");
        process.clock.advance(Millis::from_s(60));
        process.histories.add("u", "m", observation).await.expect("the ledger");
    }
    assert_eq!(deployment.chat("t", 20, 1_000).await.status(), 200);
    assert!(deployment.regained().await > 900, "{}", deployment.regained().await);
}

#[tokio::test]
async fn answers_are_recorded_on_a_day_whose_attribute_is_a_reserved_word() {
    let deployment = start("reserve", 500_000).await;
    // The attribute of answers of about 400 tokens on 2028-11-05 is called `other`.
    let day = Millis::from_s(21_493 * 86_400 + 43_200);
    let process = deployment.another_app().await;
    process.clock.advance(day - (process.clock.now() - UnixMs::default()));
    let observation = Observation { output_tokens: 400, estimated_input_tokens: 30, measured_input_tokens: 30 };
    for _ in 0..112 {
        process.histories.add("t", "m", observation).await.expect("the ledger");
    }
    let history = process.histories.recent("t", "m").await.expect("the ledger");
    assert!(history.p99_output_tokens.is_some_and(|tokens| tokens >= 400), "{history:?}");
}
