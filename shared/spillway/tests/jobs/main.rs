//! The jobs table against DynamoDB on the wire.

#[path = "../support/dynamodb.rs"]
mod dynamodb;

mod failures;
mod repair;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dynamodb::Dynamodb;
use futures_util::future::join_all;
use spillway::{
    dialect::Api,
    job::{Call, Job, MAX_ATTEMPTS, NewJob, Outcome, Priority, Status, StoredResult},
    store::{
        StoreError,
        jobs::{Cancel, Claim, Jobs, MAX_ROW_BODY_BYTES},
        tables,
    },
};

const NOW_MS: u64 = 1_800_000_000_123;
const LEASE_MS: u64 = 60_000;
const HOUR_MS: u64 = 3_600_000;

async fn setup() -> (Dynamodb, Jobs) {
    let dynamodb = dynamodb::start().await;
    tables::create_jobs(&dynamodb.client, &dynamodb.table).await.expect("a table");
    let jobs = Jobs::new(dynamodb.client.clone(), &dynamodb.table, None);
    (dynamodb, jobs)
}

fn new_job() -> NewJob {
    NewJob {
        id: None,
        tenant: "acme".into(),
        call: Call {
            api: Api::Messages,
            model: None,
            path: "/model/us.anthropic%3Aclaude/converse".into(),
            headers: vec![("content-type".into(), "application/json".into())],
            stream: true,
        },
        body: Bytes::from_static(b"{\"not\": \xff utf-8}"),
        created_ms: NOW_MS,
        ready_ms: NOW_MS,
        expires_ms: NOW_MS + HOUR_MS,
        priority: Priority::Normal,
        class: spillway::tenant::Class::Batch,
        member: None,
    }
}

fn answer(text: &str) -> StoredResult {
    let headers = vec![("content-type".into(), "text/event-stream".into()), ("x-spillway-pool".into(), "pt".into())];
    StoredResult { status: 200, headers, body: Bytes::copy_from_slice(text.as_bytes()) }
}

fn succeeded(text: &str) -> Outcome {
    Outcome::Succeeded(answer(text))
}

async fn submitted(jobs: &Jobs) -> Job {
    jobs.submit(&new_job()).await.expect("stored")
}

async fn claimed(jobs: &Jobs, id: &str, now_ms: u64) -> Job {
    match jobs.claim(id, LEASE_MS, now_ms).await.expect("read") {
        Claim::Run { job, .. } => *job,
        other => panic!("not to be run: {other:?}"),
    }
}

async fn status(jobs: &Jobs, id: &str) -> Status {
    jobs.get(id).await.expect("read").expect("there").status
}

#[tokio::test]
async fn a_job_is_answered_with_the_bytes_and_headers_it_was_given() {
    let (_dynamodb, jobs) = setup().await;
    let submitted = submitted(&jobs).await;
    let found = jobs.get(&submitted.id).await.expect("read").expect("there");
    assert_eq!(found, submitted);
    assert_eq!((found.status, found.call), (Status::Queued, new_job().call));
    assert_eq!(jobs.result(&submitted).await, Ok(None));

    let Claim::Run { job, body } = jobs.claim(&submitted.id, LEASE_MS, NOW_MS).await.expect("read") else {
        panic!("not claimed");
    };
    assert_eq!(body, new_job().body);
    assert_eq!((job.status, job.started_ms, job.fence), (Status::Running, Some(NOW_MS), 1));
    assert_eq!(jobs.finish(&job, &succeeded("hello"), NOW_MS + 500).await, Ok(true));

    let ended = jobs.get(&submitted.id).await.expect("read").expect("there");
    assert_eq!((ended.status, ended.finished_ms), (Status::Succeeded, Some(NOW_MS + 500)));
    assert_eq!(jobs.result(&ended).await, Ok(Some(answer("hello"))));
    assert_eq!(jobs.claim(&submitted.id, LEASE_MS, NOW_MS + HOUR_MS * 9).await, Ok(Claim::Ended(Status::Succeeded)));
}

#[tokio::test]
async fn a_failed_job_keeps_its_error_and_what_the_caller_would_have_got() {
    let (_dynamodb, jobs) = setup().await;
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW_MS).await;
    let result = StoredResult { status: 400, headers: Vec::new(), body: Bytes::from_static(b"{}") };
    let outcome = Outcome::Failed { error: "the model refused".into(), result: result.clone() };
    assert_eq!(jobs.finish(&job, &outcome, NOW_MS).await, Ok(true));
    let ended = jobs.get(&job.id).await.expect("read").expect("there");
    assert_eq!((ended.status, ended.error.as_deref()), (Status::Failed, Some("the model refused")));
    assert_eq!(jobs.result(&ended).await, Ok(Some(result)));
}

#[tokio::test]
async fn of_many_drains_at_once_one_gets_the_job() {
    let (_dynamodb, jobs) = setup().await;
    let job = submitted(&jobs).await;
    let claims = join_all((0..20).map(|_| jobs.claim(&job.id, LEASE_MS, NOW_MS))).await;
    let (run, others): (Vec<_>, Vec<_>) =
        claims.into_iter().map(|claim| claim.expect("read")).partition(|claim| matches!(claim, Claim::Run { .. }));
    assert_eq!(run.len(), 1);
    assert_eq!(others, vec![Claim::NotYet { until_ms: NOW_MS + LEASE_MS }; 19]);
}

