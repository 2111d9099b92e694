//! Pools under pressure: a tenant within its committed share finds room behind a tenant that is
//! above its share.

use serde_json::json;
use spillway::{
    broker,
    quota::Charge,
    units::{Millis, UnixMs},
};

use crate::support::{
    Deployment,
    answer::{Answer, pool},
    chat, key,
};

const PATH: &str = "/v1/chat/completions";

/// Starts a noisy tenant with a small committed share and a quiet tenant on one pool of twenty
/// requests a minute.
async fn noisy_and_quiet(pool_fields: &str) -> Deployment {
    let tenants =
        [("noisy", "committed_tokens_per_minute = 100\n"), ("quiet", "committed_tokens_per_minute = 10000\n")];
    let tenants = tenants.map(|(name, committed)| {
        format!("[[tenants]]\nname = \"{name}\"\nclass = \"interactive\"\n{committed}limits = {{ tokens_per_day = 1000000 }}\n")
    });
    let fields = format!("limits = {{ requests_per_minute = 20 }}\nburst = {{ requests_s = 60 }}\n{pool_fields}");
    let settings = format!(
        "[keys]\nnoisy = \"{}\"\nquiet = \"{}\"\n{}\n[[models]]\nname = \"m\"\ntimeout_ms = 30000\n{}",
        key("noisy"),
        key("quiet"),
        tenants.concat(),
        pool("pool", "on_demand", "sim.model", &fields)
    );
    let deployment = Deployment::start(&settings).await;
    deployment.advance_to_noon();
    deployment
}

impl Deployment {
    /// Returns the number of requests of `tenant` that are answered before the first refusal.
    async fn answered(&self, tenant: &str) -> u64 {
        let mut answered = 0;
        loop {
            let Answer { status, .. } = self.ask(PATH, tenant, &chat(30, 30)).await;
            match status {
                200 => answered += 1,
                status => {
                    assert_eq!(status, 429);
                    return answered;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_tenant_above_its_share_leaves_room_for_tenants_within_their_shares() {
    let deployment = noisy_and_quiet("").await;
    assert_eq!(deployment.answered("noisy").await, 18, "nine tenths");
    assert_eq!(deployment.answered("quiet").await, 2);
}

#[tokio::test]
async fn a_tenant_within_its_share_may_use_the_whole_pool() {
    let deployment = noisy_and_quiet("").await;
    assert_eq!(deployment.answered("quiet").await, 20);
}

#[tokio::test]
async fn excess_percent_sets_how_much_of_a_pool_is_open_to_tenants_above_their_share() {
    assert_eq!(noisy_and_quiet("excess_percent = 100").await.answered("noisy").await, 20);
    // The first request is still within its share.
    assert_eq!(noisy_and_quiet("excess_percent = 50").await.answered("noisy").await, 10);
}

#[tokio::test]
async fn the_burst_setting_decides_how_much_of_a_minute_can_be_used_immediately() {
    for (burst_s, immediate_requests) in [(0, 10), (5, 20), (25, 60), (55, 120), (60, 120)] {
        let settings = crate::support::one_tenant("{ requests_per_minute = 120 }")
            .replace("limits =", &format!("burst = {{ requests_s = {burst_s} }}\nlimits ="));
        let deployment = Deployment::start(&settings).await;
        deployment.advance_to_noon();
        assert_eq!(deployment.reservations("t").await, immediate_requests, "{burst_s} s");
    }
}

#[tokio::test]
async fn a_strict_limit_holds_in_every_unaligned_minute() {
    let settings = crate::support::one_tenant("{ requests_per_minute = 130 }")
        .replace("limits =", "burst = { requests_s = 0, strict = true }\nlimits =");
    let deployment = Deployment::start(&settings).await;
    deployment.advance_to_noon();
    let mut times = Vec::new();
    for _ in 0..30 {
        for _ in 0..deployment.reservations("t").await {
            times.push(deployment.world.app.clock.now());
        }
        deployment.world.advance(2_500);
    }
    let within = |from: UnixMs| times.iter().filter(|at| (from..from + Millis::from_s(60)).contains(*at)).count();
    let max_requests = times.iter().map(|from| within(*from)).max().unwrap_or_default();
    assert!((100..=130).contains(&max_requests), "{max_requests} in a minute");
}

#[tokio::test]
async fn a_reserve_rule_decides_whether_burndown_is_reserved_or_settled() {
    let body = chat(10, 100);
    for (rule, reserved_burndown) in [("conservative", 5), ("mirror", 1)] {
        let settings = crate::support::one_tenant("{ tokens_per_minute = 100000, tokens_per_day = 100000 }")
            .replace("limits =", &format!("reserve = {{ tokens_per_minute = \"{rule}\" }}\nlimits ="))
            .replace("kind =", "burndown = 5\nkind =")
            + "\n[simulator]\ntime_to_first_token_ms = 20000";
        let deployment = Deployment::start(&settings).await;
        deployment.advance_to_noon();
        let mut running = deployment.burst(1, "t", &body);
        deployment.simulator_when(|account| account["total"]["in_flight"] == 1).await;
        let input_tokens = crate::support::time::reserved_tokens(&body) - 100;
        let quota = deployment.quota("t").await;
        let used = |limit| crate::support::answer::used(&quota, limit);
        assert_eq!(used("tokens_per_minute"), input_tokens + 100 * reserved_burndown, "{rule}");
        assert_eq!(used("tokens_per_day"), input_tokens + 100 * 5, "the other limit keeps its default");
        deployment.world.advance(25_000);
        assert_eq!(crate::support::time::next_response(&mut running).await.status(), 200);
        let quota = deployment.quota("t").await;
        let settled = quota["settled"]["input_tokens"].as_u64().expect("tokens") + 10 * 5;
        assert_eq!(json!(crate::support::answer::used(&quota, "tokens_per_minute")), json!(settled), "{rule}");
    }
}

impl Deployment {
    /// Returns the number of single-request reservations that fit now.
    async fn reservations(&self, tenant: &str) -> u64 {
        let one_request = Charge { requests: 1, ..Charge::default() };
        let tenant = self.world.app.registry.tenant(tenant).await.expect("the registry").expect("a tenant");
        let account = broker::account_for(&tenant);
        let mut reserved = 0;
        loop {
            let expires_at = self.world.app.clock.now() + Millis::from_s(30);
            match self.world.app.ledger.reserve(&account, one_request, expires_at).await.expect("the ledger") {
                spillway::store::ledger::ReserveOutcome::Reserved(..) => reserved += 1,
                _ => return reserved,
            }
        }
    }
}
