//! The counts of refusals that the operator sees are exact, and their times are right.

use spillway::{
    app::App,
    quota::{Allowance, LimitName},
    store::refusal_log::RefusalCount,
    units::{Millis, UnixMs},
};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{Deployment, chat, one_tenant, process::ServeProcess, time::eventually};

const POLLS: LimitName = LimitName::Allowance(Allowance::OtherRequests);

/// Time between two writes for a tenant.
const PAUSE: Millis = Millis::from_s(5);

/// Refuses a request of the tenant `t` in `app`. Returns the time.
async fn refuse(app: &App) -> UnixMs {
    app.refusals.add("t", &[POLLS]).await;
    app.clock.now()
}

/// Returns the refusals that `app` has read from the store.
async fn stored(app: &App) -> Option<RefusalCount> {
    let refusals = app.refusals.for_tenant("t").await.expect("the ledger");
    refusals.into_iter().find(|refusal| refusal.limit == POLLS)
}

async fn eventually_stored(app: &App, count: u64) -> UnixMs {
    eventually("the refusals are stored", async || stored(app).await.is_some_and(|stored| stored.count == count)).await;
    stored(app).await.expect("refusals").last_at
}

#[tokio::test]
async fn a_storm_of_refusals_is_written_in_two_writes_without_a_later_refusal() {
    let deployment = Deployment::start(&one_tenant("{ requests_per_minute = 1 }")).await;
    deployment.advance_to_noon();
    assert_eq!(deployment.chat("t", 5, 5).await.status(), 200);
    let before = deployment.dynamodb_operations().await["UpdateItem"].as_u64().expect("writes");
    for _ in 0..40 {
        assert_eq!(deployment.chat("t", 5, 5).await.status(), 429);
    }
    let last = deployment.world.app.clock.now();
    let requests_per_minute = async |app: &App| {
        let refusals = app.refusals.for_tenant("t").await.expect("the ledger");
        refusals.into_iter().find(|refusal| refusal.limit.as_str() == "requests_per_minute")
    };
    let own = requests_per_minute(&deployment.world.app).await.expect("refusals");
    assert_eq!(own.count, 40, "a process knows what it has not written yet");
    let other = deployment.another_app().await;
    deployment.world.advance(PAUSE.as_ms());
    eventually("all are stored", async || requests_per_minute(&other).await.is_some_and(|stored| stored.count == 40))
        .await;
    let last_at = requests_per_minute(&other).await.expect("refusals").last_at;
    assert!(last_at <= last && last - last_at < Millis::from_s(2), "the time of the refusal, not of the write");
    let writes = deployment.dynamodb_operations().await["UpdateItem"].as_u64().expect("writes") - before;
    // Most refusals repeat a recent one. The others are attempts to reserve.
    assert!(writes <= 40 + 2, "{writes}");
}

#[tokio::test]
async fn no_refusal_is_lost_or_counted_twice_if_writes_fail() {
    let deployment = Deployment::start(&one_tenant("{}")).await;
    let (app, other) = (&deployment.world.app, deployment.another_app().await);
    let faults = deployment.world.stand_ins.dynamodb_faults();
    let mut count = 0;
    for effect in [Effect::Error500, Effect::Throttle, Effect::CutAfter, Effect::TimeoutAfter] {
        // A broken connection is replaced at once, and the write is sent a second time.
        let times = if effect == Effect::CutAfter { 2 } else { 1 };
        faults.inject(Fault { times: Some(times), ..Fault::on("UpdateItem", effect) });
        let mut last = UnixMs::default();
        for _ in 0..3 {
            last = refuse(app).await;
            count += 1;
        }
        eventually("the fault has struck", async || faults.stats().struck >= count / 3).await;
        // The write ends by its timeout at the latest.
        let polling = eventually_stored(&other, count);
        let stored_at = deployment.quickly(polling).await;
        assert!(last - stored_at < Millis::from_s(1), "{effect:?}");
        faults.clear();
        deployment.world.advance(2 * PAUSE.as_ms());
    }
}

#[tokio::test]
async fn the_time_of_the_last_refusal_never_goes_back() {
    let deployment = Deployment::start(&one_tenant("{}")).await;
    let (first, second) = (&deployment.world.app, deployment.another_app().await);
    refuse(first).await;
    eventually_stored(&second, 1).await;
    refuse(first).await;
    deployment.world.advance(1_000);
    second.clock.advance(Millis::from_s(1));
    let last = refuse(&second).await;
    let reader = deployment.another_app().await;
    eventually_stored(&reader, 2).await;
    deployment.world.advance(PAUSE.as_ms());
    assert!(last - eventually_stored(&reader, 3).await < Millis::from_ms(500));
}

#[tokio::test]
async fn a_process_that_is_asked_to_stop_writes_its_refusals_first() {
    let settings = one_tenant("{ requests_per_minute = 1 }");
    let mut process = ServeProcess::start(&settings, &[], async |_| {}).await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = process.post("/v1/chat/completions", chat(5, 5).to_string()).send().await.expect("an answer");
        refused += u64::from(answer.status() == 429);
    }
    assert!(refused >= 10);
    assert!(process.stop().await);
    let refusals = process.app.refusals.for_tenant("t").await.expect("the ledger");
    assert_eq!(refusals.iter().map(|refusal| refusal.count).sum::<u64>(), refused, "{refusals:?}");
}
