//! The ladder: which pool answers, which errors lead to the next pool, and what stays charged.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Deployment,
    answer::{Answer, Events, charged, deployment, pool, three_chats, used, within},
    chat,
    recorded::{Recorded, record_logs},
};

const PATH: &str = "/v1/chat/completions";

/// The tenant's limits in all tests of this file, which show its charges.
const FIELDS: &str = "class = \"interactive\"\n\
    limits = { requests_per_minute = 100, tokens_per_minute = 10000, in_flight = 10, microusd_per_month = 1000000 }";

/// Starts a deployment with the pool `first`, which calls `model_id` and has `limits`, before the
/// unlimited pool `second`.
async fn two_pools(model_id: &str, limits: &str, simulator: &str) -> Deployment {
    let pools = pool("second", "on_demand", "second", "") + &pool("first", "provisioned", model_id, limits);
    let simulator = format!("[simulator]\n{simulator}\n[[simulator.pools]]\nmodel_id = \"second\"\n");
    Deployment::start(&(deployment(FIELDS, &pools) + &simulator)).await
}

/// Returns the number of calls of a model, according to the simulator.
fn calls(simulator: &Value, model_id: &str) -> u64 {
    simulator["models"][model_id]["requests"].as_u64().unwrap_or(0)
}

/// Returns the pool that answered. Fails unless the request succeeded.
fn pool_of(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-spillway-pool")
}

#[tokio::test]
async fn paid_capacity_is_used_first_wherever_it_is_listed() {
    let deployment = two_pools("sim.first", "", "").await;
    for (path, body) in three_chats(5, Some(8)) {
        assert_eq!(pool_of(&deployment.ask(path, "t", &body).await), "first", "{path}");
    }
    assert_eq!(calls(&deployment.simulator().await, "second"), 0);
}

/// The large request reserves more than a sixth of the pool's minute. A pool that is spent evenly
/// would need five seconds without another request for it.
#[tokio::test]
async fn a_large_request_reaches_paid_capacity_beside_small_ones() {
    let deployment = two_pools("sim.first", "limits = { tokens_per_minute = 6000 }", "").await;
    for body in [chat(5, 8), chat(5, 3_000), chat(5, 8)] {
        assert_eq!(pool_of(&deployment.ask(PATH, "t", &body).await), "first");
    }
}

#[tokio::test]
async fn a_full_pool_leads_to_the_next_until_it_has_room_again() {
    let deployment = two_pools("sim.first", "limits = { in_flight = 1 }", "tokens_per_second = 1").await;
    let mut body = chat(9, 20);
    body["stream"] = json!(true);
    let first = within(deployment.post(PATH, "t", &body).send()).await.expect("a stream");
    assert_eq!(first.headers()["x-spillway-pool"], "first");
    let second = within(deployment.post(PATH, "t", &body).send()).await.expect("a stream");
    assert_eq!(second.headers()["x-spillway-pool"], "second");
    assert_eq!(calls(&deployment.simulator().await, "sim.first"), 1, "a full pool is not called");

    deployment.world.advance(20_000);
    Events::of(first).rest().await;
    let third = within(deployment.post(PATH, "t", &body).send()).await.expect("a stream");
    assert_eq!(third.headers()["x-spillway-pool"], "first");
}

#[tokio::test]
async fn a_pool_that_is_too_small_for_the_request_is_skipped() {
    let deployment = two_pools("sim.first", "limits = { tokens_per_minute = 300 }", "").await;
    assert_eq!(pool_of(&deployment.unary_chat(5, 500).await), "second");
    assert_eq!(pool_of(&deployment.unary_chat(5, 20).await), "first");
}

#[tokio::test]
async fn a_pool_that_cannot_answer_now_leads_to_the_next_and_costs_nothing() {
    let faults = [
        ("sim.throttled", ""),
        ("sim.errors", ""),
        ("first", "fault = { unavailable = true }"),
        ("first", "fault = { status_5xx = 503 }"),
        ("first", "fault = { error = \"ModelNotReadyException\" }"),
    ];
    for (model_id, fault) in faults {
        let simulator = format!("[[simulator.pools]]\nmodel_id = \"first\"\n{fault}\n");
        let deployment = two_pools(model_id, "limits = { in_flight = 1 }", &simulator).await;
        for (path, body) in three_chats(5, Some(8)) {
            assert_eq!(pool_of(&deployment.ask(path, "t", &body).await), "second", "{model_id} {fault} {path}");
            // Longer than an outage.
            deployment.world.advance(25_000);
        }
        let simulator = deployment.simulator().await;
        assert_eq!(calls(&simulator, model_id), 3, "{fault}: the reservation of the first pool is released each time");
        let quota = deployment.quota("t").await;
        assert_eq!((&quota["settled"]["requests"], &quota["settled"]["output_tokens"]), (&json!(3), &json!(15)));
    }
}

