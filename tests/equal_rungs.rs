//! Equal rungs share conversations, and a conversation returns to the pool that has it in its
//! prompt cache.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spillway::app::App;

use crate::support::{
    Deployment,
    answer::{ask, deployment, pool},
};

const PATH: &str = "/model/m/converse";

/// Returns the body of turn `turn` of a conversation: a cached system prompt and all messages until
/// then, with a cache point at the end.
fn turn(conversation: &str, turn: usize, ttl: &str) -> Value {
    let point = json!({ "cachePoint": { "type": "default", "ttl": ttl } });
    let mut messages = Vec::new();
    for number in 0..turn {
        messages.push(json!({ "role": "user", "content": [{ "text": format!("{conversation} asks {number}") }] }));
        messages.push(json!({ "role": "assistant", "content": [{ "text": format!("answer {number}") }] }));
    }
    let last = format!("{conversation} asks {turn}");
    messages.push(json!({ "role": "user", "content": [{ "text": last }, point] }));
    json!({
        "system": [{ "text": format!("{conversation} {}", "the rules of this house ".repeat(1_000)) }, point],
        "messages": messages,
        "inferenceConfig": { "maxTokens": 8 },
    })
}

/// Returns the pool that answers `body`, and the cached share of the input. `app` is the process
/// that is asked.
async fn served(deployment: &Deployment, app: &App, body: &Value) -> (String, f64) {
    let answer = ask(app, deployment.post(PATH, "t", body)).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let usage = &answer.json()["usage"];
    let count = |name: &str| usage[name].as_f64().unwrap_or(0.0);
    let all = count("inputTokens") + count("cacheReadInputTokens") + count("cacheWriteInputTokens");
    (answer.header("x-spillway-pool").to_owned(), count("cacheReadInputTokens") / all)
}

fn two_pools(fields: &str) -> String {
    deployment("", &(pool("a", "on_demand", "a", fields) + &pool("b", "on_demand", "b", fields)))
}

/// Plays a conversation in which the pool `a` is throttled at every second turn. Returns the mean
/// share of cache reads after the first turn. `is_sticky` keeps the process from turn to turn.
async fn cache_reads(is_sticky: bool) -> f64 {
    let deployment = Deployment::start(&two_pools("")).await;
    let app = deployment.another_app().await;
    let mut shares = Vec::new();
    for number in 0..10 {
        let full = [json!({ "model_id": "a", "throttle": true })];
        deployment.set_model_faults(if number % 2 == 0 { &full } else { &[] }).await;
        let app = if is_sticky { app.clone() } else { deployment.another_app().await };
        shares.push(served(&deployment, &app, &turn("c", number, "5m")).await.1);
    }
    shares[1..].iter().sum::<f64>() / 9.0
}

#[tokio::test]
async fn a_conversation_that_returns_to_its_prompt_cache_reads_more_of_it() {
    let (sticky, forgetful) = (cache_reads(true).await, cache_reads(false).await);
    assert!(sticky > 0.95, "{sticky} of the input is read from the cache");
    assert!(forgetful < sticky - 0.1, "{forgetful} without a memory");
}

#[tokio::test]
async fn a_conversation_stays_at_its_cache_while_the_cache_lives() {
    for (ttl, lives_ms) in [("5m", 300_000), ("1h", 3_600_000)] {
        let deployment = Deployment::start(&two_pools("")).await;
        let serve = async |number| served(&deployment, &deployment.world.app, &turn("c", number, ttl)).await.0;
        deployment.set_model_faults(&[json!({ "model_id": "a", "throttle": true })]).await;
        assert_eq!(serve(0).await, "b");
        deployment.set_model_faults(&[]).await;
        deployment.world.advance(lives_ms - 60_000);
        assert_eq!(serve(1).await, "b", "{ttl}");
        deployment.world.advance(lives_ms - 60_000);
        assert_eq!(serve(2).await, "b", "{ttl}: use renews the cache");
        deployment.world.advance(lives_ms);
        assert_eq!(serve(3).await, "a", "{ttl}");
    }
}

#[tokio::test]
async fn a_conversation_leaves_its_cache_if_the_pool_is_full_and_paid_capacity_stays_first() {
    let pools =
        pool("a", "on_demand", "a", "") + &pool("b", "on_demand", "b", "") + &pool("paid", "provisioned", "paid", "");
    let deployment = Deployment::start(&deployment("", &pools)).await;
    let app = &deployment.world.app;
    let full =
        |ids: &[&str]| -> Vec<Value> { ids.iter().map(|id| json!({ "model_id": id, "throttle": true })).collect() };
    let steps = [(&["a", "paid"][..], "b"), (&["paid"], "b"), (&["b", "paid"], "a"), (&["paid"], "a"), (&[], "paid")];
    for (number, (ids, wanted)) in steps.into_iter().enumerate() {
        deployment.set_model_faults(&full(ids)).await;
        // A pool that throttles call after call is tried last for up to four seconds.
        deployment.world.advance(4_000);
        assert_eq!(served(&deployment, app, &turn("c", number, "5m")).await.0, wanted, "turn {number}");
    }
}

#[tokio::test]
async fn equal_pools_share_conversations_and_all_processes_agree() {
    let deployment = Deployment::start(&two_pools("rung = 1")).await;
    let mut conversations: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for number in 0..24 {
        let name = format!("conversation {number}");
        for turn_number in 0..3 {
            // Each process has an empty memory.
            let app = deployment.another_app().await;
            let pool = served(&deployment, &app, &turn(&name, turn_number, "5m")).await.0;
            conversations.entry(name.clone()).or_default().push(pool);
        }
    }
    assert!(conversations.values().all(|pools| pools.iter().all(|pool| *pool == pools[0])), "{conversations:?}");
    let at_a = conversations.values().filter(|pools| pools[0] == "a").count();
    assert!((4..=20).contains(&at_a), "{at_a} of 24");
}

#[tokio::test]
async fn when_an_equal_pool_is_out_only_its_conversations_move() {
    let deployment = Deployment::start(&two_pools("rung = 1")).await;
    let app = deployment.another_app().await;
    let names: Vec<String> = (0..12).map(|number| format!("conversation {number}")).collect();
    let mut before = Vec::new();
    for name in &names {
        before.push(served(&deployment, &app, &turn(name, 0, "5m")).await.0);
    }
    assert!(before.iter().any(|pool| pool == "a") && before.iter().any(|pool| pool == "b"), "{before:?}");
    deployment.set_model_faults(&[json!({ "model_id": "a", "unavailable": true })]).await;
    for name in &names {
        assert_eq!(served(&deployment, &app, &turn(name, 1, "5m")).await.0, "b");
    }
}
