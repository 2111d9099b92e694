//! The drain: messages arrive twice, late, concurrently or never, and each job still has one
//! answer.

use std::time::Duration;

use serde_json::json;
use spillway::{
    app::App,
    clock::Clock,
    dialect::Api,
    drain::{DrainEvent, handle, sweep},
    queue::Queue,
    units::Millis,
};

use crate::support::{
    Deployment,
    answer::{self, pool},
    chat,
    jobs::{DEAD_LETTER_QUEUE, JOB_QUEUE, batch_of, new_job, two_tenants},
    time::eventually,
};

const NO_LIMITS: &str = "limits = { in_flight = 10 }";

/// Returns settings with a model that answers after `model_ms`.
fn slow(model_ms: u64) -> String {
    format!("{}\n[simulator]\ntime_to_first_token_ms = {model_ms}", two_tenants(NO_LIMITS))
}

/// Submits a job that is ready without sending its message. Returns its id.
async fn submit_without_message(deployment: &Deployment) -> String {
    let new = new_job(Api::ChatCompletions, &chat(7, 7), deployment.world.app.clock.now());
    deployment.world.app.jobs.submit(&new).await.expect("a job").id
}

/// Returns the number of stored answers of a job: rows with its id and a fence as their key.
async fn stored_answers(deployment: &Deployment, id: &str) -> usize {
    let dynamodb = deployment.clients().await.dynamodb;
    let scanned = dynamodb.scan().table_name("spillway-jobs").send().await.expect("the jobs");
    let keys = scanned.items().iter().filter_map(|item| item.get("pk")?.as_s().ok());
    keys.filter(|key| key.strip_prefix(&format!("{id}#")).is_some_and(|rest| rest != "request")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_drains_with_one_job_make_one_call_and_one_answer() {
    let deployment = Deployment::start(&slow(20_000)).await;
    let id = submit_without_message(&deployment).await;
    let app = &deployment.world.app;
    let drains = async { tokio::join!(handle(app, batch_of(&[&id]), None), handle(app, batch_of(&[&id]), None)) };
    let (first, second) = deployment.quickly(drains).await;
    for response in [first, second] {
        assert_eq!(response.expect("handled").batch_item_failures, []);
    }
    assert_eq!(deployment.job("t", &id).await.json()["status"], "succeeded");
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
    assert_eq!(deployment.quota("t").await["settled"]["requests"], 1);
    assert_eq!(stored_answers(&deployment, &id).await, 1);

    // The losing drain sent the message again for the end of the winner's lease. It changes
    // nothing.
    assert_eq!(deployment.messages_in(JOB_QUEUE).await, 1);
    deployment.world.advance(60_000);
    eventually("the message is deleted", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test]
async fn a_duplicate_message_after_the_end_of_a_job_changes_nothing() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let id = submit_without_message(&deployment).await;
    let app = &deployment.world.app;
    handle(app, batch_of(&[&id]), None).await.expect("handled");
    let (job, result) = (deployment.stored(&id).await, deployment.result("t", &id).await.body);
    assert_eq!(job.status.name(), "succeeded");
    for _ in 0..3 {
        let repeated = handle(app, batch_of(&[&id]), None).await.expect("handled");
        assert_eq!(repeated.batch_item_failures, []);
    }
    assert_eq!(deployment.stored(&id).await, job);
    assert_eq!(deployment.result("t", &id).await.body, result);
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_drains_only_the_holder_of_the_later_lease_stores_its_answer() {
    let deployment = Deployment::start(&slow(20_000)).await;
    let id = submit_without_message(&deployment).await;
    let drain = |app: &App| {
        let (app, event) = (app.clone(), batch_of(&[&id]));
        tokio::spawn(async move { handle(&app, event, None).await })
    };
    // The process is frozen during the call, as Lambda freezes processes, so it misses its
    // deadline.
    let frozen = App { clock: Clock::default(), ..deployment.world.app.clone() };
    deployment.set_model_faults(&[json!({ "stall_ms": 80_000, "times": 1 })]).await;
    let late = drain(&frozen);
    deployment.until_running(&id, 1).await;
    // The model still runs, but the lease has expired.
    deployment.world.advance(80_000);
    let next = drain(&deployment.world.app);
    deployment.until_running(&id, 2).await;
    deployment.world.advance(25_000);
    for drain in [late, next] {
        assert_eq!(drain.await.expect("no panic").expect("handled").batch_item_failures, []);
    }
    let job = deployment.stored(&id).await;
    assert_eq!((job.status.name(), job.result_fence), ("succeeded", Some(2)));
    assert_eq!(deployment.result("t", &id).await.status, 200);
    // Both calls were made and billed, and both are charged.
    assert_eq!(deployment.simulator().await["total"]["requests"], 2);
    assert_eq!(deployment.quota("t").await["settled"]["output_tokens"], 14);
    assert_eq!(deployment.quota("t").await["limits"][0]["used"], 0);
}

impl Deployment {
    /// Waits until the job runs under `fence` and its call has reached the model.
    async fn until_running(&self, id: &str, fence: u64) {
        eventually("the job runs", async || {
            let job = self.stored(id).await;
            job.is_held_under(fence) && self.simulator().await["total"]["requests"] == fence
        })
        .await;
    }
}

#[tokio::test]
async fn the_sweep_resends_the_lost_message_of_a_job() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let id = submit_without_message(&deployment).await;
    deployment.world.advance(110_000);
    assert_eq!(sweep(&deployment.world.app).await.expect("swept"), 0, "the message may still arrive");
    deployment.world.advance(11_000);
    let event: DrainEvent = serde_json::from_value(json!({ "sweep": true })).expect("an event");
    handle(&deployment.world.app, event, None).await.expect("swept");
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    assert_eq!(sweep(&deployment.world.app).await.expect("swept"), 0, "the message is not sent twice");
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test]
async fn only_failed_messages_are_redelivered() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let (first, last) = (submit_without_message(&deployment).await, submit_without_message(&deployment).await);
    let unknown = "018f0000-0000-7000-8000-000000000000";
    let batch = || batch_of(&[&first, unknown, "not a job id", &last]);
    let without_dead_letters = App { dead_letters: None, ..deployment.world.app.clone() };
    let response = handle(&without_dead_letters, batch(), None).await.expect("handled");
    let failed: Vec<&str> =
        response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect();
    assert_eq!(failed, [format!("message-{unknown}").as_str(), "message-not a job id"]);
    for id in [&first, &last] {
        assert_eq!(deployment.job("t", id).await.json()["status"], "succeeded");
    }
    let response = handle(&deployment.world.app, batch(), None).await.expect("handled");
    assert_eq!(response.batch_item_failures, [], "the failed messages are dead letters now");
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 2);
    let mut reasons = deployment.reasons().await;
    reasons.sort();
    assert_eq!(reasons, ["unknown_job", "unreadable_message"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn most_jobs_that_wait_for_a_pool_wait_in_the_queue() {
    let deployment = Deployment::start(&slow(5_000).replace("in_flight = 10", "in_flight = 100")).await;
    for _ in 0..40 {
        let id = submit_without_message(&deployment).await;
        deployment.world.app.queue.as_ref().expect("a queue").send(&id, "t", Millis::ZERO).await.expect("sent");
    }
    let mut max_waiting = 0;
    let all_end = eventually("all jobs end", async || {
        // A job that starts between the two counts no longer waits.
        let running = || deployment.world.app.concurrency.running() as u64;
        let (before, received) = (running(), deployment.received_from(JOB_QUEUE).await);
        max_waiting = max_waiting.max(received.saturating_sub(before.max(running())));
        deployment.messages_in(JOB_QUEUE).await == 0
    });
    deployment.quickly(all_end).await;
    assert!((5..=10).contains(&max_waiting), "{max_waiting}");
    assert_eq!(deployment.simulator().await["total"]["requests"], 40);
}

#[tokio::test]
async fn a_job_starts_as_soon_as_its_pool_has_room() {
    let limits = "limits = { requests_per_minute = 36 }\nburst = { requests_s = 0 }";
    let pools = pool("pool", "on_demand", "sim.model", limits);
    let deployment = Deployment::start(&answer::deployment(NO_LIMITS, &pools)).await;
    deployment.advance_to_noon();
    // There is room every five seconds. A delay of whole seconds would end almost a second later.
    deployment.world.advance(900);
    let path = "/v1/chat/completions";
    for _ in 0..2 {
        assert_eq!(deployment.ask_respond_async(path, "t", &chat(5, 5)).await.status, 200, "there is room");
    }
    let id = deployment.submit(path, "t", &chat(5, 5)).await;
    let ready_at = deployment.stored(&id).await.ready_at;
    let job = deployment.stored_when(&id, |job| job.status.is_final()).await;
    assert_eq!((job.status.name(), job.deferrals), ("succeeded", 0));
    let late = job.started_at.expect("a start") - ready_at;
    assert!(late < Millis::from_ms(500), "{late} ms late");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_batch_run_concurrently() {
    let deployment = Deployment::start(&slow(20_000)).await;
    let ids = [(); 4].map(|()| submit_without_message(&deployment));
    let ids: Vec<String> = futures_util::future::join_all(ids).await;
    let before = deployment.world.app.clock.now();
    let batch = batch_of(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let response = deployment.quickly(handle(&deployment.world.app, batch, None)).await.expect("handled");
    assert_eq!(response.batch_item_failures, []);
    assert!(deployment.world.app.clock.now() - before < Millis::from_s(40), "the jobs run concurrently");
    for id in &ids {
        assert_eq!(deployment.stored(id).await.status.name(), "succeeded");
    }
}

#[tokio::test]
async fn a_job_starts_at_the_beginning_of_an_invocation_however_short_it_is() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let id = submit_without_message(&deployment).await;
    // Jobs start at the beginning of an invocation, however long their models may take.
    let app = &deployment.world.app;
    let deadline = app.clock.now() + Millis::from_s(10);
    handle(app, batch_of(&[&id]), Some(deadline)).await.expect("handled");
    assert_eq!(deployment.stored(&id).await.status.name(), "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_pool_gets_fewer_and_fewer_concurrent_calls() {
    let deployment = Deployment::start(&two_tenants("limits = { in_flight = 100 }")).await;
    let ids: Vec<String> = futures_util::future::join_all((0..12).map(|_| submit_without_message(&deployment))).await;
    deployment.set_model_faults(&[json!({ "throttle": true })]).await;
    let batch = batch_of(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let response = deployment.quickly(handle(&deployment.world.app, batch, None)).await.expect("handled");
    assert_eq!(response.batch_item_failures, []);
    let calls = deployment.simulator().await["total"]["requests"].as_u64().expect("a count");
    assert!(calls < 12, "{calls} calls, all of them throttled");
    deployment.set_model_faults(&[]).await;
    for id in &ids {
        assert_eq!(deployment.final_status(id).await, "succeeded", "a throttle is no failure");
    }
}

/// Fills the concurrency window of the model's pool, and returns its size.
async fn fill_window(app: &App) -> usize {
    let catalogue = app.registry.catalogue().await.expect("the models");
    let model = catalogue.resolve("m").expect("the model");
    let pool = model.rungs().next().expect("a pool");
    let permits: Vec<_> = std::iter::from_fn(|| app.concurrency.try_acquire(&model, pool).ok()).collect();
    permits.len()
}

/// Attempts a new job once. Returns its status.
async fn attempt(deployment: &Deployment, is_stream: bool) -> &'static str {
    let app = &deployment.world.app;
    let mut body = chat(7, 7);
    body["stream"] = json!(is_stream);
    let new = new_job(Api::ChatCompletions, &body, app.clock.now());
    let id = app.jobs.submit(&new).await.expect("a job").id;
    handle(app, batch_of(&[&id]), None).await.expect("handled");
    deployment.stored(&id).await.status.name()
}

#[tokio::test]
async fn a_streamed_job_widens_the_window_of_its_pool_as_a_plain_job_does() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let app = &deployment.world.app;
    for is_stream in [false, true] {
        // A window that is not filled does not grow.
        let size = fill_window(app).await;
        assert_eq!(attempt(&deployment, is_stream).await, "succeeded");
        assert_eq!(fill_window(app).await, size + 1, "stream: {is_stream}");
    }
}

#[tokio::test]
async fn a_throttle_inside_a_stream_halves_the_window_of_its_pool() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let app = &deployment.world.app;
    let size = fill_window(app).await;
    deployment.set_model_faults(&[json!({ "throttle_mid_stream": 1 })]).await;
    assert_ne!(attempt(&deployment, true).await, "succeeded");
    // No permit is free while the pool cools down. The next attempt may hold one after that.
    let halved = fill_window(app).await;
    assert!(halved <= size / 2, "{halved} of {size}");
}

#[tokio::test]
async fn a_job_takes_the_cheapest_pool_and_a_waiting_caller_takes_the_first() {
    let pools = pool("default", "on_demand", "sim.default", "")
        + &pool("flex", "on_demand", "sim.flex", "service_tier = \"flex\"")
            .replace("input = 1.0, output = 2.0", "input = 0.5, output = 1.0");
    let deployment = Deployment::start(&answer::deployment(NO_LIMITS, &pools)).await;
    let direct = deployment.ask("/v1/chat/completions", "t", &chat(5, 5)).await;
    assert_eq!(direct.header("x-spillway-pool"), "default");
    let id = submit_without_message(&deployment).await;
    handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
    assert_eq!(deployment.result("t", &id).await.header("x-spillway-pool"), "flex");

    deployment.set_model_faults(&[json!({ "model_id": "sim.flex", "throttle": true })]).await;
    let id = submit_without_message(&deployment).await;
    handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
    assert_eq!(deployment.result("t", &id).await.header("x-spillway-pool"), "default", "flex has no room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_job_concurrency_limit_holds_across_drains() {
    let settings = slow(20_000).replacen(NO_LIMITS, &format!("{NO_LIMITS}\ndrain_in_flight = 2"), 1);
    let deployment = Deployment::start(&settings).await;
    let ids: Vec<String> = futures_util::future::join_all((0..5).map(|_| submit_without_message(&deployment))).await;
    let (app, another) = (deployment.world.app.clone(), deployment.another_drain().await);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let drains = async {
        let drains = async {
            tokio::join!(handle(&app, batch_of(&ids[..2]), None), handle(&another, batch_of(&ids[2..]), None))
        };
        let mut drains = std::pin::pin!(drains);
        loop {
            tokio::select! {
                handled = &mut drains => return handled,
                () = tokio::time::sleep(Duration::from_millis(50)) => deployment.at_most_running(2, &ids).await,
            }
        }
    };
    let (first, second) = deployment.quickly(drains).await;
    let failures = [first, second].map(|response| response.expect("handled").batch_item_failures.len());
    assert_eq!(failures, [0, 0], "a job that waits for the concurrency limit is no failure");
    let statuses = futures_util::future::join_all(ids.iter().map(|id| deployment.stored(id))).await;
    assert!(statuses.iter().any(|job| job.status.name() == "queued" && job.fence == 0 && job.deferrals > 0));
    for id in &ids {
        assert_eq!(deployment.final_status(id).await, "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_stays_hidden_while_its_job_may_run() {
    let deployment = Deployment::start(&slow(20_000)).await;
    let id = submit_without_message(&deployment).await;
    let sqs = deployment.sqs().await;
    let short_queue = Queue::create(sqs.clone(), "short", Millis::from_s(5)).await.expect("a queue").0;
    let app = App { queue: Some(short_queue.clone()), ..deployment.world.app.clone() };
    short_queue.send(&id, "t", Millis::ZERO).await.expect("sent");
    let message = short_queue.receive(1, Millis::from_s(5)).await.expect("received").remove(0);
    let event = json!({ "Records": [{ "messageId": "m", "receiptHandle": message.receipt_handle, "body": id }] });
    let event: DrainEvent = serde_json::from_value(event).expect("an event");
    let handled = tokio::spawn(async move { handle(&app, event, None).await });
    eventually("the job runs", async || deployment.stored(&id).await.status.name() == "running").await;
    eventually("its message is hidden and the model runs", async || {
        deployment.simulator().await["total"]["requests"] == 1
    })
    .await;
    deployment.world.advance(15_000);
    assert_eq!(
        short_queue.receive(1, Millis::ZERO).await.expect("received"),
        [],
        "the message stays hidden for longer than the visibility timeout of the queue"
    );
    deployment.world.advance(10_000);
    assert_eq!(handled.await.expect("no panic").expect("handled").batch_item_failures, []);
}

#[tokio::test]
async fn a_job_whose_every_attempt_fails_makes_three_calls_and_no_more() {
    // Two pools: the first is always throttled, and the second fails.
    let pools = pool("full", "on_demand", "sim.throttled", "") + &pool("broken", "on_demand", "sim.broken", "");
    let deployment = Deployment::start(&answer::deployment(NO_LIMITS, &pools)).await;
    deployment.set_model_faults(&[json!({ "model_id": "sim.broken", "error": "ModelErrorException" })]).await;
    let id = submit_without_message(&deployment).await;
    for _ in 0..20 {
        // SQS delivers the message repeatedly, even without a retry by the drain.
        handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
        deployment.world.advance(16_000);
    }
    assert_eq!((deployment.stored(&id).await.status.name(), deployment.stored(&id).await.attempts), ("failed", 3));
    let models = deployment.simulator().await["models"].clone();
    assert_eq!(models["sim.broken"]["requests"], 3, "each call may be billed");
    assert!(
        models["sim.throttled"]["requests"].as_u64().is_some_and(|calls| calls <= 3),
        "no throttled call is billed: {models}"
    );
    assert_eq!(deployment.reasons().await, ["model_error"], "one dead letter, however often the message comes");
}

#[tokio::test]
async fn the_next_drain_sends_the_dead_letter_that_a_crashed_drain_did_not_send() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let id = submit_without_message(&deployment).await;
    deployment.set_model_faults(&[json!({ "error": "ValidationException" })]).await;
    handle(&deployment.world.app, batch_of(&[&id]), None).await.expect("handled");
    assert_eq!(deployment.reasons().await, ["invalid_request"]);
    let redelivered = |count: u32| {
        let record = json!({ "messageId": "m", "receiptHandle": "r", "body": id,
            "attributes": { "ApproximateReceiveCount": count.to_string() } });
        serde_json::from_value::<DrainEvent>(json!({ "Records": [record] })).expect("an event")
    };
    handle(&deployment.world.app, redelivered(1), None).await.expect("handled");
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 1, "another message of the job sends no dead letter");
    handle(&deployment.world.app, redelivered(2), None).await.expect("handled");
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 2);
}

#[tokio::test]
async fn the_sweep_ends_overdue_jobs_and_sends_their_dead_letters() {
    let deployment = Deployment::start(&two_tenants(NO_LIMITS)).await;
    let (lost, waiting) = (submit_without_message(&deployment).await, submit_without_message(&deployment).await);
    let app = &deployment.world.app;
    for _ in 0..3 {
        app.jobs.claim(&lost, Millis::from_s(10), app.clock.now()).await.expect("claimed");
        deployment.world.advance(10_000);
    }
    deployment.world.advance(121_000);
    assert_eq!(sweep(app).await.expect("swept"), 1, "the message of the waiting job is sent again");
    let job = deployment.stored(&lost).await;
    assert_eq!((job.status.name(), job.error.is_some()), ("failed", true));
    assert_eq!(deployment.reasons().await, ["attempts_exhausted"]);
    assert_eq!(deployment.final_status(&waiting).await, "succeeded");

    let expired = submit_without_message(&deployment).await;
    deployment.world.advance(3_600_000);
    assert_eq!(sweep(app).await.expect("swept"), 0);
    assert_eq!(deployment.stored(&expired).await.status.name(), "expired");
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 1, "expiry is no failure");
}

impl Deployment {
    /// Returns the app of a drain in another process.
    async fn another_drain(&self) -> App {
        let app = &self.world.app;
        App { queue: app.queue.clone(), dead_letters: app.dead_letters.clone(), ..self.another_app().await }
    }

    /// Fails if more than `max_running` of the jobs run.
    async fn at_most_running(&self, max_running: usize, ids: &[&str]) {
        let jobs = futures_util::future::join_all(ids.iter().map(|id| self.stored(id))).await;
        let running = jobs.iter().filter(|job| job.status.name() == "running").count();
        assert!(running <= max_running, "{running} jobs run concurrently");
    }
}
