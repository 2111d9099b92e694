//! The jobs in the jobs table, against DynamoDB on the wire.

#[path = "../support/dynamodb.rs"]
mod dynamodb;

mod failures;
mod parked;
mod repair;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dynamodb::Dynamodb;
use futures_util::future::join_all;
use spillway::{
    dialect::Api,
    job::{Job, JobOutcome, JobStatus, JobWait, MAX_ATTEMPTS, NewJob, Obstruction, Priority, StoredCall, StoredResult},
    store::{
        StoreError,
        jobs::{CancelOutcome, ClaimOutcome, Jobs, MAX_ROW_BODY_BYTES},
        tables,
    },
    stored_headers::StoredHeaders,
    units::{Millis, UnixMs},
};

const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_123);
const LEASE: Millis = Millis::from_s(60);
const HOUR: Millis = Millis::from_s(3_600);

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
        call: StoredCall {
            api: Api::Messages,
            model: None,
            path: "/model/us.anthropic%3Aclaude/converse".into(),
            base_path: String::new(),
            headers: [("content-type", "application/json")].into(),
            stream: true,
        },
        body: Bytes::from_static(b"{\"not\": \xff utf-8}"),
        created_at: NOW,
        ready_at: NOW,
        expires_at: NOW + HOUR,
        is_parked: false,
        priority: Priority::Normal,
        class: spillway::tenant::Class::Batch,
        member: None,
        wait: None,
    }
}

/// The reason of a job that waits for the first time.
fn wait() -> JobWait {
    JobWait::after(None, Obstruction::for_limit("in_flight"), NOW)
}

fn answer(text: &str) -> StoredResult {
    let headers = [("content-type", "text/event-stream"), ("x-spillway-pool", "pt")];
    StoredResult { status: 200, headers: headers.into(), body: Bytes::copy_from_slice(text.as_bytes()) }
}

fn succeeded(text: &str) -> JobOutcome {
    JobOutcome::Succeeded(answer(text))
}

async fn submitted(jobs: &Jobs) -> Job {
    jobs.submit(&new_job()).await.expect("stored")
}

async fn claimed(jobs: &Jobs, id: &str, now: UnixMs) -> Job {
    match jobs.claim(id, LEASE, now).await.expect("read") {
        ClaimOutcome::Run { job, .. } => *job,
        outcome => panic!("not claimed: {outcome:?}"),
    }
}

async fn status(jobs: &Jobs, id: &str) -> JobStatus {
    jobs.get(id).await.expect("read").expect("a row").status
}

#[tokio::test]
async fn a_job_is_answered_with_the_bytes_and_headers_it_was_given() {
    let (_dynamodb, jobs) = setup().await;
    let submitted = submitted(&jobs).await;
    let found = jobs.get(&submitted.id).await.expect("read").expect("a row");
    assert_eq!(found, submitted);
    assert_eq!((found.status, found.call), (JobStatus::Queued, new_job().call));
    assert_eq!(jobs.result(&submitted).await, Ok(None));

    let ClaimOutcome::Run { job, body } = jobs.claim(&submitted.id, LEASE, NOW).await.expect("read") else {
        panic!("not claimed");
    };
    assert_eq!(body, new_job().body);
    assert_eq!((job.status, job.started_at, job.fence), (JobStatus::Running, Some(NOW), 1));
    assert_eq!(jobs.finish(&job, &succeeded("hello"), NOW + Millis::from_ms(500)).await, Ok(true));

    let ended = jobs.get(&submitted.id).await.expect("read").expect("a row");
    assert_eq!((ended.status, ended.finished_at), (JobStatus::Succeeded, Some(NOW + Millis::from_ms(500))));
    assert_eq!(jobs.result(&ended).await, Ok(Some(answer("hello"))));
    assert_eq!(jobs.claim(&submitted.id, LEASE, NOW + HOUR * 9).await, Ok(ClaimOutcome::Ended(JobStatus::Succeeded)));
}

#[tokio::test]
async fn a_failed_job_keeps_its_error_and_the_answer_to_the_caller() {
    let (_dynamodb, jobs) = setup().await;
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW).await;
    let result = StoredResult { status: 400, headers: StoredHeaders::default(), body: Bytes::from_static(b"{}") };
    let outcome = JobOutcome::Failed { error: "the model refused".into(), result: result.clone() };
    assert_eq!(jobs.finish(&job, &outcome, NOW).await, Ok(true));
    let ended = jobs.get(&job.id).await.expect("read").expect("a row");
    assert_eq!((ended.status, ended.error.as_deref()), (JobStatus::Failed, Some("the model refused")));
    assert_eq!(jobs.result(&ended).await, Ok(Some(result)));
}

#[tokio::test]
async fn one_of_many_concurrent_drains_gets_the_job() {
    let (_dynamodb, jobs) = setup().await;
    let job = submitted(&jobs).await;
    let claims = join_all((0..20).map(|_| jobs.claim(&job.id, LEASE, NOW))).await;
    let (run, others): (Vec<_>, Vec<_>) = claims
        .into_iter()
        .map(|claim| claim.expect("read"))
        .partition(|claim| matches!(claim, ClaimOutcome::Run { .. }));
    assert_eq!(run.len(), 1);
    assert_eq!(others, vec![ClaimOutcome::NotYet { until: NOW + LEASE }; 19]);
}