#[tokio::test]
async fn a_permanent_error_ends_the_request_immediately_and_costs_nothing() {
    let deployment = two_pools("sim.refuses", "limits = { in_flight = 1 }", "").await;
    let before = charged(&deployment.quota("t").await);
    for (path, body) in three_chats(5, Some(8)) {
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert_eq!(charged(&deployment.quota("t").await), before, "{path}");
    }
    let simulator = deployment.simulator().await;
    assert_eq!((calls(&simulator, "sim.refuses"), calls(&simulator, "second")), (3, 0));
}

#[tokio::test]
async fn a_model_that_bedrock_denies_in_every_pool_is_the_brokers_fault_and_costs_nothing() {
    let deployment = Deployment::start(&deployment(FIELDS, &pool("only", "on_demand", "sim.denied", ""))).await;
    let before = charged(&deployment.quota("t").await);
    for ((path, body), status) in three_chats(5, Some(8)).into_iter().zip([502, 502, 424]) {
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(charged(&deployment.quota("t").await), before, "{path}");
    }
}

#[tokio::test]
async fn the_reason_of_a_denial_is_logged_and_not_sent_to_the_caller() {
    let logs = Recorded::default();
    let _logging = record_logs(&logs);
    let deployment = Deployment::start(&deployment(FIELDS, &pool("only", "on_demand", "sim.denied", ""))).await;
    let answer = deployment.ask(PATH, "t", &chat(5, 8)).await;
    let reason = "You don't have access to the model";
    assert_eq!((answer.status, answer.text().contains(reason)), (502, false), "{}", answer.text());
    let logs = String::from_utf8(logs.lines()).expect("text");
    let line = logs.lines().find(|line| line.contains("Bedrock denies the broker a model")).expect("a log line");
    for text in ["sim.denied", "AccessDeniedException", reason] {
        assert!(line.contains(text), "{line} lacks {text}");
    }
}

#[tokio::test]
async fn a_model_timeout_is_not_retried_and_stays_charged() {
    for ((path, body), status) in three_chats(5, Some(500)).into_iter().zip([504, 504, 408]) {
        let deployment = two_pools("sim.timeout", "limits = { in_flight = 1 }", "").await;
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(answer.header("retry-after"), "", "the answer does not ask the caller to retry");
        let quota = deployment.quota("t").await;
        assert_eq!((used(&quota, "in_flight"), used(&quota, "requests_per_minute")), (0, 1));
        assert!(used(&quota, "tokens_per_minute") > 500, "{quota}");
        assert_eq!(calls(&deployment.simulator().await, "second"), 0);
    }
}

#[tokio::test]
async fn a_call_to_a_silent_model_times_out_and_stays_charged() {
    let settings = deployment(FIELDS, &pool("only", "on_demand", "sim.stalls", "")).replace("30000", "1000");
    let deployment = Deployment::start(&settings).await;
    let started = std::time::Instant::now();
    let answer = deployment.unary_chat(5, 500).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let quota = deployment.quota("t").await;
    assert_eq!(used(&quota, "in_flight"), 0);
    assert!(used(&quota, "tokens_per_minute") > 500, "{quota}");
}

#[tokio::test]
async fn a_refusal_by_full_pools_says_when_to_retry_and_costs_nothing() {
    let pools = pool("full", "provisioned", "sim.throttled", "")
        + &pool("small", "on_demand", "sim.small", "limits = { requests_per_minute = 1 }");
    let deployment = Deployment::start(&deployment(FIELDS, &pools)).await;
    assert_eq!(pool_of(&deployment.unary_chat(5, 8).await), "small");
    let before = charged(&deployment.quota("t").await);
    for (path, body) in three_chats(5, Some(8)) {
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!((answer.status, answer.header("x-spillway-limit")), (429, "model_capacity"), "{path}");
        // The throttled pool may have room first. Its retry time is unknown, so the caller may
        // retry soon.
        assert_eq!((answer.header("retry-after-ms"), answer.header("retry-after")), ("2000", "2"), "{path}");
    }
    assert_eq!(charged(&deployment.quota("t").await), before);
    deployment.world.advance(60_000);
    assert_eq!(pool_of(&deployment.unary_chat(5, 8).await), "small");
}

