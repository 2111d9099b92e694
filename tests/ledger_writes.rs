//! The writes of the ledger, counted on the wire, and its behaviour when DynamoDB fails.

use serde_json::{Value, json};
use spillway::quota::{Attribute, REAP_MARGIN, Settled};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{
    Deployment,
    answer::{Answer, deployment, pool, three_chats, used},
    chat,
    jobs::ONE_REQUEST,
    time::{assert_refused, eventually},
};

const CHAT: &str = "/v1/chat/completions";

/// Starts a deployment at noon with a model that has one pool with `pool_fields`.
async fn start(limits: &str, pool_fields: &str) -> Deployment {
    let pool = pool("on-demand", "on_demand", "sim.model", pool_fields);
    let deployment = Deployment::start(&deployment(&format!("limits = {limits}"), &pool)).await;
    deployment.advance_to_noon();
    deployment
}

impl Deployment {
    /// Returns the number of DynamoDB requests of this operation.
    async fn count(&self, operation: &str) -> u64 {
        self.dynamodb_operations().await[operation].as_u64().unwrap_or(0)
    }

    /// Returns the number of ledger writes of `times` such requests with a warm registry cache.
    /// Fails if they read. The cache is read again after 1 s, so a slow machine needs a few tries.
    async fn writes_of(&self, times: u64, body: &Value, status: u16) -> u64 {
        for _ in 0..10 {
            self.world.advance(2_000);
            assert_eq!(self.ask(CHAT, "t", body).await.status, status);
            let (reads, writes) = (self.reads().await, self.count("UpdateItem").await);
            for _ in 0..times {
                assert_eq!(self.ask(CHAT, "t", body).await.status, status);
            }
            let after = self.count("UpdateItem").await;
            if self.reads().await == reads {
                return after - writes;
            }
        }
        panic!("requests with a warm cache read from DynamoDB");
    }

    async fn reads(&self) -> u64 {
        self.count("GetItem").await + self.count("Query").await + self.count("Scan").await
    }

    fn inject(&self, effect: Effect, skip: u64, times: u64) {
        let faults = self.world.stand_ins.dynamodb_faults();
        faults.inject(Fault { skip, times: Some(times), ..Fault::on("UpdateItem", effect) });
    }
}

#[tokio::test]
async fn an_admitted_request_costs_two_writes_and_two_more_on_a_pool_with_limits() {
    let mut stream = chat(5, 5);
    stream["stream"] = json!(true);
    for (pool_fields, writes) in [("", 2), ("limits = { tokens_per_minute = 100000 }", 4)] {
        let deployment = start("{ tokens_per_minute = 100000, in_flight = 10 }", pool_fields).await;
        assert_eq!(deployment.writes_of(5, &chat(5, 5), 200).await, 5 * writes);
        assert_eq!(deployment.writes_of(5, &stream, 200).await, 5 * writes);
    }
}

#[tokio::test]
async fn a_refusal_costs_one_write_and_the_refusals_soon_after_it_cost_none() {
    for (limit, valid_ms) in [("requests_per_minute", 500), ("in_flight", 100)] {
        let deployment = start(&format!("{{ {limit} = 1 }}"), "limits = { tokens_per_minute = 100000 }").await;
        let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
        assert_refused(&deployment.chat("t", 5, 5).await, limit);
        for _ in 0..3 {
            let before = deployment.count("UpdateItem").await;
            deployment.world.advance(valid_ms);
            assert_refused(&deployment.chat("t", 5, 5).await, limit);
            assert_eq!(deployment.count("UpdateItem").await - before, 1, "{limit}");
        }
    }
    let deployment = start("{ requests_per_minute = 1 }", "").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let writes = deployment.writes_of(5, &chat(5, 5), 429).await;
    assert!(writes < 5, "{writes} writes for five refusals within half a second of the first");
}

#[tokio::test]
async fn refusals_are_recorded_in_one_write_every_five_seconds() {
    let deployment = start("{ requests_per_minute = 1 }", "").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
    let before = deployment.count("UpdateItem").await;
    for _ in 0..10 {
        assert_refused(&deployment.chat("t", 5, 5).await, "requests_per_minute");
    }
    deployment.world.advance(5_000);
    assert_refused(&deployment.chat("t", 5, 5).await, "requests_per_minute");
    let records = deployment.world.app.refusals.for_tenant("t").await.expect("the ledger");
    assert_eq!((records.len(), records[0].limit.as_str(), records[0].count), (1, "requests_per_minute", 11));
    let writes = deployment.count("UpdateItem").await - before;
    assert!((3..=2 + 11).contains(&writes), "two records, and at most one write for each refusal: {writes}");
}

