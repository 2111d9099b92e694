//! The models and limits of a key, and how soon a registry change applies to a running system.

use serde_json::{Value, json};
use spillway::tenant::{ApiKey, KeyRecord};

use crate::support::{
    Deployment,
    answer::{Answer, aws_client, aws_message, deployment, pool, used},
    chat, key, one_tenant,
};

const PATH: &str = "/v1/chat/completions";

/// Time by which a registry change must apply, in milliseconds.
const SOON_MS: u64 = 5_000;

fn ids(models: &Value) -> Vec<&str> {
    models["data"].as_array().expect("data").iter().filter_map(|model| model["id"].as_str()).collect()
}

/// Starts a deployment with three models, of which `t` may call two.
async fn three_models() -> Deployment {
    let model = |name: &str| format!("[[models]]\nname = \"{name}\"\n{}", pool("p", "on_demand", name, ""));
    let settings = deployment("models = [\"m\", \"b\"]", &pool("p", "on_demand", "sim.model", ""));
    Deployment::start(&(settings + &model("a") + &model("b"))).await
}

#[tokio::test]
async fn models_are_listed_in_the_format_of_each_vendor() {
    let deployment = three_models().await;
    let openai = Answer::to(deployment.get("/v1/models", "t")).await.json();
    assert_eq!((&openai["object"], ids(&openai)), (&json!("list"), vec!["b", "m"]));
    assert_eq!(openai["data"][0], json!({ "id": "b", "object": "model", "created": 0, "owned_by": "spillway" }));
    assert_eq!(Answer::to(deployment.get("/openai/v1/models", "t")).await.json(), openai);

    let header = deployment.get("/v1/models", "t").header("anthropic-version", "2023-06-01");
    for request in [header, deployment.get("/anthropic/v1/models", "t")] {
        let anthropic = Answer::to(request).await.json();
        assert_eq!(ids(&anthropic), ["b", "m"]);
        let (first, last, more) = (&anthropic["first_id"], &anthropic["last_id"], &anthropic["has_more"]);
        assert_eq!((first, last, more), (&json!("b"), &json!("m"), &json!(false)));
        assert_eq!(
            (&anthropic["data"][0]["type"], &anthropic["data"][0]["display_name"]),
            (&json!("model"), &json!("b"))
        );
    }
    assert_eq!(Answer::to(deployment.get("/v1/models/m", "t")).await.json()["id"], "m");
    let model = Answer::to(deployment.get("/anthropic/v1/models/m", "t")).await.json();
    assert_eq!((&model["type"], &model["id"]), (&json!("model"), &json!("m")));
}

#[tokio::test]
async fn a_model_that_a_tenant_may_not_call_does_not_exist_for_it() {
    let deployment = three_models().await;
    let mut body = chat(5, 8);
    for name in ["a", "nothing"] {
        body["model"] = json!(name);
        assert_eq!(deployment.ask(PATH, "t", &body).await.status, 404);
        assert_eq!(Answer::to(deployment.get(&format!("/v1/models/{name}"), "t")).await.status, 404);
        let sent = aws_client(&deployment).converse().model_id(name).messages(aws_message("a")).send().await;
        assert!(sent.expect_err("a model of another tenant").into_service_error().is_resource_not_found_exception());
    }
    body["model"] = json!("b");
    assert_eq!(deployment.ask(PATH, "t", &body).await.status, 200);
}

#[tokio::test]
async fn the_quota_reports_every_limit_and_the_settled_usage() {
    let limits = "{ requests_per_minute = 10, tokens_per_minute = 1000, tokens_per_day = 5000, in_flight = 3, \
                  microusd_per_month = 700 }";
    let deployment = Deployment::start(&one_tenant(limits)).await;
    let caps = [10, 1000, 5000, 700, 3];
    let names = ["requests_per_minute", "tokens_per_minute", "tokens_per_day", "microusd_per_month", "in_flight"];
    for (answers, used_amounts) in [(0, [0, 0, 0, 0, 0]), (1, [1, 14, 14, 19, 0]), (2, [2, 28, 28, 38, 0])] {
        let quota = deployment.quota("t").await;
        assert_eq!((&quota["tenant"], &quota["class"]), (&json!("t"), &json!("standard")));
        let states = quota["limits"].as_array().expect("limits");
        assert_eq!(states.len(), names.len());
        for (index, name) in names.iter().enumerate() {
            let state = states.iter().find(|state| state["limit"] == *name).expect("every limit");
            assert_eq!((&state["cap"], &state["used"]), (&json!(caps[index]), &json!(used_amounts[index])), "{name}");
            assert_eq!(state["remaining"], caps[index] - used_amounts[index], "{name}");
            assert!(state["reset_ms"].is_u64(), "{name}");
        }
        let settled = json!({
            "requests": answers, "input_tokens": 9 * answers, "output_tokens": 5 * answers, "cost_microusd": 19 * answers,
        });
        assert_eq!(quota["settled"], settled);
        assert_eq!(deployment.chat("t", 5, 8).await.status(), 200);
    }
}

#[tokio::test]
async fn a_used_limit_is_free_again_at_its_reset() {
    let deployment = Deployment::start(&one_tenant("{ requests_per_minute = 1 }")).await;
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 200);
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 429);
    let reset_ms = deployment.quota("t").await["limits"][0]["reset_ms"].as_u64().expect("a time");
    assert!((1..=60_000).contains(&reset_ms), "{reset_ms}");
    deployment.world.advance(reset_ms);
    assert_eq!(used(&deployment.quota("t").await, "requests_per_minute"), 0);
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 200);
}