#[tokio::test]
async fn the_answer_of_a_drain_that_lost_the_lease_does_not_count() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    let slow = claimed(&jobs, &id, NOW).await;
    let quick = claimed(&jobs, &id, NOW + LEASE).await;
    assert_eq!(jobs.finish(&slow, &succeeded("slow"), NOW + LEASE).await, Ok(false));
    assert_eq!(jobs.defer(&slow, &wait(), NOW + HOUR).await, Ok(false));
    assert_eq!(jobs.retry(&slow, NOW + HOUR).await, Ok(false));
    assert_eq!(status(&jobs, &id).await, JobStatus::Running);
    assert_eq!(jobs.finish(&quick, &succeeded("quick"), NOW + LEASE).await, Ok(true));
    assert_eq!(jobs.finish(&slow, &succeeded("slow"), NOW + LEASE).await, Ok(false));
    let ended = jobs.get(&id).await.expect("read").expect("a row");
    assert_eq!(jobs.result(&ended).await, Ok(Some(answer("quick"))));
}

#[tokio::test]
async fn a_late_answer_counts_if_no_other_drain_claimed_the_job() {
    let (_dynamodb, jobs) = setup().await;
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW).await;
    assert_eq!(jobs.finish(&job, &succeeded("late"), NOW + HOUR * 2).await, Ok(true));
    assert_eq!(jobs.finish(&job, &succeeded("late"), NOW + HOUR * 2).await, Ok(true), "a repetition is harmless");
    assert_eq!(status(&jobs, &job.id).await, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_deferred_job_waits_for_its_time_without_counting_an_attempt() {
    let (_dynamodb, jobs) = setup().await;
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW).await;
    assert_eq!(jobs.defer(&job, &wait(), NOW + Millis::from_s(40)).await, Ok(true));
    assert_eq!(jobs.defer(&job, &wait(), NOW + Millis::from_s(40)).await, Ok(true), "a repetition is harmless");
    let early = jobs.claim(&job.id, LEASE, NOW + Millis::from_s(30)).await;
    assert_eq!(early, Ok(ClaimOutcome::NotYet { until: NOW + Millis::from_s(40) }));
    let again = claimed(&jobs, &job.id, NOW + Millis::from_s(40)).await;
    assert_eq!((again.attempts, again.deferrals, again.fence), (1, 1, 2));
    assert_eq!(jobs.retry(&again, NOW + Millis::from_s(50)).await, Ok(true));
    assert_eq!(claimed(&jobs, &job.id, NOW + Millis::from_s(50)).await.attempts, 2);
}

#[tokio::test]
async fn a_job_without_room_expires_in_time_with_a_reason() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    assert_eq!(jobs.claim(&id, LEASE, NOW + HOUR).await, Ok(ClaimOutcome::Ended(JobStatus::Expired)));
    let ended = jobs.get(&id).await.expect("read").expect("a row");
    assert_eq!((ended.status, ended.finished_at), (JobStatus::Expired, Some(NOW + HOUR)));
    assert_eq!(ended.error.as_deref(), Some("no room was found in time"));
    assert_eq!(jobs.result(&ended).await, Ok(None));
}

#[tokio::test]
async fn a_job_whose_every_drain_died_ends_failed() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    for attempt in 0..u64::from(MAX_ATTEMPTS) {
        claimed(&jobs, &id, NOW + LEASE * attempt).await;
    }
    let end = NOW + LEASE * u64::from(MAX_ATTEMPTS);
    assert_eq!(jobs.claim(&id, LEASE, end).await, Ok(ClaimOutcome::Ended(JobStatus::Failed)));
    assert_eq!(status(&jobs, &id).await, JobStatus::Failed);
}

#[tokio::test]
async fn a_job_can_be_cancelled_by_its_tenant_before_it_is_claimed() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    assert_eq!(jobs.cancel(&id, "other", NOW).await, Ok(CancelOutcome::Missing));
    assert_eq!(jobs.cancel(&id, "acme", NOW).await, Ok(CancelOutcome::Cancelled));
    assert_eq!(jobs.cancel(&id, "acme", NOW).await, Ok(CancelOutcome::Cancelled), "a repetition is harmless");
    assert_eq!(jobs.claim(&id, LEASE, NOW).await, Ok(ClaimOutcome::Ended(JobStatus::Cancelled)));

    let running = claimed(&jobs, &submitted(&jobs).await.id, NOW).await;
    assert_eq!(jobs.cancel(&running.id, "acme", NOW).await, Ok(CancelOutcome::TooLate(JobStatus::Running)));
    assert_eq!(jobs.cancel(&running.id, "other", NOW).await, Ok(CancelOutcome::Missing));
}