#[tokio::test]
async fn a_recent_refusal_ends_at_its_retry_time() {
    // On a slow machine the window may end in real time before the second refusal. Then the test
    // tries again.
    for _ in 0..10 {
        let deployment = start("{ requests_per_minute = 1 }", "").await;
        let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
        let wait_ms = assert_refused(&deployment.chat("t", 5, 5).await, "requests_per_minute");
        deployment.world.advance(wait_ms - 400);
        let second = deployment.chat("t", 5, 5).await;
        if second.status() == 429 {
            deployment.world.advance(assert_refused(&second, "requests_per_minute"));
            let third = deployment.chat("t", 5, 5).await;
            assert_eq!(third.status(), 200, "the window has ended, though half a second has not passed");
            return;
        }
    }
    panic!("no second refusal came in time");
}

#[tokio::test]
async fn a_slot_that_this_process_frees_is_available_immediately() {
    let deployment = start("{ in_flight = 1 }", "").await;
    for _ in 0..5 {
        let running = deployment.occupy("t", ONE_REQUEST, 600_000).await;
        assert_refused(&deployment.chat("t", 5, 5).await, "in_flight");
        deployment.world.app.ledger.settle(running, &Settled::refund()).await.expect("settled");
        assert_eq!(deployment.chat("t", 5, 5).await.status(), 200);
    }
}

#[tokio::test]
async fn a_refusal_by_a_full_pool_costs_the_tenants_reservation_and_its_release() {
    let deployment = start("{ in_flight = 10 }", "limits = { requests_per_minute = 12 }").await;
    while deployment.ask(CHAT, "t", &chat(5, 5)).await.status == 200 {}
    // A pool's refusal is valid for half a second. On a slow machine the request alone may take
    // longer.
    let mut writes = Vec::new();
    for elapsed_ms in [500, 0, 0, 0, 0, 0, 0, 0, 0] {
        let before = deployment.count("UpdateItem").await;
        deployment.world.advance(elapsed_ms);
        assert_eq!(deployment.ask(CHAT, "t", &chat(5, 5)).await.status, 429);
        writes.push(deployment.count("UpdateItem").await - before);
    }
    assert_eq!((writes[0], writes.iter().min()), (3, Some(&2)), "{writes:?}");
    assert_eq!(used(&deployment.quota("t").await, "in_flight"), 0);
}

#[tokio::test]
async fn a_throttled_reservation_is_retried_once() {
    let deployment = start("{ requests_per_minute = 10 }", "").await;
    deployment.inject(Effect::Throttle, 0, 1);
    assert_eq!(deployment.ask(CHAT, "t", &chat(5, 5)).await.status, 200);
    assert_eq!(deployment.count("UpdateItem").await, 1 + 2);
    assert_eq!(used(&deployment.quota("t").await, "requests_per_minute"), 1);
}

#[tokio::test]
async fn a_throttled_reservation_of_a_pool_leads_to_the_next_pool_without_a_retry() {
    let pools = [("first", "sim.first"), ("second", "sim.second")].map(|(name, id)| {
        let fields = if name == "first" { "limits = { tokens_per_minute = 100000 }" } else { "" };
        pool(name, "on_demand", id, fields)
    });
    let deployment = Deployment::start(&deployment("limits = { in_flight = 10 }", &pools.concat())).await;
    deployment.inject(Effect::Throttle, 1, 2);
    let answer = deployment.ask(CHAT, "t", &chat(5, 5)).await;
    assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, "second"));
}

