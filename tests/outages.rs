//! Outages of pools: which failures keep the next requests away from a pool, for how long, what
//! other processes learn of it, and what an outage costs.

use serde_json::{Value, json};
use spillway::{config::Config, telemetry::Telemetry};
use tokio::task::JoinHandle;

use crate::support::{
    Deployment,
    answer::{Answer, ask, deployment, pool, three_chats, used, within},
    chat,
    recorded::Recorded,
    time::eventually,
};

const PATH: &str = "/v1/chat/completions";

/// Longest time until a pool that works again is probed.
const MAX_OUTAGE_MS: u64 = 25_000;

const FIELDS: &str = "limits = { requests_per_minute = 1000, tokens_per_minute = 1000000, in_flight = 100 }";

/// The pool `first` with `fields`, before the pool `second`. Both have limits.
fn settings(fields: &str) -> String {
    let limits = "limits = { in_flight = 100 }";
    let pools = pool("second", "on_demand", "second", limits)
        + &pool("first", "provisioned", "first", &format!("{limits}\n{fields}"));
    let simulated = ["first", "second"].map(|id| format!("[[simulator.pools]]\nmodel_id = \"{id}\"\n"));
    deployment(FIELDS, &pools) + &simulated.concat()
}

/// A deployment with the pools `first` and `second`.
struct TwoPools(Deployment);

impl TwoPools {
    /// Starts the deployment. `fault` strikes all calls of `first`.
    async fn start(fields: &str, fault: Value) -> Self {
        let started = Self(Deployment::start(&settings(fields)).await);
        started.0.advance_to_noon();
        started.strike(fault).await;
        started
    }

    async fn strike(&self, mut fault: Value) {
        fault["model_id"] = json!("first");
        self.0.set_model_faults(&[fault]).await;
    }

    async fn recover(&self) {
        self.0.set_model_faults(&[]).await;
    }

    async fn chat(&self) -> Answer {
        self.0.ask(PATH, "t", &chat(5, 8)).await
    }

    async fn stream(&self) -> Answer {
        self.0.ask(PATH, "t", &streamed()).await
    }

    /// Makes `first` silent, and lets three streams wait there for 20 seconds.
    async fn stick(&self) -> Vec<JoinHandle<Answer>> {
        self.strike(json!({ "silent_ms": 3_600_000 })).await;
        let request = || self.0.post(PATH, "t", &streamed());
        let stuck = (0..3).map(|_| ask(&self.0.world.app, request().body(streamed().to_string()))).collect();
        self.0.simulator_when(|stats| stats["models"]["first"]["in_flight"] == 3).await;
        self.0.world.advance(20_000);
        stuck
    }

    /// Returns the number of calls to `first`.
    async fn calls(&self) -> u64 {
        self.0.simulator().await["models"]["first"]["requests"].as_u64().unwrap_or(0)
    }

    /// Fails unless a pool called `name` answers.
    async fn assert_answered_by(&self, name: &str) {
        let answer = self.chat().await;
        assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, name), "{}", answer.text());
    }
}

fn streamed() -> Value {
    let mut body = chat(5, 8);
    body["stream"] = json!(true);
    body
}

/// The faults of a pool that bill nothing: the next pool answers in the same request.
fn unbilled() -> [(&'static str, Value); 6] {
    [
        ("error", json!({ "unavailable": true })),
        ("error", json!({ "status_5xx": 500 })),
        ("error", json!({ "error": "ModelNotReadyException" })),
        ("denied", json!({ "error": "AccessDeniedException" })),
        ("denied", json!({ "error": "ResourceNotFoundException" })),
        ("daily_quota", json!({ "daily_quota": true })),
    ]
}

#[tokio::test]
async fn a_pool_that_fails_is_called_once_and_then_passed_over_until_it_works_again() {
    for (cause, fault) in unbilled() {
        let pools = TwoPools::start("", fault.clone()).await;
        for (path, body) in three_chats(5, Some(8)) {
            let answer = pools.0.ask(path, "t", &body).await;
            assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, "second"), "{fault} {path}");
        }
        assert_eq!(pools.calls().await, 1, "{fault}");
        let quota = pools.0.quota("t").await;
        assert_eq!((used(&quota, "requests_per_minute"), used(&quota, "in_flight")), (3, 0), "{fault}");

        pools.recover().await;
        pools.0.world.advance(if cause == "daily_quota" { 300_000 } else { MAX_OUTAGE_MS });
        pools.assert_answered_by("first").await;
        assert_eq!(pools.calls().await, 2, "{fault}");
    }
}