#[tokio::test]
async fn a_changed_limit_applies_soon_without_a_restart() {
    let deployment = Deployment::start(&one_tenant("{ requests_per_minute = 2 }")).await;
    let operator = deployment.another_app().await.registry;
    for status in [200, 200, 429] {
        assert_eq!(deployment.chat("t", 5, 8).await.status(), status);
    }
    let mut tenant = operator.tenants().await.expect("tenants").remove(0);
    tenant.limits.requests_per_minute = Some(3);
    operator.put_tenant(&tenant).await.expect("written");
    deployment.world.advance(SOON_MS);
    for status in [200, 429] {
        assert_eq!(deployment.chat("t", 5, 8).await.status(), status);
    }
    assert_eq!(deployment.quota("t").await["limits"][0]["cap"], 3);

    let mut tenant = operator.tenants().await.expect("tenants").remove(0);
    tenant.models = vec!["none-of-these".into()];
    operator.put_tenant(&tenant).await.expect("written");
    deployment.world.advance(SOON_MS);
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 404);
}

#[tokio::test]
async fn a_pool_added_to_a_running_system_is_used_soon() {
    let deployment = Deployment::start(&one_tenant("{}")).await;
    assert_eq!(deployment.chat("t", 5, 8).await.headers()["x-spillway-pool"], "on-demand");
    let operator = deployment.another_app().await.registry;
    let mut model = (**operator.catalogue().await.expect("models").models().next().expect("a model")).clone();
    let pool =
        json!({ "name": "bought", "kind": "provisioned", "model_id": "sim.bought", "limits": { "in_flight": 2 } });
    model.ladder.push(serde_json::from_value(pool).expect("a pool"));
    operator.put_model(&model).await.expect("written");
    deployment.world.advance(SOON_MS);
    assert_eq!(deployment.chat("t", 5, 8).await.headers()["x-spillway-pool"], "bought");
}

#[tokio::test]
async fn a_model_added_to_a_running_system_is_found_soon() {
    let deployment = Deployment::start(&one_tenant("{}")).await;
    let mut body = chat(5, 8);
    body["model"] = json!("new");
    assert_eq!(deployment.ask(PATH, "t", &body).await.status, 404);
    let model = json!({ "name": "new", "ladder": [{ "name": "p", "kind": "on_demand", "model_id": "sim.new" }] });
    let operator = deployment.another_app().await.registry;
    operator.put_model(&serde_json::from_value(model).expect("a model")).await.expect("written");
    deployment.world.advance(SOON_MS);
    assert_eq!(deployment.ask(PATH, "t", &body).await.status, 200);
}

#[tokio::test]
async fn a_revoked_key_stops_working_soon() {
    let deployment = Deployment::start(&one_tenant("{}")).await;
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 200);
    let operator = deployment.another_app().await.registry;
    assert!(operator.revoke_key("t").await.expect("reached"));
    deployment.world.advance(SOON_MS);
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 401);
    assert_eq!(Answer::to(deployment.get("/v1/quota", "t")).await.status, 401);
}

#[tokio::test]
async fn a_new_key_works_soon_and_until_it_expires() {
    let deployment = Deployment::start(&one_tenant("{}")).await;
    let second = ApiKey::parse(&key("second")).expect("a key");
    assert_eq!(deployment.chat("second", 5, 8).await.status(), 401);
    let operator = deployment.another_app().await.registry;
    let expires_at = deployment.world.app.clock.now() + spillway::units::Millis::from_s(3_600);
    operator.put_key(&KeyRecord::new(&second, "t", Some(expires_at))).await.expect("written");
    deployment.world.advance(SOON_MS);
    assert_eq!(deployment.chat("second", 5, 8).await.status(), 200, "two keys of one tenant work concurrently");
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 200);
    deployment.world.advance(3_600_000);
    assert_eq!(deployment.chat("second", 5, 8).await.status(), 401);
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 200);
}

#[tokio::test]
async fn a_deleted_tenants_key_stops_working_soon() {
    let deployment = Deployment::start(&one_tenant("{}")).await;
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 200);
    assert!(deployment.another_app().await.registry.delete_tenant("t").await.expect("reached"));
    deployment.world.advance(SOON_MS);
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 401);
}

#[tokio::test]
async fn the_registry_is_read_once_for_many_requests() {
    let deployment = Deployment::start(&one_tenant("{}")).await;
    let reads = async || {
        let operations = deployment.dynamodb_operations().await;
        ["GetItem", "Query", "Scan"].map(|name| operations[name].as_u64().unwrap_or(0))
    };
    assert_eq!(deployment.chat("t", 5, 8).await.status(), 200);
    let [got, queried, scanned] = reads().await;
    for _ in 0..20 {
        assert_eq!(deployment.chat("t", 5, 8).await.status(), 200);
    }
    // On a slow machine the cache may expire, after two seconds, during the test.
    let [got_now, queried_now, scanned_now] = reads().await;
    assert!(got_now - got < 20 && queried_now - queried < 20, "{got} {queried} {got_now} {queried_now}");
    assert_eq!(scanned_now, scanned);
}