#[tokio::test]
async fn a_ledger_that_stays_throttled_admits_nothing() {
    let deployment = start("{ requests_per_minute = 10 }", "").await;
    deployment.inject(Effect::Throttle, 0, 100);
    for (path, body) in three_chats(5, Some(5)) {
        let refused = deployment.ask(path, "t", &body).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{path}");
    }
    deployment.world.stand_ins.dynamodb_faults().clear();
    assert_eq!(used(&deployment.quota("t").await, "requests_per_minute"), 0);
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_with_unknown_outcome_is_an_error_and_frees_its_slot_by_its_deadline() {
    // A request that gives up while it waits for the write of another is not charged.
    let deployment = start("{ in_flight = 1 }", "").await;
    deployment.inject(Effect::TimeoutAfter, 0, 3);
    let chats = three_chats(5, Some(5));
    let answers = tokio::join!(
        deployment.ask(chats[0].0, "t", &chats[0].1),
        deployment.ask(chats[1].0, "t", &chats[1].1),
        deployment.ask(chats[2].0, "t", &chats[2].1),
    );
    for (answer, path) in <[Answer; 3]>::from(answers).iter().zip(chats.map(|(path, _)| path)) {
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{path}");
        let text = answer.text();
        assert!(text.contains("The ledger cannot be reached"), "{text}");
    }
    let writes = deployment.count("UpdateItem").await;
    assert!((1..=3).contains(&writes), "waiting requests share a write, and no write is sent twice: {writes}");
    deployment.world.stand_ins.dynamodb_faults().clear();
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
    assert_refused(&deployment.chat("t", 5, 5).await, "in_flight");
    // The model's 30 s, rounded up to a slot of 15 s, and a margin for clock skew.
    deployment.world.advance(30_000 + 15_000 + REAP_MARGIN.as_ms());
    assert_eq!(deployment.chat("t", 5, 5).await.status(), 200);
    assert_eq!(used(&deployment.quota("t").await, "in_flight"), 0);
}

#[tokio::test]
async fn a_failed_reservation_is_an_error_and_charges_nothing() {
    let deployment = start("{ in_flight = 1 }", "").await;
    deployment.inject(Effect::Error500, 0, 1);
    assert_eq!(deployment.chat("t", 5, 5).await.status(), 503);
    assert_eq!(deployment.count("UpdateItem").await, 1);
    assert_eq!(deployment.chat("t", 5, 5).await.status(), 200, "the slot is free");
}

#[tokio::test]
async fn a_settlement_with_unknown_outcome_is_not_sent_again() {
    // A second attempt that takes effect would give the reserve back twice.
    for effect in [Effect::TimeoutAfter, Effect::CutAfter] {
        let deployment = start("{ in_flight = 1, tokens_per_minute = 10000 }", "").await;
        deployment.inject(effect, 1, 1);
        assert_eq!(deployment.chat("t", 5, 500).await.status(), 200, "{effect:?}");
        assert_eq!(deployment.count("UpdateItem").await, 2, "{effect:?}");
        let served = deployment.simulator().await["tenants"]["t"]["quota_tokens"].clone();
        let quota = deployment.quota("t").await;
        assert_eq!((json!(used(&quota, "tokens_per_minute")), used(&quota, "in_flight")), (served, 0), "{effect:?}");
        assert_eq!(quota["settled"]["requests"], 1, "{effect:?}");
    }
}

#[tokio::test]
async fn a_failed_settlement_leaves_its_tokens_charged_and_its_slot_taken_until_the_deadline() {
    let deployment = start("{ in_flight = 1, tokens_per_day = 10000 }", "").await;
    deployment.inject(Effect::Error500, 1, 1);
    assert_eq!(deployment.chat("t", 5, 500).await.status(), 200);
    assert_eq!(deployment.count("UpdateItem").await, 2);
    assert!(used(&deployment.quota("t").await, "tokens_per_day") > 500);
    assert_refused(&deployment.chat("t", 5, 5).await, "in_flight");
    deployment.world.advance(30_000 + 15_000 + REAP_MARGIN.as_ms());
    let before = used(&deployment.quota("t").await, "tokens_per_day");
    assert_eq!(deployment.chat("t", 5, 500).await.status(), 200);
    let quota = deployment.quota("t").await;
    assert!(used(&quota, "tokens_per_day") > before, "the slot was freed, but not the tokens");
    assert_eq!((used(&quota, "in_flight"), &quota["settled"]["requests"]), (0, &json!(1)));
}

#[tokio::test]
async fn a_throttled_settlement_is_retried() {
    let deployment = start("{ in_flight = 1 }", "").await;
    deployment.inject(Effect::Throttle, 1, 2);
    assert_eq!(deployment.chat("t", 5, 500).await.status(), 200);
    let quota = deployment.quota("t").await;
    assert_eq!((used(&quota, "in_flight"), &quota["settled"]["requests"]), (0, &json!(1)));
    assert_eq!(deployment.count("UpdateItem").await, 2 + 2);
    let image = deployment.ledger("t").await;
    assert_eq!((image.get(Attribute::InFlight), image.get(Attribute::SettledOutput)), (0, 5));
}

#[tokio::test]
async fn the_registry_cache_is_used_for_a_minute_while_the_registry_is_unavailable() {
    let deployment = start("{ requests_per_minute = 100 }", "").await;
    assert_eq!(deployment.chat("t", 5, 5).await.status(), 200);
    for operation in ["GetItem", "Query"] {
        deployment.world.stand_ins.dynamodb_faults().inject(Fault::on(operation, Effect::Error500));
    }
    deployment.world.advance(30_000);
    assert_eq!(deployment.chat("t", 5, 5).await.status(), 200, "the cache is half a minute old");
    deployment.world.advance(31_000);
    for (path, body) in three_chats(5, Some(5)) {
        let refused = deployment.ask(path, "t", &body).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{path}");
    }
    deployment.world.stand_ins.dynamodb_faults().clear();
    eventually("the registry is read again", async || {
        deployment.world.advance(1_000);
        deployment.chat("t", 5, 5).await.status() == 200
    })
    .await;
}
