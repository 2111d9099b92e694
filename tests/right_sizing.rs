//! Right-sizing: tenants can opt in to reservations based on the tokens of recent answers.

use serde_json::json;
use spillway::{
    quota::{Attribute, Image, Observation},
    units::{Millis, UnixMs},
};

use crate::support::{
    Deployment,
    answer::{deployment, pool, used},
    chat, key,
    time::{eventually, priced_tokens, reserved_tokens},
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
        self.record("t", observation).await;
    }

    /// Records more than a hundred requests of `tenant`, as if other processes had served them.
    async fn record(&self, tenant: &str, observation: Observation) {
        let other_process = self.another_app().await;
        for _ in 0..112 {
            other_process.histories.add(tenant, "m", observation).await.expect("the ledger");
        }
    }

    /// Sends requests of each of `tenants` at once, 120 in all, whose answers have 8,000 tokens.
    /// Returns the quota tokens that the model counted, and their price in micro-USD.
    async fn send_long_answers(&self, tenants: &[&str]) -> (u64, u64) {
        let mut bursts: Vec<_> =
            tenants.iter().map(|tenant| self.burst(120 / tenants.len(), tenant, &chat(8_000, 8_000))).collect();
        let all = async {
            for burst in &mut bursts {
                while burst.join_next().await.is_some() {}
            }
        };
        self.quickly(all).await;
        let total = &self.simulator().await["total"];
        let tokens = |name: &str| total[name].as_u64().expect("tokens");
        (tokens("quota_tokens"), tokens("input_tokens") + 2 * tokens("output_tokens"))
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

/// Model that is slow enough for all requests to arrive while the first ones run.
const SLOW: &str = "[simulator]\ntime_to_first_token_ms = 12000\n";

/// A request whose answer had one token, and whose input was half of the estimate.
const SHORT: Observation = Observation { output_tokens: 1, estimated_input_tokens: 400, measured_input_tokens: 200 };

#[tokio::test]
async fn a_tenant_that_had_short_answers_uses_at_most_twice_its_limit_and_never_more_than_its_budget() {
    let minute = "tokens_per_minute = 80000";
    let with_budget = format!("{minute}, microusd_per_month = 200000");
    for (limits, max_tokens, max_microusd) in
        [(minute, 160_000, u64::MAX), ("tokens_per_day = 160000", 320_000, u64::MAX), (&with_budget, 160_000, 200_000)]
    {
        let fields = format!("right_sizing = \"reserve\"\nlimits = {{ {limits} }}");
        let pools = pool("on-demand", "on_demand", "sim.model", SLOW);
        let attacked = Deployment::start(&deployment(&fields, &pools)).await;
        attacked.advance_to_noon();
        attacked.record("t", SHORT).await;
        let (tokens, microusd) = attacked.send_long_answers(&["t"]).await;
        assert!((8_000..=max_tokens).contains(&tokens), "{tokens} with {limits}");
        assert!(microusd <= max_microusd, "{microusd} with {limits}");
    }
}

#[tokio::test]
async fn many_members_with_right_sizing_use_at_most_twice_the_limit_of_their_organisation() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let keys: String = names.iter().map(|name| format!("{name} = \"{}\"\n", key(name))).collect();
    let member = |name| format!("[[tenants]]\nname = \"{name}\"\nparent = \"org\"\nright_sizing = \"reserve\"\n");
    let members: String = names.iter().map(member).collect();
    let pools = pool("on-demand", "on_demand", "sim.model", SLOW);
    let attacked = Deployment::start(&format!(
        "[keys]\n{keys}[[tenants]]\nname = \"org\"\nlimits = {{ tokens_per_minute = 80000 }}\n{members}\
         [[models]]\nname = \"m\"\ntimeout_ms = 30000\n{pools}"
    ))
    .await;
    attacked.advance_to_noon();
    for name in names {
        attacked.record(name, SHORT).await;
    }
    let (tokens, _) = attacked.send_long_answers(&names).await;
    assert!((8_000..=160_000).contains(&tokens), "{tokens}");
}

#[tokio::test]
async fn whatever_the_history_says_money_is_reserved_for_the_whole_request_and_unreserved_tokens_are_counted() {
    for (right_sizing, max_output) in [("reserve", 1_000), ("send", 1)] {
        let fields = format!(
            "right_sizing = \"{right_sizing}\"\nlimits = {{ tokens_per_minute = 500000, microusd_per_month = 1000000 }}"
        );
        let pools = pool("on-demand", "on_demand", "sim.model", SLOW);
        let deployment = Deployment::start(&deployment(&fields, &pools)).await;
        deployment.advance_to_noon();
        deployment.record("t", SHORT).await;
        let body = chat(1_000, 1_000);
        let input = reserved_tokens(&body) - 1_000;
        let mut running = deployment.burst(1, "t", &body);
        eventually("the request runs", async || deployment.ledger("t").await.get(Attribute::InFlight) == 1).await;
        let image = deployment.ledger("t").await;
        let reserved = max(&image, |attribute| matches!(attribute, Attribute::Tokens(_)));
        let unreserved = max(&image, |attribute| matches!(attribute, Attribute::Unreserved(_)));
        assert_eq!(reserved, input.div_ceil(2) + 1, "{right_sizing}");
        assert_eq!(reserved + unreserved, input + max_output, "{right_sizing}");
        let priced_input = priced_tokens(&body) - 1_000;
        let cost = max(&image, |attribute| matches!(attribute, Attribute::Month(_)));
        assert_eq!(cost, priced_input + 2 * max_output, "{right_sizing}");
        deployment.quickly(running.join_next()).await;
        let image = deployment.ledger("t").await;
        assert_eq!(max(&image, |attribute| matches!(attribute, Attribute::Unreserved(_))), 0, "{right_sizing}");
    }
}

/// Returns the largest value among the attributes of `image` that are `chosen`.
fn max(image: &Image, chosen: impl Fn(Attribute) -> bool) -> u64 {
    let values = image.iter().filter(|(attribute, _)| chosen(*attribute)).map(|(attribute, _)| image.get(attribute));
    values.max().unwrap_or_default()
}