#[tokio::test]
async fn an_outage_is_an_event_and_names_its_cause() {
    for (cause, fault) in unbilled() {
        let events = Recorded::default();
        let pools = TwoPools(Deployment::start_with(&settings(""), Telemetry::to(events.clone())).await);
        pools.strike(fault).await;
        pools.assert_answered_by("second").await;
        let outage = events.events().into_iter().find(|event| event.get("pool_outage_ms").is_some()).expect("an event");
        assert_eq!((&outage["pool"], &outage["cause"]), (&json!("first"), &json!(cause)));
        let request = events.events().into_iter().find(|event| event["outcome"] == "answered").expect("an event");
        let skipped = request["skipped"].as_str().unwrap_or_default();
        assert!(skipped.starts_with(&format!("first: {cause}")), "{skipped}");
        assert_eq!(skipped.contains("Exception)"), cause != "daily_quota", "the error is named: {skipped}");
    }
}

#[tokio::test]
async fn each_probe_that_fails_makes_the_outage_longer() {
    let pools = TwoPools::start("", json!({ "unavailable": true })).await;
    for _second in 0..120 {
        pools.assert_answered_by("second").await;
        pools.0.world.advance(1_000);
    }
    let calls = pools.calls().await;
    assert!((5..=12).contains(&calls), "{calls} calls in two minutes");
}

#[tokio::test]
async fn a_call_that_may_be_billed_is_not_repeated_and_the_next_calls_go_to_the_next_pool() {
    for fault in [json!({ "disconnect": true }), json!({ "silent_ms": 600_000 })] {
        let pools = TwoPools::start("first_byte_timeout_ms = 1000", fault.clone()).await;
        let failed = pools.stream().await;
        assert!(matches!(failed.status, 502 | 504), "{fault}: {}", failed.text());
        assert_eq!(pools.0.simulator().await["models"]["second"]["requests"], json!(null), "{fault}");
        for _ in 0..5 {
            let answer = pools.stream().await;
            assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, "second"), "{fault}");
        }
        assert_eq!(pools.calls().await, 1, "{fault}");
    }
}

#[tokio::test]
async fn a_silent_pool_is_probed_by_a_call_that_no_caller_waits_for() {
    let events = Recorded::default();
    let settings = settings("first_byte_timeout_ms = 1000");
    let pools = TwoPools(Deployment::start_with(&settings, Telemetry::to(events.clone())).await);
    pools.strike(json!({ "silent_ms": 600_000 })).await;
    assert_eq!(pools.stream().await.status, 504);
    for probes in 1..4 {
        pools.0.world.advance(MAX_OUTAGE_MS);
        let answer = pools.stream().await;
        assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, "second"));
        let has_probes = |stats: &Value| stats["models"]["first"]["requests"] == json!(1 + probes);
        pools.0.simulator_when(has_probes).await;
        pools.0.world.advance(1_000);
        let outages = || events.events().into_iter().filter(|event| event.get("pool_outage_ms").is_some()).count();
        eventually("the probe fails", async || outages() == 1 + probes).await;
    }
    pools.recover().await;
    pools.0.world.advance(MAX_OUTAGE_MS);
    let mut answers = 3;
    let is_back = async || {
        answers += 1;
        pools.stream().await.header("x-spillway-pool") == "first"
    };
    eventually("the pool is used again", is_back).await;
    let quota = pools.0.quota("t").await;
    assert_eq!(quota["settled"]["requests"], answers, "no probe is charged: {quota}");
}

#[tokio::test]
async fn a_pool_at_which_several_calls_wait_too_long_is_passed_over_before_they_end() {
    let pools = TwoPools::start("", json!({ "times": 0, "unavailable": true })).await;
    for _ in 0..3 {
        assert_eq!(pools.stream().await.header("x-spillway-pool"), "first");
    }
    let stuck = pools.stick().await;
    let answer = pools.stream().await;
    assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, "second"));
    pools.assert_answered_by("second").await;
    stuck.into_iter().for_each(|stuck| stuck.abort());
}