#[tokio::test]
async fn the_answer_of_whoever_lost_the_lease_does_not_count() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    let slow = claimed(&jobs, &id, NOW_MS).await;
    let quick = claimed(&jobs, &id, NOW_MS + LEASE_MS).await;
    assert_eq!(jobs.finish(&slow, &succeeded("slow"), NOW_MS + LEASE_MS).await, Ok(false));
    assert_eq!(jobs.defer(&slow, NOW_MS + HOUR_MS).await, Ok(false));
    assert_eq!(jobs.retry(&slow, NOW_MS + HOUR_MS).await, Ok(false));
    assert_eq!(status(&jobs, &id).await, Status::Running);
    assert_eq!(jobs.finish(&quick, &succeeded("quick"), NOW_MS + LEASE_MS).await, Ok(true));
    assert_eq!(jobs.finish(&slow, &succeeded("slow"), NOW_MS + LEASE_MS).await, Ok(false));
    let ended = jobs.get(&id).await.expect("read").expect("there");
    assert_eq!(jobs.result(&ended).await, Ok(Some(answer("quick"))));
}

#[tokio::test]
async fn a_late_answer_counts_while_nobody_else_took_the_job() {
    let (_dynamodb, jobs) = setup().await;
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW_MS).await;
    assert_eq!(jobs.finish(&job, &succeeded("late"), NOW_MS + HOUR_MS * 2).await, Ok(true));
    assert_eq!(jobs.finish(&job, &succeeded("late"), NOW_MS + HOUR_MS * 2).await, Ok(true), "repeating is harmless");
    assert_eq!(status(&jobs, &job.id).await, Status::Succeeded);
}

#[tokio::test]
async fn a_deferred_job_waits_for_its_time_without_counting_an_attempt() {
    let (_dynamodb, jobs) = setup().await;
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW_MS).await;
    assert_eq!(jobs.defer(&job, NOW_MS + 40_000).await, Ok(true));
    assert_eq!(jobs.defer(&job, NOW_MS + 40_000).await, Ok(true), "repeating is harmless");
    let early = jobs.claim(&job.id, LEASE_MS, NOW_MS + 30_000).await;
    assert_eq!(early, Ok(Claim::NotYet { until_ms: NOW_MS + 40_000 }));
    let again = claimed(&jobs, &job.id, NOW_MS + 40_000).await;
    assert_eq!((again.attempts, again.deferrals, again.fence), (1, 1, 2));
    assert_eq!(jobs.retry(&again, NOW_MS + 50_000).await, Ok(true));
    assert_eq!(claimed(&jobs, &job.id, NOW_MS + 50_000).await.attempts, 2);
}

#[tokio::test]
async fn a_job_without_room_expires_in_time_and_says_why() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    assert_eq!(jobs.claim(&id, LEASE_MS, NOW_MS + HOUR_MS).await, Ok(Claim::Ended(Status::Expired)));
    let ended = jobs.get(&id).await.expect("read").expect("there");
    assert_eq!((ended.status, ended.finished_ms), (Status::Expired, Some(NOW_MS + HOUR_MS)));
    assert_eq!(ended.error.as_deref(), Some("no room was found in time"));
    assert_eq!(jobs.result(&ended).await, Ok(None));
}

#[tokio::test]
async fn a_job_whose_every_drain_died_ends_failed() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    for attempt in 0..u64::from(MAX_ATTEMPTS) {
        claimed(&jobs, &id, NOW_MS + attempt * LEASE_MS).await;
    }
    let end_ms = NOW_MS + u64::from(MAX_ATTEMPTS) * LEASE_MS;
    assert_eq!(jobs.claim(&id, LEASE_MS, end_ms).await, Ok(Claim::Ended(Status::Failed)));
    assert_eq!(status(&jobs, &id).await, Status::Failed);
}

#[tokio::test]
async fn a_job_can_be_cancelled_by_its_tenant_before_it_is_claimed() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    assert_eq!(jobs.cancel(&id, "other", NOW_MS).await, Ok(Cancel::Missing));
    assert_eq!(jobs.cancel(&id, "acme", NOW_MS).await, Ok(Cancel::Cancelled));
    assert_eq!(jobs.cancel(&id, "acme", NOW_MS).await, Ok(Cancel::Cancelled), "repeating is harmless");
    assert_eq!(jobs.claim(&id, LEASE_MS, NOW_MS).await, Ok(Claim::Ended(Status::Cancelled)));

    let running = claimed(&jobs, &submitted(&jobs).await.id, NOW_MS).await;
    assert_eq!(jobs.cancel(&running.id, "acme", NOW_MS).await, Ok(Cancel::TooLate(Status::Running)));
    assert_eq!(jobs.cancel(&running.id, "other", NOW_MS).await, Ok(Cancel::Missing));
}

