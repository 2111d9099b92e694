//! Pools: admission, refusal and the statistics of the simulator.

use spillway_stand_ins::bedrock::tokens;
use tokio::task::JoinSet;

use crate::support::{Bedrock, max_tokens, refused, soon};

#[tokio::test]
async fn a_call_without_a_maximum_reserves_the_maximum_of_the_model() {
    let bedrock = Bedrock::start_with(
        "tokens_per_second = 1\n[[pools]]\nmodel_id = \"m\"\ntokens_per_minute = 100_000\nmax_output_tokens = 64_000",
    )
    .await;
    let first = tokio::spawn(bedrock.converse("m", &tokens::sized_prompt(1_000, 10)).send());
    bedrock.until("the first runs", |stats| stats["total"]["in_flight"] == 1).await;
    let (code, status, message) = refused(bedrock.converse("m", "[[output_tokens=1]]").send().await);
    assert_eq!((code.as_str(), status), ("ThrottlingException", 429));
    assert_eq!(message, "Too many tokens, please wait before trying again.");
    bedrock.clock.advance(10_000);
    soon(first).await.unwrap().unwrap();
    bedrock.clock.advance(1_000);
    let second = tokio::spawn(bedrock.converse("m", "[[output_tokens=1]]").send());
    bedrock.until("the second fits once the first is settled", |stats| stats["total"]["in_flight"] == 1).await;
    bedrock.clock.advance(10_000);
    soon(second).await.unwrap().unwrap();
}

#[tokio::test]
async fn burndown_can_exceed_the_reservation() {
    let settings = "[[pools]]\nmodel_id = \"m\"\ntokens_per_minute = 10_000\nburndown = 5";
    let bedrock = Bedrock::start_with(settings).await;
    let call = || bedrock.converse("m", &tokens::sized_prompt(1_000, 2_000)).inference_config(max_tokens(2_000)).send();
    call().await.unwrap();
    assert_eq!(refused(call().await).0, "ThrottlingException");
    // 11,000 of 10,000 are spent and 3,000 are requested. So 4,000 must refill, at 10,000 per
    // minute.
    bedrock.clock.advance(25_000);
    call().await.unwrap();
    let stats = bedrock.stats().await;
    assert_eq!(stats["models"]["m"]["worst_minute_quota_tokens"], 22_000);
    assert_eq!(stats["models"]["m"]["quota_tokens"], 22_000);
    assert_eq!(stats["models"]["m"]["throttled"], 1);
}

#[tokio::test]
async fn a_pool_limits_requests_per_minute() {
    let bedrock = Bedrock::start_with("[[pools]]\nmodel_id = \"m\"\nrequests_per_minute = 2").await;
    bedrock.converse("m", "x").send().await.unwrap();
    bedrock.converse("m", "x").send().await.unwrap();
    let (_, status, message) = refused(bedrock.converse("m", "x").send().await);
    assert_eq!((status, message.as_str()), (429, "Too many requests, please wait before trying again."));
    bedrock.clock.advance(30_000);
    bedrock.converse("m", "x").send().await.unwrap();
}

#[tokio::test]
async fn provisioned_units_limit_concurrent_calls() {
    let bedrock = Bedrock::start_with("tokens_per_second = 1\n[[pools]]\nmodel_id = \"m\"\nin_flight = 7").await;
    let calls: JoinSet<_> = (0..50).map(|_| bedrock.converse("m", "[[output_tokens=600]]").send()).collect();
    let answers = tokio::spawn(calls.join_all());
    bedrock.until("43 are refused", |stats| stats["total"]["throttled"] == 43).await;
    bedrock.clock.advance(600_000);
    let answers = soon(answers).await.unwrap();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 7);
    let stats = bedrock.stats().await;
    assert_eq!((&stats["total"]["peak_in_flight"], &stats["total"]["in_flight"]), (&7.into(), &0.into()));
}

#[tokio::test]
async fn each_tenant_has_separate_statistics() {
    let bedrock = Bedrock::start().await;
    for (tenant, output_tokens) in [("a", 10), ("b", 20), ("a", 30)] {
        let prompt = tokens::sized_prompt(100, output_tokens);
        bedrock.converse("m", &prompt).request_metadata("tenant", tenant).send().await.unwrap();
    }
    let tenants = bedrock.stats().await["tenants"].clone();
    assert_eq!((&tenants["a"]["requests"], &tenants["a"]["output_tokens"]), (&2.into(), &40.into()));
    assert_eq!((&tenants["b"]["input_tokens"], &tenants["b"]["output_tokens"]), (&100.into(), &20.into()));
    assert_eq!(tenants["a"]["worst_minute_quota_tokens"], 240);
}
