//! Limits hold at every moment, as counted by the simulator, and a refusal reports the correct
//! retry time.

use std::time::Duration;

use serde_json::{Value, json};
use spillway::{
    quota::{Charge, REAP_MARGIN},
    units::Millis,
};

use crate::support::{
    Deployment, chat, one_tenant,
    time::{assert_refused, next_response, priced_tokens, reserved_tokens},
};

/// Models that take 20 s of the stand-ins' clock, so that they answer only when the test advances
/// the clock.
const SLOW: &str = "[simulator]\ntime_to_first_token_ms = 20000";

async fn start(limits: &str, simulator: &str) -> Deployment {
    let deployment = Deployment::start(&format!("{}\n{simulator}", one_tenant(limits))).await;
    deployment.advance_to_noon();
    deployment
}

/// Returns the micro-USD that a chat reserves at prices of 1 and 2 USD per million tokens.
fn reserved_microusd(output_tokens: u64) -> u64 {
    priced_tokens(&chat(output_tokens, output_tokens)) + output_tokens
}

/// Sends 200 concurrent chats, of which `admitted` fit under `limit`. Returns the waits of all
/// refusals.
async fn send_two_hundred(deployment: &Deployment, body: &Value, limit: &str, admitted: usize) -> Vec<u64> {
    let mut answers = deployment.burst(200, "t", body);
    let mut waits = Vec::new();
    for _ in admitted..200 {
        waits.push(assert_refused(&next_response(&mut answers).await, limit));
    }
    deployment.simulator_when(|account| account["tenants"]["t"]["in_flight"] == admitted).await;
    deployment.world.advance(20_000);
    while !answers.is_empty() {
        assert_eq!(next_response(&mut answers).await.status(), 200);
    }
    waits
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_concurrent_requests_never_more_than_forty_are_in_flight() {
    let deployment = start("{ in_flight = 40 }", SLOW).await;
    let waits = send_two_hundred(&deployment, &chat(10, 10), "in_flight", 40).await;
    let statistics = deployment.simulator().await["tenants"]["t"].clone();
    assert_eq!((&statistics["requests"], &statistics["peak_in_flight"]), (&json!(40), &json!(40)), "{statistics}");

    deployment.world.advance(waits.into_iter().max().unwrap_or_default());
    assert_eq!(deployment.quickly(deployment.chat("t", 10, 10)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_concurrent_requests_exactly_the_tokens_of_a_minute_are_admitted() {
    let body = chat(50, 50);
    let limit = 11 * reserved_tokens(&body) - 1;
    let deployment = start(&format!("{{ tokens_per_minute = {limit} }}"), SLOW).await;
    let waits = send_two_hundred(&deployment, &body, "tokens_per_minute", 10).await;
    let statistics = deployment.simulator().await["tenants"]["t"].clone();
    assert_eq!((&statistics["requests"], &statistics["output_tokens"]), (&json!(10), &json!(500)), "{statistics}");
    let worst_minute = statistics["worst_minute_quota_tokens"].as_u64().expect("tokens");
    assert!((500..=limit).contains(&worst_minute), "{worst_minute} of {limit}");

    deployment.world.advance(waits.into_iter().max().unwrap_or_default());
    assert_eq!(deployment.quickly(deployment.chat("t", 50, 50)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_concurrent_requests_exactly_the_requests_of_a_minute_are_admitted() {
    let deployment = start("{ requests_per_minute = 7 }", "").await;
    let mut answers = deployment.burst(200, "t", &chat(5, 5));
    let mut admitted = 0;
    while !answers.is_empty() {
        let answer = next_response(&mut answers).await;
        if answer.status() == 200 {
            admitted += 1;
        } else {
            assert_refused(&answer, "requests_per_minute");
        }
    }
    assert_eq!(admitted, 7);
    assert_eq!(deployment.simulator().await["tenants"]["t"]["requests"], 7);
}

#[tokio::test]
async fn a_refused_request_fits_at_its_retry_time_and_not_before() {
    let body = chat(20, 20);
    let tokens = reserved_tokens(&body);
    let token_charge = Charge { minute_tokens: tokens, day_tokens: tokens, ..Charge::ZERO };
    let cases = [
        ("requests_per_minute", 1, Charge { requests: 1, ..Charge::ZERO }),
        ("tokens_per_minute", tokens, token_charge),
        ("tokens_per_day", tokens, token_charge),
    ];
    for (limit, cap, charge) in cases {
        let deployment = start(&format!("{{ {limit} = {cap} }}"), "").await;
        let _unsettled = deployment.occupy("t", charge, 30_000).await;
        let wait_ms = assert_refused(&deployment.chat("t", 20, 20).await, limit);
        deployment.world.advance(wait_ms - 4_000);
        let rest_ms = assert_refused(&deployment.chat("t", 20, 20).await, limit);
        deployment.world.advance(rest_ms);
        assert_eq!(deployment.chat("t", 20, 20).await.status(), 200, "{limit} after {wait_ms} ms");
    }
}

#[tokio::test]
async fn the_error_for_an_exhausted_budget_keeps_clients_from_retrying() {
    let cost = reserved_microusd(100);
    let deployment = start(&format!("{{ microusd_per_month = {cost} }}"), "").await;
    assert_eq!(deployment.chat("t", 100, 100).await.status(), 200);

    let messages = json!([{ "role": "user", "content": "[[output_tokens=100]]" }]);
    let openai = json!({ "model": "m", "max_tokens": 100, "messages": messages });
    let converse = json!({
        "messages": [{ "role": "user", "content": [{ "text": "[[output_tokens=100]]" }] }],
        "inferenceConfig": { "maxTokens": 100 },
    });
    let routes = [
        ("/v1/chat/completions", &openai, 402, "x-should-retry", "false"),
        ("/v1/messages", &openai, 402, "x-should-retry", "false"),
        ("/model/m/converse", &converse, 400, "x-amzn-errortype", "ServiceQuotaExceededException"),
    ];
    let mut wait_ms = 0;
    for (path, body, status, header, value) in routes {
        let refused =
            deployment.post(path, "t", body).header("prefer", "respond-async").send().await.expect("an answer");
        assert_eq!(refused.status(), status, "{path}");
        assert_eq!(refused.headers()[header], value, "{path}");
        assert_eq!(refused.headers()["x-spillway-limit"], "microusd_per_month", "{path}");
        wait_ms = refused.headers()["retry-after-ms"].to_str().expect("text").parse().expect("milliseconds");
    }
    deployment.world.advance(wait_ms);
    assert_eq!(deployment.chat("t", 100, 100).await.status(), 200, "a new month");
}

#[tokio::test]
async fn a_refusal_changes_no_counter() {
    let body = chat(20, 20);
    let cases = [
        ("requests_per_minute", 1),
        ("tokens_per_minute", reserved_tokens(&body)),
        ("tokens_per_day", reserved_tokens(&body)),
        ("in_flight", 1),
        ("microusd_per_month", reserved_microusd(20)),
    ];
    for (limit, cap) in cases {
        let deployment = start(&format!("{{ {limit} = {cap} }}"), "").await;
        let tokens = reserved_tokens(&body);
        let cost_microusd = reserved_microusd(20);
        let charge = Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, cost_microusd, ..Charge::ZERO };
        let _running = deployment.occupy("t", charge, 30_000).await;
        let before = deployment.ledger("t").await;
        for _ in 0..3 {
            let refused = deployment.chat("t", 20, 20).await;
            assert_eq!(refused.headers()["x-spillway-limit"], limit);
        }
        assert_eq!(deployment.ledger("t").await, before, "{limit}");
        assert_eq!(deployment.simulator().await["total"]["requests"], 0, "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_one_admits_exactly_one_request() {
    for limit in ["requests_per_minute", "in_flight"] {
        let deployment = start(&format!("{{ {limit} = 1 }}"), SLOW).await;
        let mut answers = deployment.burst(5, "t", &chat(5, 5));
        for _ in 0..4 {
            assert_refused(&next_response(&mut answers).await, limit);
        }
        deployment.simulator_when(|account| account["tenants"]["t"]["in_flight"] == 1).await;
        deployment.world.advance(20_000);
        assert_eq!(deployment.quickly(next_response(&mut answers)).await.status(), 200, "{limit}");
        assert_eq!(deployment.simulator().await["total"]["requests"], 1, "{limit}");
    }
    for (limit, status) in [("tokens_per_minute", 400), ("tokens_per_day", 400), ("microusd_per_month", 402)] {
        let deployment = start(&format!("{{ {limit} = 1 }}"), "").await;
        let refused = deployment.chat("t", 5, 5).await;
        assert_eq!(refused.status(), status, "{limit}");
        assert_eq!(refused.headers()["x-spillway-limit"], limit);
        assert!(refused.headers().get("retry-after").is_none(), "waiting does not help: {limit}");
        assert_eq!(deployment.ledger("t").await.iter().count(), 0, "{limit}");
    }
}

#[tokio::test]
async fn a_request_is_held_for_room_if_its_tenant_or_its_prefer_header_allows_it() {
    let settings = one_tenant("{ in_flight = 1 }").replace("name = \"t\"", "name = \"t\"\nhold_ms = 10_000");
    let deployment = Deployment::start(&settings).await;
    for prefer in [None, Some("wait=10")] {
        let running = deployment.occupy("t", Charge { requests: 1, ..Charge::ZERO }, 600_000).await;
        let mut request = deployment.post("/v1/chat/completions", "t", &chat(5, 5));
        if let Some(prefer) = prefer {
            request = request.header("prefer", prefer);
        }
        let held = tokio::spawn(request.send());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!held.is_finished(), "the request is held");
        let nothing = spillway::quota::Settled::refund();
        deployment.world.app.ledger.settle(running, &nothing).await.expect("room again");
        let answer = deployment.quickly(held).await.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_held_long_enough_is_refused_immediately() {
    let settings = one_tenant("{ in_flight = 1, requests_per_minute = 100 }");
    let deployment = Deployment::start(&settings.replace("name = \"t\"", "name = \"t\"\nhold_ms = 10_000")).await;
    deployment.advance_to_noon();
    let charge = Charge { requests: 1, ..Charge::ZERO };
    let _running = deployment.occupy("t", charge, 600_000).await;
    let ask = async |prefer: &'static str| {
        let request = deployment.post("/v1/chat/completions", "t", &chat(5, 5)).header("prefer", prefer);
        request.send().await.expect("an answer")
    };
    let before = deployment.world.app.clock.now();
    assert_refused(&ask("wait=0").await, "in_flight");
    assert_refused(&ask("wait=1").await, "in_flight");
    assert!(
        deployment.world.app.clock.now() - before < Millis::from_s(3),
        "no caller waits for room that cannot come in time"
    );
    assert_refused(&deployment.quickly(ask("wait=9")).await, "in_flight");
    let waited_ms = (deployment.world.app.clock.now() - before).as_ms();
    assert!((5_000..12_000).contains(&waited_ms), "{waited_ms}");
}

#[tokio::test]
async fn an_abandoned_reservation_frees_its_slot_by_its_deadline() {
    let deployment = start("{ in_flight = 1 }", "").await;
    drop(deployment.occupy("t", Charge { requests: 1, ..Charge::ZERO }, 10_000).await);
    deployment.world.advance(8_000);
    assert_refused(&deployment.chat("t", 5, 5).await, "in_flight");
    // The deadline, rounded up to a slot of 15 s, and a margin for clock skew.
    deployment.world.advance(2_000 + 15_000 + REAP_MARGIN.as_ms());
    assert_eq!(deployment.quota("t").await["limits"][0]["used"], 0);
    assert_eq!(deployment.chat("t", 5, 5).await.status(), 200);
    assert_eq!(deployment.quota("t").await["limits"][0]["used"], 0);
}

#[tokio::test]
async fn a_client_that_disconnects_frees_its_slot_and_is_charged() {
    for stream in [false, true] {
        let deployment = start("{ in_flight = 1 }", SLOW).await;
        let mut body = chat(30, 40);
        body["stream"] = json!(stream);
        let request = deployment.post("/v1/chat/completions", "t", &body).timeout(Duration::from_millis(500));
        assert!(request.send().await.is_err(), "the client disconnects");
        deployment.simulator_when(|account| account["total"]["in_flight"] == 1).await;
        deployment.world.advance(20_000);
        let quota = deployment.quota_when("t", |quota| quota["settled"]["output_tokens"] == 30).await;
        assert_eq!(quota["limits"][0]["used"], 0, "stream: {stream}");
        assert_eq!(deployment.simulator().await["tenants"]["t"]["output_tokens"], 30, "stream: {stream}");
    }
}