#[tokio::test]
async fn a_pool_that_was_silent_is_used_again_while_the_calls_that_it_lost_still_wait() {
    let pools = TwoPools::start("", json!({ "times": 0, "unavailable": true })).await;
    for _ in 0..3 {
        assert_eq!(pools.stream().await.header("x-spillway-pool"), "first");
    }
    let stuck = pools.stick().await;
    pools.recover().await;
    assert_eq!(pools.stream().await.header("x-spillway-pool"), "second");
    let is_back = async || pools.stream().await.header("x-spillway-pool") == "first";
    eventually("a probe shows that the pool works", is_back).await;
    assert!(stuck.iter().all(|stuck| !stuck.is_finished()));
    stuck.into_iter().for_each(|stuck| stuck.abort());
}

#[tokio::test]
async fn a_pool_that_throttles_call_after_call_is_tried_after_the_others_for_a_moment() {
    let throttle = json!({ "throttle": true });
    let pools = TwoPools::start("", throttle.clone()).await;
    for _ in 0..20 {
        pools.assert_answered_by("second").await;
    }
    let calls = pools.calls().await;
    assert!((3..=8).contains(&calls), "{calls} calls of 20 tried the pool first");

    // The pool has room again, and the other one has none: it is tried, though last.
    let mut full = throttle;
    full["model_id"] = json!("second");
    pools.0.set_model_faults(&[full]).await;
    pools.assert_answered_by("first").await;
    pools.recover().await;
    pools.assert_answered_by("first").await;
}

#[tokio::test]
async fn another_process_learns_of_an_outage_without_a_call_and_without_a_read() {
    for fault in [json!({ "unavailable": true }), json!({ "error": "AccessDeniedException" })] {
        let pools = TwoPools::start("", fault.clone()).await;
        let config = Config::from_lookup(|_| None).expect("defaults");
        let warm = pools.0.app_with(&config).await;
        let from = async |app: &_| {
            let request = pools.0.post(PATH, "t", &chat(5, 8)).body(chat(5, 8).to_string());
            ask(app, request).await.expect("no panic")
        };
        pools.assert_answered_by("second").await;
        assert_eq!(pools.calls().await, 1);
        let cold = pools.0.app_with(&config).await;
        let reads = async || pools.0.dynamodb_operations().await["GetItem"].as_u64().unwrap_or_default();
        for app in [&warm, &cold] {
            let answer = from(app).await;
            assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, "second"), "{fault}");
        }
        let before = reads().await;
        assert_eq!(from(&cold).await.header("x-spillway-pool"), "second");
        assert_eq!((reads().await, pools.calls().await), (before, 1), "{fault}");
    }
}

#[tokio::test]
async fn a_single_pool_is_called_in_spite_of_an_error_but_not_while_it_is_silent() {
    let only = |fault: &str| {
        let fields = "first_byte_timeout_ms = 1000";
        let simulated = format!("[[simulator.pools]]\nmodel_id = \"only\"\nfault = {{ {fault} }}\n");
        deployment(FIELDS, &pool("only", "on_demand", "only", fields)) + &simulated
    };
    let calls = async |deployment: &Deployment| deployment.simulator().await["models"]["only"]["requests"].clone();

    let failing = Deployment::start(&only("unavailable = true, times = 2")).await;
    for status in [503, 503, 200] {
        assert_eq!(failing.ask(PATH, "t", &chat(5, 8)).await.status, status);
    }

    let silent = Deployment::start(&only("silent_ms = 600000")).await;
    assert_eq!(silent.ask(PATH, "t", &streamed()).await.status, 504);
    let started = std::time::Instant::now();
    let refused = silent.ask(PATH, "t", &streamed()).await;
    assert_eq!((refused.status, calls(&silent).await), (503, json!(1)), "{}", refused.text());
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=25).contains(&seconds)));
    assert!(started.elapsed() < std::time::Duration::from_secs(1), "the caller waits for nothing");
}

#[tokio::test]
async fn a_pool_that_may_be_passed_on_answers_late_requests_by_the_next_pool_and_charges_both() {
    let fields = "first_byte_timeout_ms = 1000\non_silence = \"next_pool\"";
    let pools = TwoPools::start(fields, json!({ "silent_ms": 600_000 })).await;
    let answer = within(pools.0.post(PATH, "t", &streamed()).send()).await.expect("a stream");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-spillway-pool"]),
        (200, &"second".parse().expect("a name"))
    );
    let quota = pools.0.quota_when("t", |quota| used(quota, "in_flight") == 0).await;
    assert_eq!(used(&quota, "requests_per_minute"), 2, "{quota}");
}
