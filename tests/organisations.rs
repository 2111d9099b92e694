//! Tenants with a parent: the limits of both hold, both or neither is charged, and a refusal names
//! the tenant of the limit.

use serde_json::json;
use spillway::quota::Settled;

use crate::support::{
    Deployment,
    answer::{charged, pool, three_chats, used},
    chat,
    jobs::ONE_REQUEST,
    key,
    time::assert_refused,
};

const PATH: &str = "/v1/chat/completions";

/// Starts a deployment at noon with the members `a` and `b` of the organisation `org`.
async fn organisation(org: &str, a: &str, b: &str) -> Deployment {
    let tenants = [("org", org), ("a", a), ("b", b)].map(|(name, limits)| {
        let parent = if name == "org" { "" } else { "parent = \"org\"\n" };
        format!("[[tenants]]\nname = \"{name}\"\n{parent}limits = {limits}\n")
    });
    let pools = pool("on-demand", "on_demand", "sim.model", "");
    let settings = format!(
        "[keys]\na = \"{}\"\nb = \"{}\"\n{}\n[[models]]\nname = \"m\"\ntimeout_ms = 30000\n{pools}",
        key("a"),
        key("b"),
        tenants.concat()
    );
    let deployment = Deployment::start(&settings).await;
    deployment.advance_to_noon();
    deployment
}

#[tokio::test]
async fn members_share_the_limits_of_their_organisation() {
    let deployment = organisation("{ requests_per_minute = 3 }", "{ requests_per_minute = 2 }", "{}").await;
    for tenant in ["a", "a", "b"] {
        assert_eq!(deployment.chat(tenant, 5, 5).await.status(), 200, "{tenant}");
    }
    let refused = deployment.chat("a", 5, 5).await;
    assert_eq!(refused.headers()["x-spillway-limit-of"], "a", "the member's limit comes first");
    assert_refused(&refused, "requests_per_minute");
    for (path, body) in three_chats(5, Some(5)) {
        let answer = deployment.ask(path, "b", &body).await;
        assert_eq!((answer.status, answer.header("x-spillway-limit-of")), (429, "org"), "{path}");
        assert!(answer.text().contains("Tenant org has reached its limit: requests_per_minute of 3"), "{path}");
    }
}

#[tokio::test]
async fn a_refusal_by_the_organisation_does_not_charge_its_member() {
    let deployment = organisation("{ in_flight = 1 }", "{ in_flight = 5, tokens_per_day = 100000 }", "{}").await;
    let running = deployment.occupy("org", ONE_REQUEST, 600_000).await;
    let before = charged(&deployment.quota("a").await);
    let answer = deployment.chat("a", 5, 5).await;
    assert_eq!(answer.headers()["x-spillway-limit-of"], "org");
    assert_refused(&answer, "in_flight");
    assert_eq!(charged(&deployment.quota("a").await), before);
    deployment.world.app.ledger.settle(running, &Settled::refund()).await.expect("room again");
    assert_eq!(deployment.chat("a", 5, 5).await.status(), 200);
}

#[tokio::test]
async fn the_usage_of_a_member_is_also_settled_on_its_organisation() {
    let limits = "{ tokens_per_day = 100000, in_flight = 10 }";
    let deployment = organisation(limits, limits, limits).await;
    let mut stream = chat(5, 500);
    stream["stream"] = json!(true);
    for (tenant, body) in [("a", chat(5, 500)), ("b", stream)] {
        assert_eq!(deployment.ask(PATH, tenant, &body).await.status, 200);
    }
    let members_total: u64 = [deployment.quota("a").await, deployment.quota("b").await]
        .iter()
        .map(|quota| used(quota, "tokens_per_day"))
        .sum();
    let org = deployment.ledger("org").await;
    let account = deployment.account("org").await;
    let states = account.states(&[org], deployment.world.app.clock.now());
    assert_eq!((states[0].used, states[1].used), (members_total, 0));
    assert_eq!(members_total, deployment.simulator().await["total"]["quota_tokens"].as_u64().expect("tokens"));
}

#[tokio::test]
async fn the_error_for_a_request_that_can_never_fit_names_the_organisation() {
    let deployment = organisation("{ tokens_per_minute = 300 }", "{}", "{}").await;
    let answer = deployment.ask(PATH, "a", &chat(5, 500)).await;
    assert_eq!((answer.status, answer.header("x-spillway-limit-of")), (400, "org"));
    assert!(answer.text().contains("tokens_per_minute of 300 of tenant org"), "{}", answer.text());
    assert_eq!(deployment.ask(PATH, "a", &chat(5, 20)).await.status, 200);
}

#[tokio::test]
async fn a_changed_limit_of_the_organisation_applies_to_the_next_request_of_a_member() {
    let deployment = organisation("{ requests_per_minute = 100 }", "{}", "{}").await;
    assert_eq!(deployment.chat("a", 5, 5).await.status(), 200);
    let app = &deployment.world.app;
    let mut org = (*app.registry.tenant("org").await.expect("read").expect("a tenant")).clone();
    org.limits.requests_per_minute = Some(1);
    // As the command does from another process: first the registry, then the fence.
    let operator = deployment.another_app().await;
    operator.registry.put_tenant(&org).await.expect("written");
    org.version += 1;
    operator.ledger.fence(&spillway::broker::account_for(&org), 1).await.expect("fenced");
    let answer = deployment.chat("a", 5, 5).await;
    assert_eq!(answer.headers()["x-spillway-limit-of"], "org");
    assert_refused(&answer, "requests_per_minute");
}

#[tokio::test]
async fn a_deleted_organisation_admits_nothing() {
    let deployment = organisation("{}", "{}", "{}").await;
    deployment.world.app.registry.delete_tenant("org").await.expect("deleted");
    let answer = deployment.ask(PATH, "a", &chat(5, 5)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(answer.text().contains("Tenant a belongs to org, which does not exist"), "{}", answer.text());
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
}