#[tokio::test]
async fn a_cancellation_or_a_concurrent_claim_wins() {
    let (_dynamodb, jobs) = setup().await;
    for _ in 0..20 {
        let id = submitted(&jobs).await.id;
        let (cancelled, claim) = tokio::join!(jobs.cancel(&id, "acme", NOW), jobs.claim(&id, LEASE, NOW));
        match (cancelled.expect("read"), claim.expect("read")) {
            (CancelOutcome::Cancelled, ClaimOutcome::Ended(JobStatus::Cancelled)) => {}
            (CancelOutcome::TooLate(JobStatus::Running), ClaimOutcome::Run { .. }) => {}
            outcomes => panic!("{outcomes:?}"),
        }
    }
}

#[tokio::test]
async fn text_that_is_not_a_job_id_names_no_job() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    let job = claimed(&jobs, &id, NOW).await;
    jobs.finish(&job, &succeeded("hello"), NOW).await.expect("stored");
    let other = uuid::Uuid::now_v7().to_string();
    for name in ["", "#", "jobs", &format!("{id}#request"), &format!("{id}#1"), &other] {
        assert_eq!(jobs.get(name).await, Ok(None), "{name}");
        assert_eq!(jobs.claim(name, LEASE, NOW).await, Ok(ClaimOutcome::Missing), "{name}");
        assert_eq!(jobs.cancel(name, "acme", NOW).await, Ok(CancelOutcome::Missing), "{name}");
    }
    assert!(jobs.get(&id.to_uppercase()).await.expect("read").is_some());
}

#[tokio::test]
async fn a_body_is_stored_if_it_fits_in_a_row_and_rejected_otherwise() {
    let (_dynamodb, jobs) = setup().await;
    let largest = Bytes::from(vec![b'x'; MAX_ROW_BODY_BYTES]);
    let job = jobs.submit(&NewJob { body: largest.clone(), ..new_job() }).await.expect("stored");
    let ClaimOutcome::Run { job, body } = jobs.claim(&job.id, LEASE, NOW).await.expect("read") else {
        panic!("not claimed");
    };
    assert_eq!(body, largest);
    let result = StoredResult { body: largest, ..answer("") };
    let larger = StoredResult { body: Bytes::from(vec![b'x'; MAX_ROW_BODY_BYTES + 1]), ..answer("") };
    let refused = jobs.finish(&job, &JobOutcome::Succeeded(larger.clone()), NOW).await;
    let too_large = |what| StoreError::TooLarge { what, bytes: MAX_ROW_BODY_BYTES + 1, limit: MAX_ROW_BODY_BYTES };
    assert_eq!(refused, Err(too_large("the answer")));
    assert_eq!(jobs.finish(&job, &JobOutcome::Succeeded(result.clone()), NOW).await, Ok(true));
    let ended = jobs.get(&job.id).await.expect("read").expect("a row");
    assert_eq!(jobs.result(&ended).await, Ok(Some(result)));
    let refused = jobs.submit(&NewJob { body: larger.body, ..new_job() }).await;
    assert_eq!(refused, Err(too_large("the request")));
}

#[tokio::test]
async fn a_postponed_job_counts_no_attempt_unless_a_drain_has_claimed_it() {
    let (_dynamodb, jobs) = setup().await;
    let job = submitted(&jobs).await;
    jobs.postpone(&job, &wait(), NOW + Millis::from_s(9)).await.expect("postponed");
    let queued = jobs.get(&job.id).await.expect("read").expect("a row");
    let ready_at = NOW + Millis::from_s(9);
    assert_eq!((queued.ready_at, queued.redelivery.due_at, queued.attempts), (ready_at, ready_at, 0));
    let running = claimed(&jobs, &job.id, NOW + Millis::from_s(9)).await;
    jobs.postpone(&queued, &wait(), NOW + Millis::from_s(20)).await.expect("unchanged");
    assert_eq!(jobs.get(&job.id).await.expect("read").expect("a row").ready_at, running.ready_at);
}

#[tokio::test]
async fn rows_are_kept_for_a_week_after_their_job_ends() {
    let (dynamodb, jobs) = setup().await;
    let expires_s = async |key: &str| {
        let request = dynamodb.client.get_item().table_name(&dynamodb.table).consistent_read(true);
        let found = request.key("pk", AttributeValue::S(key.into())).send().await.expect("read");
        found.item.expect("a row")["expires_s"].as_n().expect("a number").parse::<u64>().expect("whole")
    };
    const WEEK_S: u64 = 7 * 24 * 60 * 60;
    let id = submitted(&jobs).await.id;
    let expiry_s = (NOW + HOUR).as_s();
    assert_eq!(expires_s(&id).await, expiry_s + WEEK_S);
    assert_eq!(expires_s(&format!("{id}#request")).await, expiry_s + WEEK_S);
    let job = claimed(&jobs, &id, NOW).await;
    jobs.finish(&job, &succeeded("hello"), NOW + Millis::from_s(7)).await.expect("finished");
    let end_s = (NOW + Millis::from_s(7)).as_s();
    assert_eq!(expires_s(&id).await, end_s + WEEK_S);
    assert_eq!(expires_s(&format!("{id}#1")).await, end_s + WEEK_S);
}
