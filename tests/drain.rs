//! The drain: messages come twice, late, at the same time or not at all, and each job has one answer all the same.

use std::time::Duration;

use serde_json::json;
use spillway::{
    app::App,
    clock::Clock,
    drain::{DrainEvent, handle, sweep},
    queue::Queue,
};

use crate::support::{
    Deployment,
    answer::{self, pool},
    chat,
    jobs::{DEAD, JOBS, batch_of, new_job, two_tenants},
    time::eventually,
};

const NO_LIMITS: &str = "limits = { in_flight = 10 }";

/// A model that takes this long.
fn slow(model_ms: u64) -> String {
    format!("{}\n[simulator]\ntime_to_first_token_ms = {model_ms}", two_tenants(NO_LIMITS))
}

/// Stores a job that is ready, without sending its message.
async fn silent_job(deployment: &Deployment) -> String {
    let now_ms = deployment.world.app.clock.now_ms();
    let new = new_job("/v1/chat/completions", &chat(7, 7), now_ms);
    deployment.world.app.jobs.submit(&new).await.expect("a job").id
}

/// How many answers are stored of a job: rows called by its id and a fence.
async fn stored_answers(deployment: &Deployment, id: &str) -> usize {
    let dynamodb = deployment.clients().await.dynamodb;
    let scanned = dynamodb.scan().table_name("spillway-jobs").send().await.expect("the jobs");
    let keys = scanned.items().iter().filter_map(|item| item.get("pk")?.as_s().ok());
    keys.filter(|key| key.strip_prefix(&format!("{id}#")).is_some_and(|rest| rest != "request")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_drains_with_one_job_make_one_call_and_one_answer() {
    let deployment = Deployment::start(&slow(20_000)).await;
    let id = silent_job(&deployment).await;
    let app = &deployment.world.app;
    let both = async { tokio::join!(handle(app, batch_of(&[&id]), None), handle(app, batch_of(&[&id]), None)) };
    let (one, other) = deployment.quickly(both).await;
    for response in [one, other] {
        assert_eq!(response.expect("handled").batch_item_failures, []);
    }
    assert_eq!(deployment.job("t", &id).await.json()["status"], "succeeded");
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
    assert_eq!(deployment.quota("t").await["settled"]["requests"], 1);
    assert_eq!(stored_answers(&deployment, &id).await, 1);

    // The loser sent the message again for the end of the winner's lease; it changes nothing when it comes.
    assert_eq!(deployment.messages_in(JOBS).await, 1);
    deployment.world.advance(60_000);
    eventually("the message is dropped", async || deployment.messages_in(JOBS).await == 0).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test]
async fn a_message_that_comes_again_after_the_end_changes_nothing() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let id = silent_job(&deployment).await;
    let app = &deployment.world.app;
    handle(app, batch_of(&[&id]), None).await.expect("handled");
    let (job, result) = (deployment.stored(&id).await, deployment.result("t", &id).await.body);
    assert_eq!(job.status.name(), "succeeded");
    for _ in 0..3 {
        let again = handle(app, batch_of(&[&id]), None).await.expect("handled");
        assert_eq!(again.batch_item_failures, []);
    }
    assert_eq!(deployment.stored(&id).await, job);
    assert_eq!(deployment.result("t", &id).await.body, result);
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_drains_only_the_one_with_the_later_lease_is_heard() {
    let deployment = Deployment::start(&slow(20_000)).await;
    let id = silent_job(&deployment).await;
    let drain = |app: &App| {
        let (app, event) = (app.clone(), batch_of(&[&id]));
        tokio::spawn(async move { handle(&app, event, None).await })
    };
    // Its process is frozen during the call, as Lambda freezes one, so it does not notice its deadline.
    let frozen = App { clock: Clock::default(), ..deployment.world.app.clone() };
    deployment.disturb(&[json!({ "stall_ms": 80_000, "times": 1 })]).await;
    let late = drain(&frozen);
    deployment.stored_running(&id, 1).await;
    // The model is not done yet, but the lease is over.
    deployment.world.advance(80_000);
    let next = drain(&deployment.world.app);
    deployment.stored_running(&id, 2).await;
    deployment.world.advance(25_000);
    for drain in [late, next] {
        assert_eq!(drain.await.expect("no panic").expect("handled").batch_item_failures, []);
    }
    let job = deployment.stored(&id).await;
    assert_eq!((job.status.name(), job.answered_at_fence), ("succeeded", Some(2)));
    assert_eq!(deployment.result("t", &id).await.status, 200);
    // Both calls were made and billed, and both are accounted for.
    assert_eq!(deployment.simulator().await["total"]["requests"], 2);
    assert_eq!(deployment.quota("t").await["settled"]["output_tokens"], 14);
    assert_eq!(deployment.quota("t").await["limits"][0]["used"], 0);
}

impl Deployment {
    /// Returns when the job runs under `fence` and its call has reached the model.
    async fn stored_running(&self, id: &str, fence: u64) {
        eventually("the job runs", async || {
            let job = self.stored(id).await;
            job.is_held_under(fence) && self.simulator().await["total"]["requests"] == fence
        })
        .await;
    }
}

#[tokio::test]
async fn a_job_whose_message_was_lost_is_swept_up() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let id = silent_job(&deployment).await;
    deployment.world.advance(110_000);
    assert_eq!(sweep(&deployment.world.app).await.expect("swept"), 0, "it may only be late");
    deployment.world.advance(11_000);
    let event: DrainEvent = serde_json::from_value(json!({ "sweep": true })).expect("an event");
    handle(&deployment.world.app, event, None).await.expect("swept");
    assert_eq!(deployment.end_of(&id).await, "succeeded");
    assert_eq!(sweep(&deployment.world.app).await.expect("swept"), 0, "it is not sent twice");
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test]
async fn only_the_messages_that_failed_come_again() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let (one, other) = (silent_job(&deployment).await, silent_job(&deployment).await);
    let unknown = "018f0000-0000-7000-8000-000000000000";
    let batch = || batch_of(&[&one, unknown, "no id at all", &other]);
    let without = App { dead_letters: None, ..deployment.world.app.clone() };
    let response = handle(&without, batch(), None).await.expect("handled");
    let failed: Vec<&str> =
        response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect();
    assert_eq!(failed, [format!("message-{unknown}").as_str(), "message-no id at all"]);
    for id in [&one, &other] {
        assert_eq!(deployment.job("t", id).await.json()["status"], "succeeded");
    }
    let response = handle(&deployment.world.app, batch(), None).await.expect("handled");
    assert_eq!(response.batch_item_failures, [], "they are dead letters now");
    assert_eq!(deployment.messages_in(DEAD).await, 2);
    let mut reasons = deployment.reasons().await;
    reasons.sort();
    assert_eq!(reasons, ["unknown_job", "unreadable_message"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn most_of_what_waits_for_a_pool_waits_in_the_queue() {
    let deployment = Deployment::start(&slow(5_000).replace("in_flight = 10", "in_flight = 100")).await;
    for _ in 0..40 {
        let id = silent_job(&deployment).await;
        deployment.world.app.queue.as_ref().expect("a queue").send(&id, "t", 0).await.expect("sent");
    }
    let mut most_waiting = 0;
    let all_end = eventually("all jobs end", async || {
        // What begins in between is no longer waiting.
        let running = || deployment.world.app.concurrency.running() as u64;
        let (before, received) = (running(), deployment.received_from(JOBS).await);
        most_waiting = most_waiting.max(received.saturating_sub(before.max(running())));
        deployment.messages_in(JOBS).await == 0
    });
    deployment.quickly(all_end).await;
    assert!((5..=10).contains(&most_waiting), "{most_waiting}");
    assert_eq!(deployment.simulator().await["total"]["requests"], 40);
}

#[tokio::test]
async fn a_job_is_there_when_its_pool_has_room_again() {
    let limits = "limits = { requests_per_minute = 36 }\nburst = { requests_s = 0 }";
    let pools = pool("pool", "on_demand", "sim.model", limits);
    let deployment = Deployment::start(&answer::deployment(NO_LIMITS, &pools)).await;
    deployment.advance_to_noon();
    // Room comes every five seconds, and a delay of whole seconds would end almost a second later.
    deployment.world.advance(900);
    let path = "/v1/chat/completions";
    for _ in 0..2 {
        assert_eq!(deployment.ask_patiently(path, "t", &chat(5, 5)).await.status, 200, "there is room");
    }
    let id = deployment.submit(path, "t", &chat(5, 5)).await;
    let told_ms = deployment.stored(&id).await.ready_ms;
    let job = deployment.stored_when(&id, |job| job.status.is_final()).await;
    assert_eq!((job.status.name(), job.deferrals), ("succeeded", 0));
    let late_ms = job.started_ms.expect("it ran") - told_ms;
    assert!(late_ms < 500, "{late_ms} ms late");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_batch_run_at_once() {
    let deployment = Deployment::start(&slow(20_000)).await;
    let ids = [(); 4].map(|()| silent_job(&deployment));
    let ids: Vec<String> = futures_util::future::join_all(ids).await;
    let before_ms = deployment.world.app.clock.now_ms();
    let batch = batch_of(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let response = deployment.quickly(handle(&deployment.world.app, batch, None)).await.expect("handled");
    assert_eq!(response.batch_item_failures, []);
    assert!(deployment.world.app.clock.now_ms() - before_ms < 40_000, "not one after the other");
    for id in &ids {
        assert_eq!(deployment.stored(id).await.status.name(), "succeeded");
    }
}

#[tokio::test]
async fn a_job_begins_in_the_first_moments_of_its_invocation_however_short_that_is() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let id = silent_job(&deployment).await;
    // The first moments of an invocation are enough, however long the models may take.
    let app = &deployment.world.app;
    let now_ms = app.clock.now_ms();
    handle(app, batch_of(&[&id]), Some(now_ms + 10_000)).await.expect("handled");
    assert_eq!(deployment.stored(&id).await.status.name(), "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_pool_is_called_by_ever_fewer_jobs_at_once() {
    let deployment = Deployment::start(&two_tenants("limits = { in_flight = 100 }")).await;
    let ids: Vec<String> = futures_util::future::join_all((0..12).map(|_| silent_job(&deployment))).await;
    deployment.disturb(&[json!({ "throttle": true })]).await;
    let batch = batch_of(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let response = deployment.quickly(handle(&deployment.world.app, batch, None)).await.expect("handled");
    assert_eq!(response.batch_item_failures, []);
    let calls = deployment.simulator().await["total"]["requests"].as_u64().expect("a count");
    assert!(calls < 12, "{calls} calls, of which each was in vain");
    deployment.disturb(&[]).await;
    for id in &ids {
        assert_eq!(deployment.end_of(id).await, "succeeded", "a throttle is no failure");
    }
}

#[tokio::test]
async fn a_job_takes_the_cheapest_pool_and_somebody_who_waits_the_first() {
    let pools = pool("default", "on_demand", "sim.default", "")
        + &pool("flex", "on_demand", "sim.flex", "service_tier = \"flex\"")
            .replace("input = 1.0, output = 2.0", "input = 0.5, output = 1.0");
    let deployment = Deployment::start(&answer::deployment(NO_LIMITS, &pools)).await;
    let asked = deployment.ask("/v1/chat/completions", "t", &chat(5, 5)).await;
    assert_eq!(asked.header("x-spillway-pool"), "default");
    let id = silent_job(&deployment).await;
    handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
    assert_eq!(deployment.result("t", &id).await.header("x-spillway-pool"), "flex");

    deployment.disturb(&[json!({ "model_id": "sim.flex", "throttle": true })]).await;
    let id = silent_job(&deployment).await;
    handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
    assert_eq!(deployment.result("t", &id).await.header("x-spillway-pool"), "default", "flex has no room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_runs_only_so_many_jobs_at_once_over_all_drains() {
    let settings = slow(20_000).replacen(NO_LIMITS, &format!("{NO_LIMITS}\ndrain_in_flight = 2"), 1);
    let deployment = Deployment::start(&settings).await;
    let ids: Vec<String> = futures_util::future::join_all((0..5).map(|_| silent_job(&deployment))).await;
    let (app, another) = (deployment.world.app.clone(), deployment.another_drain().await);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let both = async {
        let both = async {
            tokio::join!(handle(&app, batch_of(&ids[..2]), None), handle(&another, batch_of(&ids[2..]), None))
        };
        let mut both = std::pin::pin!(both);
        loop {
            tokio::select! {
                done = &mut both => return done,
                () = tokio::time::sleep(Duration::from_millis(50)) => deployment.at_most_running(2, &ids).await,
            }
        }
    };
    let (one, other) = deployment.quickly(both).await;
    let failures = [one, other].map(|response| response.expect("handled").batch_item_failures.len());
    assert_eq!(failures, [0, 0], "a job that waits for its turn is no failure");
    let statuses = futures_util::future::join_all(ids.iter().map(|id| deployment.stored(id))).await;
    assert!(statuses.iter().any(|job| job.status.name() == "queued" && job.fence == 0 && job.deferrals > 0));
    for id in &ids {
        assert_eq!(deployment.end_of(id).await, "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_hidden_as_long_as_its_job_may_take() {
    let deployment = Deployment::start(&slow(20_000)).await;
    let id = silent_job(&deployment).await;
    let sqs = deployment.sqs().await;
    let short = Queue::create(sqs.clone(), "short", 5).await.expect("a queue").0;
    let app = App { queue: Some(short.clone()), ..deployment.world.app.clone() };
    short.send(&id, "t", 0).await.expect("sent");
    let message = short.receive(1, 5).await.expect("received").remove(0);
    let event = json!({ "Records": [{ "messageId": "m", "receiptHandle": message.receipt_handle, "body": id }] });
    let event: DrainEvent = serde_json::from_value(event).expect("an event");
    let handled = tokio::spawn(async move { handle(&app, event, None).await });
    eventually("the job runs", async || deployment.stored(&id).await.status.name() == "running").await;
    eventually("it has been hidden", async || deployment.simulator().await["total"]["requests"] == 1).await;
    deployment.world.advance(15_000);
    assert_eq!(short.receive(1, 0).await.expect("received"), [], "it is hidden for longer than the queue hides it");
    deployment.world.advance(10_000);
    assert_eq!(handled.await.expect("no panic").expect("handled").batch_item_failures, []);
}

#[tokio::test]
async fn a_job_whose_every_attempt_fails_makes_three_calls_and_no_more() {
    // Two rungs: the first one is throttled each time, and the second fails.
    let pools = pool("full", "on_demand", "sim.throttled", "") + &pool("broken", "on_demand", "sim.broken", "");
    let deployment = Deployment::start(&answer::deployment(NO_LIMITS, &pools)).await;
    deployment.disturb(&[json!({ "model_id": "sim.broken", "error": "ModelErrorException" })]).await;
    let id = silent_job(&deployment).await;
    for _ in 0..20 {
        // Its message comes again and again, also when nobody asked for it.
        handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
        deployment.world.advance(16_000);
    }
    assert_eq!((deployment.stored(&id).await.status.name(), deployment.stored(&id).await.attempts), ("failed", 3));
    let models = deployment.simulator().await["models"].clone();
    assert_eq!(models["sim.broken"]["requests"], 3, "each may be billed");
    assert!(models["sim.throttled"]["requests"].as_u64().is_some_and(|calls| calls <= 3), "none is billed: {models}");
    assert_eq!(deployment.reasons().await, ["model_error"], "one letter, however often the message comes");
}

#[tokio::test]
async fn what_died_between_a_failure_and_its_letter_is_told_by_the_next_drain() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let id = silent_job(&deployment).await;
    deployment.disturb(&[json!({ "error": "ValidationException" })]).await;
    handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
    assert_eq!(deployment.reasons().await, ["invalid_request"]);
    let again = |count: u32| {
        let record = json!({ "messageId": "m", "receiptHandle": "r", "body": id,
            "attributes": { "ApproximateReceiveCount": count.to_string() } });
        serde_json::from_value::<DrainEvent>(json!({ "Records": [record] })).expect("an event")
    };
    handle(&deployment.world.app, again(1), None).await.expect("handled");
    assert_eq!(deployment.messages_in(DEAD).await, 1, "another message of the job is not its own");
    handle(&deployment.world.app, again(2), None).await.expect("handled");
    assert_eq!(deployment.messages_in(DEAD).await, 2);
}

#[tokio::test]
async fn a_sweep_ends_what_is_over_and_writes_its_letter() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let (lost, waiting) = (silent_job(&deployment).await, silent_job(&deployment).await);
    let app = &deployment.world.app;
    for _ in 0..3 {
        app.jobs.claim(&lost, 10_000, app.clock.now_ms()).await.expect("claimed");
        deployment.world.advance(10_000);
    }
    deployment.world.advance(121_000);
    assert_eq!(sweep(app).await.expect("swept"), 1, "the other one is sent again");
    let job = deployment.stored(&lost).await;
    assert_eq!((job.status.name(), job.error.is_some()), ("failed", true));
    assert_eq!(deployment.reasons().await, ["attempts_exhausted"]);
    assert_eq!(deployment.end_of(&waiting).await, "succeeded");

    let expired = silent_job(&deployment).await;
    deployment.world.advance(3_600_000);
    assert_eq!(sweep(app).await.expect("swept"), 0);
    assert_eq!(deployment.stored(&expired).await.status.name(), "expired");
    assert_eq!(deployment.messages_in(DEAD).await, 1, "no failure");
}

impl Deployment {
    /// A drain in another process.
    async fn another_drain(&self) -> App {
        let here = &self.world.app;
        App { queue: here.queue.clone(), dead_letters: here.dead_letters.clone(), ..self.another_app().await }
    }

    /// Checks that no more than `most` of the jobs run.
    async fn at_most_running(&self, most: usize, ids: &[&str]) {
        let jobs = futures_util::future::join_all(ids.iter().map(|id| self.stored(id))).await;
        let running = jobs.iter().filter(|job| job.status.name() == "running").count();
        assert!(running <= most, "{running} run at once");
    }

    /// Why the dead letters are there, each of which is shown again.
    async fn reasons(&self) -> Vec<String> {
        let dead_letters = self.world.app.dead_letters.as_ref().expect("a queue");
        let letters = dead_letters.receive_letters(30).await.expect("letters");
        dead_letters.show_again(&letters).await.expect("shown");
        letters.into_iter().map(|letter| letter.reason.expect("a reason")).collect()
    }
}
