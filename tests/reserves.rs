//! The reserve is an upper bound: no call settles above its reservation, in tokens or in USD, and
//! what is settled is the account of the simulator.

mod bodies;

use std::time::Duration;

use bodies::{Call, call};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use serde_json::{Value, json};

use crate::support::{Deployment, answer::used, key};

/// Prices per token, such that a cost is a whole number of micro-USD.
const INPUT: u64 = 10;
const OUTPUT: u64 = 100;
const CACHE_READ: u64 = 1;
const CACHE_WRITE: u64 = 13;
const CACHE_WRITE_1H: u64 = 20;
const BURNDOWN: u64 = 5;

/// Input tokens above which input costs twice as much, and output three times.
const LONG_CONTEXT: u64 = 6_000;

/// Returns settings with a model for each format. The simulator counts four bytes per token. For
/// English that is more than most real tokenizers count, so the models have the tokenizer that
/// counts most.
fn settings() -> String {
    let models = bodies::MODELS.map(|(name, model_id)| {
        format!(
            "[[models]]\nname = \"{name}\"\ntimeout_ms = 300000\ntokenizer = \"claude47\"\n[[models.ladder]]\n\
             name = \"{name}\"\nkind = \"on_demand\"\nmodel_id = \"{model_id}\"\nburndown = {BURNDOWN}\n\
             [models.ladder.prices]\ninput = {INPUT}.0\noutput = {OUTPUT}.0\ncache_read = {CACHE_READ}.0\n\
             cache_write = {CACHE_WRITE}.0\ncache_write_1h = {CACHE_WRITE_1H}.0\n\
             long_context = {{ above_input_tokens = {LONG_CONTEXT}, input_factor = 2.0, output_factor = 3.0 }}\n"
        )
    });
    format!(
        "[keys]\nt = \"{}\"\n[simulator]\ntime_to_first_token_ms = 5000\n[[tenants]]\nname = \"t\"\n\
         limits = {{ tokens_per_day = 1000000000000, microusd_per_month = 1000000000000, in_flight = 9 }}\n{}",
        key("t"),
        models.concat()
    )
}

/// Quota tokens and micro-USD.
type Amounts = (u64, u64);

fn amounts(quota: &Value) -> Amounts {
    (used(quota, "tokens_per_day"), used(quota, "microusd_per_month"))
}

fn since(before: Amounts, after: Amounts) -> Amounts {
    (after.0 - before.0, after.1 - before.1)
}

/// Returns what the simulator counted since `before` at these prices. All cache writes of a call
/// are kept for the same time.
fn bill(before: &Value, after: &Value, is_hour: bool) -> Amounts {
    let count = |name: &str| after[name].as_u64().zip(before[name].as_u64()).map(|(after, before)| after - before);
    let count = |name: &str| count(name).unwrap_or_else(|| panic!("no {name} in {after}"));
    let (input, output) = (count("input_tokens"), count("output_tokens"));
    let (read, written) = (count("cache_read_input_tokens"), count("cache_write_input_tokens"));
    let (input_factor, output_factor) = if input + read + written > LONG_CONTEXT { (2, 3) } else { (1, 1) };
    let write_price = if is_hour { CACHE_WRITE_1H } else { CACHE_WRITE };
    let input_cost = INPUT * input + CACHE_READ * read + write_price * written;
    (input + written + BURNDOWN * output, input_factor * input_cost + output_factor * OUTPUT * output)
}

/// Reserved, settled and counted amounts of one call.
#[derive(Debug)]
struct Measured {
    reserved: Amounts,
    settled: Amounts,
    counted: Amounts,
}

async fn measure(deployment: &Deployment, call: &Call) -> Result<Measured, String> {
    let (before, counted_before) = (amounts(&deployment.quota("t").await), deployment.simulator().await);
    let asking = deployment.ask(call.path, "t", &call.body);
    let measuring = async {
        let running = deployment.quota_when("t", |quota| used(quota, "in_flight") == 1).await;
        loop {
            deployment.world.advance(3_000);
            tokio::time::sleep(Duration::from_millis(5)).await;
            if used(&deployment.quota("t").await, "in_flight") == 0 {
                return since(before, amounts(&running));
            }
        }
    };
    tokio::pin!(asking, measuring);
    let (answer, reserved) = tokio::select! {
        // An answer before anything was reserved is a refusal.
        answer = &mut asking => {
            if answer.status != 200 {
                return Err(format!("{}: {}", answer.status, answer.text()));
            }
            (answer, measuring.await)
        }
        reserved = &mut measuring => (asking.await, reserved),
    };
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    let settled = since(before, amounts(&deployment.quota("t").await));
    let counted = bill(&counted_before["total"], &deployment.simulator().await["total"], call.is_hour);
    Ok(Measured { reserved, settled, counted })
}

#[test]
fn no_call_of_any_format_settles_above_its_reservation() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let deployment = runtime.block_on(async {
        let deployment = Deployment::start(&settings()).await;
        deployment.advance_to_noon();
        deployment
    });
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&call(), |call| {
        let measured = runtime.block_on(measure(&deployment, &call)).map_err(TestCaseError::fail)?;
        let Measured { reserved, settled, counted } = measured;
        proptest::prop_assert_eq!(settled, counted, "the settlement is not the simulator's account");
        proptest::prop_assert!(settled.0 <= reserved.0 && settled.1 <= reserved.1, "{:?} > {:?}", settled, reserved);
        Ok(())
    });
    if let Err(TestError::Fail(reason, call)) = outcome {
        let body: String = call.body.to_string().chars().take(1_500).collect();
        panic!("{reason}: {} {body}", call.path);
    }
    outcome.expect("enough cases");
}

#[tokio::test]
async fn a_prompt_that_is_written_to_the_cache_for_an_hour_reserves_the_price_of_that() {
    let deployment = Deployment::start(&settings()).await;
    deployment.advance_to_noon();
    let text = "x1 ".repeat(500);
    let cost = async |ttl: Option<&str>| {
        let point = ttl.map(|ttl| json!({ "type": "ephemeral", "ttl": ttl }));
        let block = json!({ "type": "text", "text": text, "cache_control": point });
        let body = json!({ "model": "claude", "max_tokens": 1, "messages": [{ "role": "user", "content": [block] }] });
        let call = Call { path: "/v1/messages", body, is_hour: ttl == Some("1h") };
        measure(&deployment, &call).await.expect("an answer").reserved.1 - OUTPUT
    };
    let plain = cost(None).await;
    assert_eq!(cost(Some("5m")).await * INPUT, plain * CACHE_WRITE);
    assert_eq!(cost(Some("1h")).await * INPUT, plain * CACHE_WRITE_1H);
}
