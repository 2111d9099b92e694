//! Residency: no request of a tenant reaches a pool that the tenant or its parent does not permit.

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use spillway::telemetry::Telemetry;

use crate::support::{
    Deployment,
    answer::{Answer, charged, deployment, pool},
    chat, key,
    recorded::Recorded,
};

const PATH: &str = "/v1/chat/completions";

/// Fields of a tenant whose data stays in Ireland, or in the EU. The broker's own region is
/// us-east-1.
const EU: &str = "residency = { regions = [\"eu-west-1\"], scopes = [\"in_region\", \"eu\"] }\n\
                  guardrails = [{ id = \"gr1\" }]";

const NEAR: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

const EMBED: &str = "eu.cohere.embed-v4:0";

const IRELAND: &str = "region = \"eu-west-1\"";

/// Models of which `t` may use one pool, which is not the first: `m` for text and `embed`. Of `far`
/// it may use none.
fn settings() -> String {
    let arn = |region: &str, resource: &str| format!("arn:aws:bedrock:{region}:123456789012:{resource}/abc");
    let pools = [
        pool("paid", "provisioned", &arn("us-east-1", "provisioned-model"), "region = \"us-east-1\""),
        pool("home", "on_demand", "anthropic.claude-sonnet-4-5-20250929-v1:0", ""),
        pool("global", "on_demand", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", IRELAND),
        pool("profile", "on_demand", &arn("eu-west-1", "application-inference-profile"), IRELAND),
        pool("near", "on_demand", NEAR, IRELAND),
    ];
    let model = |name: &str, pools: &[String]| format!("[[models]]\nname = \"{name}\"\n{}", pools.concat());
    let embed = [
        pool("home", "on_demand", "cohere.embed-v4:0", ""),
        pool("global", "on_demand", "global.cohere.embed-v4:0", IRELAND),
        pool("near", "on_demand", EMBED, IRELAND),
    ];
    let far = [
        pool("home", "on_demand", "amazon.nova-lite-v1:0", ""),
        pool("global", "on_demand", "global.amazon.nova-2-lite-v1:0", IRELAND),
    ];
    deployment(EU, &pools.concat()) + &model("embed", &embed) + &model("far", &far)
}

/// Each way to call a model: the path and the body, with the name of the model.
fn calls(model: &str, embed: &str) -> Vec<(String, Value)> {
    let named = |mut body: Value| {
        body["model"] = json!(model);
        body
    };
    let streamed = |mut body: Value| {
        body["stream"] = json!(true);
        body
    };
    let messages = json!([{ "role": "user", "content": [{ "text": "a" }] }]);
    let counted = json!({ "input": { "converse": { "messages": messages } } });
    let converse = json!({ "messages": messages, "inferenceConfig": { "maxTokens": 8 } });
    let messages = json!({ "max_tokens": 8, "messages": [{ "role": "user", "content": "a" }] });
    let mut native = messages.clone();
    native["anthropic_version"] = json!("bedrock-2023-05-31");
    vec![
        (PATH.to_owned(), named(chat(5, 8))),
        (PATH.to_owned(), streamed(named(chat(5, 8)))),
        ("/v1/responses".to_owned(), named(json!({ "input": "a", "max_output_tokens": 8 }))),
        ("/v1/responses".to_owned(), named(json!({ "input": "a", "max_output_tokens": 8, "stream": true }))),
        ("/v1/messages".to_owned(), named(messages.clone())),
        ("/v1/messages".to_owned(), streamed(named(messages.clone()))),
        ("/v1/messages/count_tokens".to_owned(), named(json!({ "messages": messages["messages"] }))),
        (format!("/model/{model}/converse"), converse.clone()),
        (format!("/model/{model}/converse-stream"), converse),
        (format!("/model/{model}/count-tokens"), counted),
        (format!("/model/{model}/invoke"), native.clone()),
        (format!("/model/{model}/invoke-with-response-stream"), native),
        ("/v1/embeddings".to_owned(), json!({ "model": embed, "input": ["a", "b"] })),
    ]
}

/// Returns the ids of the models that Bedrock was called with.
async fn called(deployment: &Deployment) -> Vec<String> {
    deployment.simulator().await["models"].as_object().expect("models").keys().cloned().collect()
}

fn is_permitted(id: &str) -> bool {
    [NEAR, EMBED].contains(&id)
}

#[tokio::test]
async fn every_route_calls_only_permitted_pools() {
    let deployment = Deployment::start(&settings()).await;
    for (path, body) in calls("m", "embed") {
        let answer = deployment.ask(&path, "t", &body).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        assert_eq!(answer.header("x-spillway-estimated"), "", "{path}: the permitted pool counts");
    }
    assert_eq!(called(&deployment).await, [NEAR, EMBED]);
}

#[tokio::test]
async fn a_permitted_pool_that_fails_leads_to_no_other_pool() {
    let faults = [json!({ "unavailable": true }), json!({ "daily_quota": true }), json!({ "disconnect": true })];
    for fault in faults {
        let deployment = Deployment::start(&settings()).await;
        let strikes = |id: &str| {
            let mut fault = fault.clone();
            fault["model_id"] = json!(id);
            fault
        };
        deployment.set_model_faults(&[strikes(NEAR), strikes(EMBED)]).await;
        // The second round meets the outage of the first, and the third a probe.
        for advance_ms in [0, 25_000, 0] {
            for (path, body) in calls("m", "embed") {
                deployment.ask(&path, "t", &body).await;
            }
            deployment.world.advance(advance_ms);
        }
        let called = called(&deployment).await;
        assert!(called.iter().all(|id| is_permitted(id)), "{fault}: {called:?}");
    }
}

#[tokio::test]
async fn jobs_and_background_responses_call_only_permitted_pools() {
    let deployment = Deployment::start(&settings()).await;
    deployment.advance_to_noon();
    deployment.set_model_faults(&[json!({ "model_id": NEAR, "daily_quota": true })]).await;
    let job = deployment.submit(PATH, "t", &chat(5, 8)).await;
    let background = json!({ "model": "m", "input": "a", "max_output_tokens": 8, "background": true });
    let response = deployment.ask("/v1/responses", "t", &background).await.json();
    // The id of a response is the id of its job without hyphens.
    let id = response["id"].as_str().and_then(|id| id.strip_prefix("resp_")).expect("an id");
    let response = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    deployment.set_model_faults(&[]).await;
    for id in [job, response] {
        assert_eq!(deployment.final_status(&id).await, "succeeded");
    }
    assert_eq!(called(&deployment).await, [NEAR]);
}

#[tokio::test]
async fn a_model_without_a_permitted_pool_is_forbidden_costs_nothing_and_is_in_no_list() {
    let events = Recorded::default();
    let deployment = Deployment::start_with(&settings(), Telemetry::to(events.clone())).await;
    let before = charged(&deployment.quota("t").await);
    for (path, body) in calls("far", "far") {
        let answer = deployment.ask(&path, "t", &body).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
        let message = "Model far has no pool that the setting residency of tenant t permits.";
        assert!(answer.text().contains(message), "{path}: {}", answer.text());
        let event = events.requests().pop().expect("an event");
        assert_eq!(
            (&event["error"], &event["skipped"]),
            (&json!("forbidden"), &json!("home: residency, global: residency")),
            "{path}"
        );
    }
    let mut bedrock = deployment.ask("/model/far/converse", "t", &calls("far", "far")[7].1).await;
    assert_eq!(bedrock.headers.remove("x-amzn-errortype").expect("a type"), "AccessDeniedException");
    assert_eq!(Answer::to(deployment.get("/v1/models/far", "t")).await.status, 403);
    for (path, list) in [("/v1/models", "data"), ("/inference-profiles", "inferenceProfileSummaries")] {
        let answer = Answer::to(deployment.get(path, "t")).await.json();
        assert_eq!(answer[list].as_array().map(Vec::len), Some(2), "{path}: {answer}");
    }
    assert_eq!(charged(&deployment.quota("t").await), before);
    assert_eq!(called(&deployment).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_event_names_the_pools_that_are_not_permitted() {
    let events = Recorded::default();
    let deployment = Deployment::start_with(&settings(), Telemetry::to(events.clone())).await;
    assert_eq!(deployment.ask(PATH, "t", &chat(5, 8)).await.status, 200);
    let skipped = "paid: residency, home: residency, global: residency, profile: residency";
    assert_eq!(events.requests().pop().expect("an event")["skipped"], json!(skipped));
}

#[tokio::test]
async fn a_guardrail_is_applied_only_if_the_broker_is_in_a_permitted_region() {
    let simulator = "[[simulator.guardrails]]\nid = \"gr1\"\n";
    for (regions, status) in [("eu-west-1", 403), ("us-east-1", 200)] {
        let settings = settings().replace("regions = [\"eu-west-1\"]", &format!("regions = [\"{regions}\"]"));
        let deployment = Deployment::start(&(settings + simulator)).await;
        let body = json!({ "source": "INPUT", "content": [{ "text": { "text": "a" } }] });
        let answer = deployment.ask("/guardrail/gr1/version/1/apply", "t", &body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.text().contains("residency"), status == 403, "{}", answer.text());
    }
}

#[tokio::test]
async fn tokens_are_estimated_if_only_another_pool_could_count_them() {
    let arn = "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc";
    let pools = pool("paid", "provisioned", arn, IRELAND) + &pool("home", "on_demand", "anthropic.claude-opus-4-7", "");
    let deployment = Deployment::start(&deployment(EU, &pools)).await;
    let (path, body) = &calls("m", "m")[6];
    let answer = deployment.ask(path, "t", body).await;
    assert_eq!((answer.status, answer.header("x-spillway-estimated")), (200, "true"), "{}", answer.text());
    let messages = deployment.ask("/model/m/invoke", "t", &calls("m", "m")[10].1).await;
    assert_eq!(messages.status, 200, "the format is still Claude's: {}", messages.text());
    assert_eq!(called(&deployment).await, [arn]);
}

#[tokio::test]
async fn a_changed_residency_holds_soon_and_for_jobs_that_wait() {
    let unrestricted =
        settings().replace("residency = { regions = [\"eu-west-1\"], scopes = [\"in_region\", \"eu\"] }", "");
    let deployment = Deployment::start(&unrestricted).await;
    deployment.advance_to_noon();
    let full = ["amazon.nova-lite-v1:0", "global.amazon.nova-2-lite-v1:0"];
    let throttled: Vec<Value> = full.map(|id| json!({ "model_id": id, "daily_quota": true })).into();
    deployment.set_model_faults(&throttled).await;
    let mut body = chat(5, 8);
    body["model"] = json!("far");
    let job = deployment.submit(PATH, "t", &body).await;
    let operator = deployment.another_app().await.registry;
    let mut tenant = operator.tenants().await.expect("tenants").remove(0);
    tenant.residency = serde_json::from_value(json!({ "scopes": ["eu"] })).expect("a residency");
    operator.put_tenant(&tenant).await.expect("written");
    deployment.set_model_faults(&[]).await;
    deployment.world.advance(5_000);
    assert_eq!(deployment.ask(PATH, "t", &body).await.status, 403);
    let before = deployment.simulator().await;
    assert_eq!(deployment.final_status(&job).await, "failed");
    assert_eq!(deployment.result("t", &job).await.status, 403);
    assert_eq!(deployment.simulator().await["models"], before["models"], "no pool was called");
}

/// A pool of a random ladder: the prefix of its id, the region, and the fault of its model.
#[derive(Debug, Clone)]
struct RandomPool {
    prefix: &'static str,
    region: Option<&'static str>,
    fault: Option<&'static str>,
}

/// A random residency: regions and scopes.
type RandomResidency = (Option<Vec<&'static str>>, Option<Vec<&'static str>>);

const PREFIXES: [&str; 4] = ["", "eu.", "us.", "global."];

const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "eu-central-1"];

fn random_ladder() -> impl Strategy<Value = Vec<RandomPool>> {
    let fault = proptest::option::of(proptest::sample::select(vec!["unavailable", "daily_quota"]));
    let region = proptest::option::of(proptest::sample::select(REGIONS.to_vec()));
    let pool = (proptest::sample::select(PREFIXES.to_vec()), region, fault)
        .prop_map(|(prefix, region, fault)| RandomPool { prefix, region, fault });
    proptest::collection::vec(pool, 1..5)
}

fn random_residency() -> impl Strategy<Value = RandomResidency> {
    let regions = proptest::option::of(proptest::sample::subsequence(REGIONS.to_vec(), 1..3));
    let scopes = proptest::sample::subsequence(vec!["in_region", "eu", "us", "global"], 1..4);
    (regions, proptest::option::of(scopes))
}

/// Whether a pool is permitted, by the definition of the setting.
fn permits((regions, scopes): &RandomResidency, pool: &RandomPool) -> bool {
    let scope = if pool.prefix.is_empty() { "in_region" } else { pool.prefix.trim_end_matches('.') };
    regions.as_ref().is_none_or(|regions| regions.contains(&pool.region.unwrap_or("us-east-1")))
        && scopes.as_ref().is_none_or(|scopes| scopes.contains(&scope))
}

fn residency_toml((regions, scopes): &RandomResidency) -> String {
    let list = |name: &str, list: &Option<Vec<&str>>| list.as_ref().map(|list| format!("{name} = {list:?}"));
    let lists: Vec<String> = [list("regions", regions), list("scopes", scopes)].into_iter().flatten().collect();
    format!("residency = {{ {} }}", lists.join(", "))
}

/// Random tenants with random parents and one model each. All call each model by each route, in
/// two rounds, while some pools fail. The ids of the pools are all different, so each call shows
/// its pool.
#[tokio::test]
async fn no_call_reaches_a_pool_that_tenant_or_parent_does_not_permit() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let cases = proptest::collection::vec((random_ladder(), random_residency(), random_residency()), 16);
    let cases = cases.new_tree(&mut runner).expect("cases").current();
    let id = |case: usize, rung: usize, pool: &RandomPool| format!("{}anthropic.claude-{case}-{rung}", pool.prefix);
    let (mut settings, mut keys, mut faults) = (String::new(), String::from("[keys]\n"), Vec::new());
    let (mut permitted, mut forbidden) = (Vec::new(), Vec::new());
    for (case, (ladder, residency, of_parent)) in cases.iter().enumerate() {
        keys += &format!("t{case} = \"{}\"\n", key(&format!("t{case}")));
        settings += &format!("[[tenants]]\nname = \"p{case}\"\n{}\n", residency_toml(of_parent));
        settings += &format!("[[tenants]]\nname = \"t{case}\"\nparent = \"p{case}\"\n{}\n", residency_toml(residency));
        settings += &format!("[[models]]\nname = \"m{case}\"\n");
        for (rung, random) in ladder.iter().enumerate() {
            let id = id(case, rung, random);
            let region = random.region.map(|region| format!("region = \"{region}\"")).unwrap_or_default();
            settings += &pool(&format!("p{rung}"), "on_demand", &id, &region);
            faults.extend(random.fault.map(|fault| json!({ "model_id": id, fault: true })));
            let is_permitted = permits(residency, random) && permits(of_parent, random);
            if is_permitted { permitted.push(id) } else { forbidden.push(id) }
        }
    }
    let deployment = Deployment::start(&(keys + &settings)).await;
    deployment.set_model_faults(&faults).await;
    for _round in 0..2 {
        for case in 0..cases.len() {
            let model = format!("m{case}");
            for (path, body) in calls(&model, &model).into_iter().take(12) {
                deployment.ask(&path, &format!("t{case}"), &body).await;
            }
        }
        deployment.world.advance(25_000);
    }
    let called = called(&deployment).await;
    let strays: Vec<&String> = called.iter().filter(|id| forbidden.contains(id)).collect();
    assert!(strays.is_empty(), "{strays:?}");
    let reached = called.iter().filter(|id| permitted.contains(id)).count();
    assert!(reached > permitted.len() / 2 && forbidden.len() > 5, "{reached} of {} reached", permitted.len());
}