#[tokio::test]
async fn of_a_cancellation_and_a_claim_at_once_one_wins() {
    let (_dynamodb, jobs) = setup().await;
    for _ in 0..20 {
        let id = submitted(&jobs).await.id;
        let (cancelled, claim) = tokio::join!(jobs.cancel(&id, "acme", NOW_MS), jobs.claim(&id, LEASE_MS, NOW_MS));
        match (cancelled.expect("read"), claim.expect("read")) {
            (Cancel::Cancelled, Claim::Ended(Status::Cancelled)) => {}
            (Cancel::TooLate(Status::Running), Claim::Run { .. }) => {}
            both => panic!("{both:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_job_id_names_no_job() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    let job = claimed(&jobs, &id, NOW_MS).await;
    jobs.finish(&job, &succeeded("hello"), NOW_MS).await.expect("stored");
    let other = uuid::Uuid::now_v7().to_string();
    for name in ["", "#", "jobs", &format!("{id}#request"), &format!("{id}#1"), &other] {
        assert_eq!(jobs.get(name).await, Ok(None), "{name}");
        assert_eq!(jobs.claim(name, LEASE_MS, NOW_MS).await, Ok(Claim::Missing), "{name}");
        assert_eq!(jobs.cancel(name, "acme", NOW_MS).await, Ok(Cancel::Missing), "{name}");
    }
    assert!(jobs.get(&id.to_uppercase()).await.expect("read").is_some());
}

#[tokio::test]
async fn what_fits_in_a_row_is_stored_and_what_does_not_is_refused() {
    let (_dynamodb, jobs) = setup().await;
    let largest = Bytes::from(vec![b'x'; MAX_ROW_BODY_BYTES]);
    let job = jobs.submit(&NewJob { body: largest.clone(), ..new_job() }).await.expect("stored");
    let Claim::Run { job, body } = jobs.claim(&job.id, LEASE_MS, NOW_MS).await.expect("read") else {
        panic!("not claimed");
    };
    assert_eq!(body, largest);
    let result = StoredResult { body: largest, ..answer("") };
    let larger = StoredResult { body: Bytes::from(vec![b'x'; MAX_ROW_BODY_BYTES + 1]), ..answer("") };
    let refused = jobs.finish(&job, &Outcome::Succeeded(larger.clone()), NOW_MS).await;
    let too_large = |what| StoreError::TooLarge { what, bytes: MAX_ROW_BODY_BYTES + 1, limit: MAX_ROW_BODY_BYTES };
    assert_eq!(refused, Err(too_large("the answer")));
    assert_eq!(jobs.finish(&job, &Outcome::Succeeded(result.clone()), NOW_MS).await, Ok(true));
    let ended = jobs.get(&job.id).await.expect("read").expect("there");
    assert_eq!(jobs.result(&ended).await, Ok(Some(result)));
    let refused = jobs.submit(&NewJob { body: larger.body, ..new_job() }).await;
    assert_eq!(refused, Err(too_large("the request")));
}

#[tokio::test]
async fn a_job_that_is_put_off_counts_no_attempt_and_is_left_to_who_took_it_meanwhile() {
    let (_dynamodb, jobs) = setup().await;
    let job = submitted(&jobs).await;
    jobs.postpone(&job, NOW_MS + 9_000).await.expect("put off");
    let queued = jobs.get(&job.id).await.expect("read").expect("there");
    assert_eq!((queued.ready_ms, queued.due_ms, queued.attempts), (NOW_MS + 9_000, NOW_MS + 9_000, 0));
    let running = claimed(&jobs, &job.id, NOW_MS + 9_000).await;
    jobs.postpone(&queued, NOW_MS + 20_000).await.expect("nothing to do");
    assert_eq!(jobs.get(&job.id).await.expect("read").expect("there").ready_ms, running.ready_ms);
}

#[tokio::test]
async fn rows_are_kept_for_a_week_after_their_job_ends() {
    let (dynamodb, jobs) = setup().await;
    let expires_s = async |key: &str| {
        let request = dynamodb.client.get_item().table_name(&dynamodb.table).consistent_read(true);
        let found = request.key("pk", AttributeValue::S(key.into())).send().await.expect("read");
        found.item.expect("there")["expires_s"].as_n().expect("a number").parse::<u64>().expect("whole")
    };
    const WEEK_S: u64 = 7 * 24 * 60 * 60;
    let id = submitted(&jobs).await.id;
    let expiry_s = (NOW_MS + HOUR_MS) / 1000;
    assert_eq!(expires_s(&id).await, expiry_s + WEEK_S);
    assert_eq!(expires_s(&format!("{id}#request")).await, expiry_s + WEEK_S);
    let job = claimed(&jobs, &id, NOW_MS).await;
    jobs.finish(&job, &succeeded("hello"), NOW_MS + 7_000).await.expect("finished");
    assert_eq!(expires_s(&id).await, (NOW_MS + 7_000) / 1000 + WEEK_S);
    assert_eq!(expires_s(&format!("{id}#1")).await, (NOW_MS + 7_000) / 1000 + WEEK_S);
}