#[tokio::test]
async fn a_retry_at_the_time_named_by_a_full_pool_succeeds() {
    let pools = pool("small", "on_demand", "sim.small", "limits = { requests_per_minute = 12 }");
    let deployment = Deployment::start(&deployment(FIELDS, &pools)).await;
    let mut refused = 0;
    while refused < 5 {
        let answer = deployment.unary_chat(5, 8).await;
        if answer.status == 429 {
            refused += 1;
            let wait_ms: u64 = answer.header("retry-after-ms").parse().expect("a number");
            deployment.world.advance(wait_ms);
            assert_eq!(pool_of(&deployment.unary_chat(5, 8).await), "small", "after {wait_ms} ms");
        }
    }
}

#[tokio::test]
async fn a_caller_may_retry_when_no_pool_is_available_and_pays_nothing() {
    let pools = pool("only", "on_demand", "sim.errors", "");
    let deployment = Deployment::start(&deployment(FIELDS, &pools)).await;
    let before = charged(&deployment.quota("t").await);
    for (path, body) in three_chats(5, Some(8)) {
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("2", ""), "{path}");
    }
    assert_eq!(charged(&deployment.quota("t").await), before);
}

#[tokio::test]
async fn a_call_whose_connection_breaks_is_not_repeated_and_stays_charged() {
    for ((path, body), status) in three_chats(5, Some(500)).into_iter().zip([502, 502, 424]) {
        let simulator = "[[simulator.pools]]\nmodel_id = \"first\"\nfault = { disconnect = true }\n";
        let deployment = two_pools("first", "limits = { in_flight = 1 }", simulator).await;
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let quota = deployment.quota("t").await;
        assert_eq!((used(&quota, "in_flight"), used(&quota, "requests_per_minute")), (0, 1));
        assert!(used(&quota, "tokens_per_minute") > 500, "{quota}");
        let simulator = deployment.simulator().await;
        assert_eq!((calls(&simulator, "first"), calls(&simulator, "second")), (1, 0), "{path}");
    }
}

#[tokio::test]
async fn a_pool_rests_after_its_daily_quota_while_the_next_pool_answers() {
    let simulator = "[[simulator.pools]]\nmodel_id = \"first\"\nfault = { daily_quota = true }\n";
    let deployment = two_pools("first", "", simulator).await;
    let ask_all = async || {
        for (path, body) in three_chats(5, Some(8)) {
            assert_eq!(pool_of(&deployment.ask(path, "t", &body).await), "second", "{path}");
        }
        calls(&deployment.simulator().await, "first")
    };
    assert_eq!(ask_all().await, 1, "only the first request calls the pool");
    deployment.world.advance(240_000);
    assert_eq!(ask_all().await, 1, "the pool still rests");
    deployment.world.advance(60_000);
    assert_eq!(ask_all().await, 2, "one call per rest");
}

#[tokio::test]
async fn a_refusal_by_a_daily_quota_says_to_retry_in_minutes_and_costs_nothing() {
    let pools = pool("only", "on_demand", "only", "");
    let simulator = "[[simulator.pools]]\nmodel_id = \"only\"\nfault = { daily_quota = true }\n";
    let deployment = Deployment::start(&(deployment(FIELDS, &pools) + simulator)).await;
    let before = charged(&deployment.quota("t").await);
    for (path, body) in three_chats(5, Some(8)) {
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!((answer.status, answer.header("x-spillway-limit")), (429, "model_capacity"), "{path}");
        let retry_after: u64 = answer.header("retry-after").parse().expect("a number");
        assert!((240..=300).contains(&retry_after), "{path}: {retry_after}");
    }
    assert_eq!(charged(&deployment.quota("t").await), before);
    assert_eq!(calls(&deployment.simulator().await, "only"), 1);
}

#[tokio::test]
async fn a_request_larger_than_every_pool_is_refused_and_costs_nothing() {
    let pools = pool("small", "on_demand", "sim.small", "limits = { tokens_per_minute = 100 }");
    let deployment = Deployment::start(&deployment(FIELDS, &pools)).await;
    let before = charged(&deployment.quota("t").await);
    let answer = deployment.unary_chat(5, 500).await;
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("max_tokens")), "{}", answer.text());
    assert_eq!(charged(&deployment.quota("t").await), before);
}

impl Deployment {
    async fn unary_chat(&self, output_tokens: u64, max_tokens: u64) -> Answer {
        self.ask(PATH, "t", &chat(output_tokens, max_tokens)).await
    }
}
