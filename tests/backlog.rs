//! The backlog of a tenant that has reached its own limits: its jobs wait for the tenant's turns
//! and cost one message each.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use spillway::{
    app::App,
    dialect::Api,
    drain::{handle, sweep},
    job::{Job, JobStatus, NewJob, Priority},
    queue::Queue,
    units::Millis,
};

use crate::support::{
    Deployment,
    answer::Answer,
    chat,
    jobs::{JOB_QUEUE, ONE_REQUEST, batch_of, new_job},
    time::eventually,
};

const CHAT: &str = "/v1/chat/completions";

/// A limit that admits five requests every five seconds.
const SIXTY_A_MINUTE: &str = "limits = { requests_per_minute = 60 }\nburst = { requests_s = 0 }";

impl Deployment {
    /// Submits requests until `count` of them have become jobs. Returns their ids.
    async fn submit_jobs(&self, count: usize, body: &Value) -> Vec<String> {
        let mut sent = stream::iter(0..).map(|_| self.ask_respond_async(CHAT, "t", body)).buffer_unordered(8);
        let mut ids = Vec::new();
        while ids.len() < count {
            let answer = sent.next().await.expect("the numbers never end");
            match answer.status {
                202 => ids.push(answer.json()["id"].as_str().expect("an id").to_owned()),
                status => assert_eq!(status, 200, "{}", answer.text()),
            }
        }
        ids
    }

