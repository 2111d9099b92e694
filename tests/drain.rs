//! The drain: messages come twice, late, at the same time or not at all, and each job has one answer all the same.

use bytes::Bytes;
use serde_json::json;
use spillway::{
    dialect::Dialect,
    drain::{DrainEvent, handle, sweep},
    job::{Call, NewJob, Priority},
};

use crate::support::{
    Deployment, chat,
    jobs::{JOBS, batch_of, two_tenants},
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
    let new = NewJob {
        id: None,
        tenant: "t".into(),
        call: Call {
            dialect: Dialect::OpenAi,
            method: "POST".into(),
            path: "/v1/chat/completions".into(),
            headers: Vec::new(),
            stream: false,
        },
        body: Bytes::from(chat(7, 7).to_string()),
        created_ms: now_ms,
        ready_ms: now_ms,
        expires_ms: now_ms + 3_600_000,
        priority: Priority::Normal,
        class: spillway::tenant::Class::Batch,
        member: None,
    };
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
    let deployment = Deployment::start(&slow(90_000)).await;
    let id = silent_job(&deployment).await;
    let app = deployment.world.app.clone();
    let drain = || {
        let (app, event) = (app.clone(), batch_of(&[&id]));
        tokio::spawn(async move { handle(&app, event, None).await })
    };
    let late = drain();
    deployment.stored_running(&id, 1).await;
    // The model is not done yet, but the lease is over.
    deployment.world.advance(60_000);
    let next = drain();
    deployment.stored_running(&id, 2).await;
    deployment.world.advance(90_000);
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
    let batch = batch_of(&[&one, unknown, "no id at all", &other]);
    let response = handle(&deployment.world.app, batch, None).await.expect("handled");
    let failed: Vec<&str> =
        response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect();
    assert_eq!(failed, [format!("message-{unknown}").as_str(), "message-no id at all"]);
    for id in [one, other] {
        assert_eq!(deployment.job("t", &id).await.json()["status"], "succeeded");
    }
}
