//! Reserving what recent answers took, for tenants that want it.

use serde_json::json;

use crate::support::{
    Deployment,
    answer::{deployment, pool, used},
    chat,
};

const PATH: &str = "/v1/chat/completions";

/// A tenant with this `right_sizing` after a hundred answers of twenty tokens, each of which might have had a thousand.
async fn after_a_hundred_answers(right_sizing: &str) -> Deployment {
    let fields =
        format!("right_sizing = \"{right_sizing}\"\nlimits = {{ tokens_per_minute = 500000, in_flight = 10 }}");
    let pools = pool("on-demand", "on_demand", "sim.model", "limits = { tokens_per_minute = 900000 }");
    let deployment = Deployment::start(&deployment(&fields, &pools)).await;
    deployment.advance_to_noon();
    for _ in 0..112 {
        assert_eq!(deployment.chat("t", 20, 1_000).await.status(), 200);
    }
    // What was written is read by every process after a minute.
    deployment.world.advance(60_000);
    deployment
}

impl Deployment {
    /// What a request with room for a thousand tokens of output reserves, and what it asks the model for.
    async fn reserved_and_sent(&self, output_tokens: u64) -> (u64, u64) {
        let before = used(&self.quota("t").await, "tokens_per_minute");
        self.world.stand_ins.dynamodb_faults().clear();
        let answer = self.ask(PATH, "t", &chat(output_tokens, 1_000)).await;
        assert_eq!(answer.status, 200);
        let sent = answer.json()["usage"]["completion_tokens"].as_u64().expect("tokens");
        (used(&self.quota("t").await, "tokens_per_minute") - before, sent)
    }

    async fn regained(&self) -> u64 {
        self.quota("t").await["regained_tokens"].as_u64().expect("tokens")
    }
}

#[tokio::test]
async fn a_request_reserves_what_recent_answers_took_and_asks_the_model_for_as_much_as_ever() {
    let deployment = after_a_hundred_answers("reserve").await;
    let learning = deployment.regained().await;
    let (charged, sent) = deployment.reserved_and_sent(700).await;
    assert_eq!(sent, 700, "nothing is cut short");
    assert!(charged >= 700, "what exceeds the reserve is settled as debt: {charged}");
    let regained = deployment.regained().await - learning;
    assert!((970..=980).contains(&regained), "a thousand were asked, about twenty reserved: {regained}");
}

#[tokio::test]
async fn a_tenant_that_allows_it_sends_no_more_than_it_reserves() {
    let deployment = after_a_hundred_answers("send").await;
    let answer = deployment.ask(PATH, "t", &chat(700, 1_000)).await;
    let sent: u64 = answer.header("x-spillway-max-tokens").parse().expect("the cap that was sent");
    assert!((20..=24).contains(&sent), "{sent}");
    assert_eq!(answer.json()["usage"]["completion_tokens"], json!(sent));
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_tenant_that_did_not_ask_for_it_reserves_what_it_asks() {
    let deployment = after_a_hundred_answers("off").await;
    assert_eq!(deployment.regained().await, 0);
    let (_, sent) = deployment.reserved_and_sent(700).await;
    assert_eq!(sent, 700);
}

#[tokio::test]
async fn right_sizing_lets_more_requests_run_at_once_under_the_same_limit() {
    let mut at_once = Vec::new();
    for right_sizing in ["off", "reserve"] {
        let fields = format!("right_sizing = \"{right_sizing}\"\nlimits = {{ tokens_per_minute = 12000 }}");
        let pools = pool("on-demand", "on_demand", "sim.model", "");
        let deployment = Deployment::start(&deployment(&fields, &pools)).await;
        deployment.advance_to_noon();
        for _ in 0..112 {
            assert_eq!(deployment.chat("t", 20, 1_000).await.status(), 200);
            deployment.world.advance(6_000);
        }
        deployment.world.advance(60_000);
        let mut admitted = 0;
        while deployment.chat("t", 20, 1_000).await.status() == 200 {
            admitted += 1;
        }
        at_once.push(admitted);
    }
    assert!(at_once[1] > at_once[0], "{at_once:?}");
}