    /// Lets time pass, twenty times as fast as real time, until all jobs have ended. Returns the
    /// jobs.
    async fn until_ended(&self, ids: &[String]) -> Vec<Job> {
        let mut jobs = Vec::new();
        for id in ids {
            loop {
                let job = self.stored(id).await;
                if job.status.is_final() {
                    jobs.push(job);
                    break;
                }
                self.world.advance(400);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        jobs
    }

    /// Returns the number of requests to SQS of this kind.
    async fn queue_requests(&self, operation: &str) -> u64 {
        let url = format!("{}/_sim/stats", self.world.stand_ins.sqs_url());
        let stats: Value = self.http.get(url).send().await.expect("an answer").json().await.expect("JSON");
        stats["operations"][operation].as_u64().unwrap_or(0)
    }

    /// Stores a parked job without a turn. Returns its id.
    async fn submit_parked(&self) -> String {
        self.world.advance(1);
        let now = self.world.app.clock.now();
        let new = NewJob { is_parked: true, ..new_job(Api::ChatCompletions, &chat(5, 5), now) };
        self.world.app.jobs.submit(&new).await.expect("a job").id
    }

    /// Plans a turn of the tenant `t` without sending its message. Returns the body of the message.
    async fn plan_turn(&self) -> String {
        let now = self.world.app.clock.now();
        let planned = self.world.app.backlogs.note_parked("t", now, now).await.expect("the store");
        planned.expect("a new turn").next_turn().to_body()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_costs_few_deferrals_and_messages_for_each_job() {
    const JOBS: usize = 100;
    let deployment = Deployment::with_tenants(SIXTY_A_MINUTE).await;
    let ids = deployment.submit_jobs(JOBS, &chat(5, 5)).await;
    let jobs = deployment.until_ended(&ids).await;
    assert!(jobs.iter().all(|job| job.status == JobStatus::Succeeded));
    let deferrals: u32 = jobs.iter().map(|job| job.deferrals).sum();
    assert!(deferrals as usize <= JOBS * 3 / 2, "{deferrals} deferrals of {JOBS} jobs");
    let messages = deployment.queue_requests("DeleteMessage").await;
    assert!(messages as usize <= JOBS * 3, "{messages} messages for {JOBS} jobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_requests_that_take_less_than_they_reserve_costs_few_deferrals() {
    // Each request reserves a quarter of the limit, and takes a small part of that.
    let deployment = Deployment::with_tenants("limits = { tokens_per_minute = 4_000 }").await;
    let ids = deployment.submit_jobs(40, &chat(5, 950)).await;
    let jobs = deployment.until_ended(&ids).await;
    assert!(jobs.iter().all(|job| job.status == JobStatus::Succeeded));
    let deferrals: u32 = jobs.iter().map(|job| job.deferrals).sum();
    assert!(deferrals <= 60, "{deferrals} deferrals of 40 jobs");
}

#[tokio::test]
async fn the_sweep_sends_the_lost_message_of_a_turn_again() {
    let deployment = Deployment::with_tenants(SIXTY_A_MINUTE).await;
    let ids = [deployment.submit_parked().await, deployment.submit_parked().await];
    deployment.plan_turn().await;
    deployment.world.advance(115_000);
    assert_eq!(sweep(&deployment.world.app).await.expect("swept"), 0, "the message may still arrive");
    deployment.world.advance(7_000);
    assert_eq!(sweep(&deployment.world.app).await.expect("swept"), 1);
    for job in deployment.until_ended(&ids).await {
        assert_eq!((job.status, job.deferrals), (JobStatus::Succeeded, 0));
    }
}

#[tokio::test]
async fn a_parked_job_whose_message_is_lost_is_sent_again_by_a_later_turn() {
    let deployment = Deployment::with_tenants(SIXTY_A_MINUTE).await;
    let ids = [deployment.submit_parked().await];
    let turn = deployment.plan_turn().await;
    deployment.world.advance(1_000);
    // Whatever this drain sends is lost.
    let lost = Queue::create(deployment.sqs().await, "lost", Millis::from_s(60)).await.expect("a queue").0;
    let drain = App { queue: Some(lost), ..deployment.world.app.clone() };
    assert_eq!(handle(&drain, batch_of(&[&turn]), None).await.expect("handled").batch_item_failures, []);
    assert_eq!(deployment.stored(&ids[0]).await.status, JobStatus::Queued);
    deployment.world.advance(150_000);
    assert_eq!(sweep(&deployment.world.app).await.expect("swept"), 1, "the turn, and not the parked job");
    assert_eq!(deployment.until_ended(&ids).await[0].status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_turn_is_taken_once_however_often_its_message_comes() {
    let deployment = Deployment::with_tenants(SIXTY_A_MINUTE).await;
    let ids = [deployment.submit_parked().await];
    let turn = deployment.plan_turn().await;
    deployment.world.advance(1_000);
    let messages = batch_of(&[&turn, &turn, "turn#unknown#1"]);
    assert_eq!(handle(&deployment.world.app, messages, None).await.expect("handled").batch_item_failures, []);
    assert_eq!(deployment.until_ended(&ids).await[0].status, JobStatus::Succeeded);
    let backlog = deployment.world.app.backlogs.get("t").await.expect("the store").expect("a backlog");
    assert!(backlog.turn < 5, "{backlog:?}");
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test]
async fn a_backlog_without_jobs_closes_and_opens_again() {
    let deployment = Deployment::with_tenants(SIXTY_A_MINUTE).await;
    for _ in 0..2 {
        let ids = deployment.submit_jobs(10, &chat(5, 5)).await;
        for job in deployment.until_ended(&ids).await {
            assert_eq!(job.status, JobStatus::Succeeded);
        }
        let closes = eventually("the backlog closes and no message is left", async || {
            deployment.world.advance(2_000);
            let backlog = deployment.world.app.backlogs.get("t").await.expect("the store").expect("a backlog");
            !backlog.is_open && deployment.messages_in(JOB_QUEUE).await == 0
        });
        closes.await;
    }
}

#[tokio::test]
async fn cancelled_and_expired_jobs_leave_the_backlog() {
    let deployment = Deployment::with_tenants("limits = { requests_per_minute = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let first = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let cancelled = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let request = deployment.post(CHAT, "t", &chat(5, 5)).header("prefer", "respond-async");
    let expires = Answer::to(request.header("spillway-deadline", "100")).await.json();
    assert_eq!(expires["status"], "queued", "{expires}");
    let last = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    assert_eq!(deployment.cancel("t", &cancelled).await.status, 200);
    let expires = expires["id"].as_str().expect("an id").to_owned();
    let jobs = deployment.until_ended(&[first, cancelled, expires, last]).await;
    let statuses: Vec<_> = jobs.iter().map(|job| job.status).collect();
    assert_eq!(statuses, [JobStatus::Succeeded, JobStatus::Cancelled, JobStatus::Expired, JobStatus::Succeeded]);
    let late = jobs[2].finished_at.expect("an end") - jobs[2].expires_at;
    assert!(late < Millis::from_s(10), "reported {late} late");
}

#[tokio::test]
async fn the_most_urgent_parked_job_is_sent_first() {
    let deployment = Deployment::with_tenants("limits = { requests_per_minute = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let parked = async |priority| {
        let new = new_job(Api::ChatCompletions, &chat(5, 5), deployment.world.app.clock.now());
        let new = NewJob { is_parked: true, priority, ..new };
        deployment.world.app.jobs.submit(&new).await.expect("a job").id
    };
    let ids = [parked(Priority::Low).await, parked(Priority::Normal).await, parked(Priority::High).await];
    let turn = deployment.plan_turn().await;
    deployment.world.app.queue.as_ref().expect("a queue").send(&turn, "t", Millis::ZERO).await.expect("sent");
    let jobs = deployment.until_ended(&ids).await;
    let started: Vec<_> = jobs.iter().rev().map(|job| job.started_at.expect("a start")).collect();
    assert!(started.is_sorted(), "high, normal, low: {started:?}");
    assert!(jobs.iter().all(|job| job.deferrals == 0), "each was sent when it fitted");
}

#[tokio::test]
async fn places_beyond_five_hundred_are_a_lower_bound() {
    let deployment = Deployment::with_tenants("limits = { requests_per_minute = 1 }").await;
    let ids: Vec<String> = stream::iter(0..502).then(|_| async { deployment.submit_parked().await }).collect().await;
    let place = async |id: &str| {
        let job = deployment.job("t", id).await.json();
        (job["position"].clone(), job["position_is_minimum"].clone())
    };
    assert_eq!(place(&ids[0]).await, (json!(1), json!(false)));
    assert_eq!(place(&ids[499]).await, (json!(500), json!(false)));
    deployment.world.advance(10);
    let last = deployment.submit_parked().await;
    assert_eq!(place(&last).await, (json!(501), json!(true)));
}
