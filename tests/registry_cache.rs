//! The registry cache of a process that serves one call after the other, as on Lambda.

use spillway::{app::App, broker, config::Config, pool::Model, tenant::ApiKey, units::Millis};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{
    Deployment,
    answer::{Answer, ask, deployment, pool, within},
    chat, key,
};

const CHAT: &str = "/v1/chat/completions";

/// Time between two calls of a process.
const CALL_MS: u64 = 4_000;

/// A process with the default configuration, which serves one call at a time.
struct Process {
    deployment: Deployment,
    app: App,
}

async fn start(limits: &str, pool_limits: &str) -> Process {
    let pools = pool("on-demand", "on_demand", "sim.model", &format!("limits = {pool_limits}"));
    let deployment = Deployment::start(&deployment(&format!("limits = {limits}"), &pools)).await;
    deployment.advance_to_noon();
    let app = deployment.app_with(&Config::from_lookup(|_| None).expect("defaults")).await;
    Process { deployment, app }
}

impl Process {
    async fn call(&self) -> Answer {
        within(ask(&self.app, self.deployment.post(CHAT, "t", &chat(5, 5)))).await.expect("no panic")
    }

    fn advance(&self, by_ms: u64) {
        self.deployment.world.advance(by_ms);
        self.app.clock.advance(Millis::from_ms(by_ms));
    }

    async fn reads(&self) -> u64 {
        let operations = self.deployment.dynamodb_operations().await;
        ["GetItem", "Query"].iter().filter_map(|operation| operations[operation].as_u64()).sum()
    }

    /// Returns the only model.
    async fn model(&self) -> Model {
        (**self.app.registry.catalogue().await.expect("read").models().next().expect("a model")).clone()
    }

    /// Writes a model as the command does from another process: first the registry, then the
    /// fences.
    async fn apply(&self, model: Model) {
        let operator = self.deployment.another_app().await;
        operator.registry.put_model(&model).await.expect("written");
        let model = Model { version: model.version + 1, ..model };
        for pool in model.ladder.iter() {
            operator.ledger.fence(&broker::account_for_pool(&model, pool, 100), 1).await.expect("fenced");
        }
    }
}

#[tokio::test]
async fn calls_some_seconds_apart_do_not_wait_for_the_registry() {
    let process = start("{ requests_per_minute = 1000 }", "{ requests_per_minute = 1000 }").await;
    assert_eq!(process.call().await.status, 200);
    let before = process.reads().await;
    // Each read now ends only when the clock of the stand-ins is advanced for the next call.
    for operation in ["GetItem", "Query"] {
        let fault = Fault::on(operation, Effect::DelayMs(CALL_MS / 2));
        process.deployment.world.stand_ins.dynamodb_faults().inject(fault);
    }
    let calls = 30;
    for _ in 0..calls {
        process.advance(CALL_MS);
        // A read that ends by this advance is cached before the next call.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(process.call().await.status, 200);
    }
    let reads = process.reads().await - before;
    assert!((9..=24).contains(&reads), "{reads} reads for {calls} calls: key, tenant and models every 16 s");
}

#[tokio::test]
async fn a_changed_limit_of_a_tenant_binds_the_next_call_of_a_process_with_a_full_cache() {
    let process = start("{ requests_per_minute = 1000 }", "{}").await;
    assert_eq!(process.call().await.status, 200);
    process.advance(CALL_MS);
    let operator = process.deployment.another_app().await;
    let mut tenant = (*operator.registry.tenant("t").await.expect("read").expect("a tenant")).clone();
    tenant.limits.requests_per_minute = Some(1);
    operator.registry.put_tenant(&tenant).await.expect("written");
    tenant.version += 1;
    operator.ledger.fence(&broker::account_for(&tenant), 1).await.expect("fenced");
    let refused = process.call().await;
    assert_eq!((refused.status, refused.header("x-spillway-limit")), (429, "requests_per_minute"));
}

#[tokio::test]
async fn a_changed_limit_of_a_pool_binds_the_next_call_of_a_process_with_a_full_cache() {
    let process = start("{}", "{ requests_per_minute = 1000 }").await;
    assert_eq!(process.call().await.status, 200);
    process.advance(CALL_MS);
    let mut model = process.model().await;
    model.ladder[0].limits.requests_per_minute = Some(1);
    process.apply(model).await;
    let refused = process.call().await;
    assert_eq!((refused.status, refused.header("x-spillway-limit")), (429, "model_capacity"), "{}", refused.text());
}

#[tokio::test]
async fn a_changed_ladder_refuses_no_call() {
    let process = start("{}", "{ requests_per_minute = 1000 }").await;
    assert_eq!(process.call().await.header("x-spillway-pool"), "on-demand");
    process.advance(CALL_MS);
    let mut model = process.model().await;
    let mut bought = model.ladder[0].clone();
    bought.name = "bought".into();
    model.ladder.insert(0, bought);
    process.apply(model).await;
    let answer = process.call().await;
    assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, "bought"), "{}", answer.text());
}

#[tokio::test]
async fn a_revoked_key_works_for_half_a_minute_at_most() {
    let process = start("{}", "{}").await;
    assert_eq!(process.call().await.status, 200);
    let revoked = ApiKey::parse(&key("t")).expect("a key");
    let operator = process.deployment.another_app().await.registry;
    assert!(operator.revoke_key(revoked.id()).await.expect("written"));
    process.advance(30_000);
    assert_eq!(process.call().await.status, 401);
}
