//! The jobs table against DynamoDB on the wire.

#[path = "support/dynamodb.rs"]
mod dynamodb;

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dynamodb::Dynamodb;
use futures_util::future::join_all;
use spillway::{
    clock::Clock,
    dialect::Dialect,
    job::{Call, Job, MAX_ATTEMPTS, NewJob, Outcome, Priority, RESEND_AFTER_MS, Status, StoredResult},
    store::{
        StoreError,
        jobs::{Cancel, Claim, Jobs, LARGEST_BODY, Redrive, Sweep},
        registry::Registry,
        tables,
    },
    webhook::EventType,
};
use spillway_stand_ins::faults::{Effect, Fault};

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
            dialect: Dialect::Anthropic,
            method: "POST".into(),
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
    let largest = Bytes::from(vec![b'x'; LARGEST_BODY]);
    let job = jobs.submit(&NewJob { body: largest.clone(), ..new_job() }).await.expect("stored");
    let Claim::Run { job, body } = jobs.claim(&job.id, LEASE_MS, NOW_MS).await.expect("read") else {
        panic!("not claimed");
    };
    assert_eq!(body, largest);
    let result = StoredResult { body: largest, ..answer("") };
    let larger = StoredResult { body: Bytes::from(vec![b'x'; LARGEST_BODY + 1]), ..answer("") };
    let refused = jobs.finish(&job, &Outcome::Succeeded(larger.clone()), NOW_MS).await;
    let too_large = |what| StoreError::TooLarge { what, bytes: LARGEST_BODY + 1, limit: LARGEST_BODY };
    assert_eq!(refused, Err(too_large("the answer")));
    assert_eq!(jobs.finish(&job, &Outcome::Succeeded(result.clone()), NOW_MS).await, Ok(true));
    let ended = jobs.get(&job.id).await.expect("read").expect("there");
    assert_eq!(jobs.result(&ended).await, Ok(Some(result)));
    let refused = jobs.submit(&NewJob { body: larger.body, ..new_job() }).await;
    assert_eq!(refused, Err(too_large("the request")));
}

#[tokio::test]
async fn the_sweep_finds_open_jobs_whose_message_is_late_and_no_others() {
    let (_dynamodb, jobs) = setup().await;
    let mut waiting = Vec::new();
    for _ in 0..12 {
        waiting.push(submitted(&jobs).await.id);
    }
    let cancelled = submitted(&jobs).await.id;
    jobs.cancel(&cancelled, "acme", NOW_MS).await.expect("cancelled");
    let deferred = claimed(&jobs, &submitted(&jobs).await.id, NOW_MS).await;
    jobs.defer(&deferred, NOW_MS + HOUR_MS / 2).await.expect("deferred");
    let running = claimed(&jobs, &submitted(&jobs).await.id, NOW_MS).await;
    let done = claimed(&jobs, &submitted(&jobs).await.id, NOW_MS).await;
    jobs.finish(&done, &succeeded("hello"), NOW_MS).await.expect("finished");

    let overdue = async |now_ms| {
        let mut ids: Vec<_> =
            jobs.overdue(1_000, now_ms).await.expect("read").into_iter().map(|open| open.id).collect();
        ids.sort_unstable();
        ids
    };
    assert!(overdue(NOW_MS + RESEND_AFTER_MS - 1).await.is_empty());
    waiting.sort_unstable();
    assert_eq!(overdue(NOW_MS + RESEND_AFTER_MS).await, waiting);
    assert_eq!(jobs.overdue(5, NOW_MS + RESEND_AFTER_MS).await.expect("read").len(), 5);
    waiting.push(running.id);
    waiting.sort_unstable();
    assert_eq!(overdue(NOW_MS + LEASE_MS + RESEND_AFTER_MS).await, waiting, "its drain may have died");
}

#[tokio::test]
async fn when_nobody_knows_whether_anybody_listens_the_end_is_kept_to_be_told() {
    let (dynamodb, jobs) = setup().await;
    let nowhere = Registry::new(dynamodb.client.clone(), "no-such-table", 0, Clock::default());
    let jobs = jobs.announced_by(nowhere);
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW_MS).await;
    jobs.finish(&job, &succeeded("hello"), NOW_MS).await.expect("finished");
    let overdue = async || jobs.overdue(10, NOW_MS + RESEND_AFTER_MS).await.expect("read").len();
    assert_eq!(overdue().await, 1);
    let Ok(Sweep::Tell(ended)) = jobs.sweep(&job.id, NOW_MS + RESEND_AFTER_MS).await else { panic!("nothing to tell") };
    assert_eq!((ended.status, ended.announce), (Status::Succeeded, Some(EventType::JobSucceeded)));
    jobs.announced(&ended).await.expect("noted");
    assert_eq!(jobs.overdue(10, u64::MAX / 2).await.expect("read").len(), 0);
    assert_eq!(jobs.result(&ended).await, Ok(Some(answer("hello"))));
}

#[tokio::test]
async fn of_two_sweeps_at_once_one_sends_the_message() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    assert_eq!(jobs.sweep(&id, NOW_MS).await, Ok(Sweep::Nothing), "its message is not late");
    let late_ms = NOW_MS + RESEND_AFTER_MS;
    let taken = join_all((0..10).map(|_| jobs.sweep(&id, late_ms))).await;
    let resend = |swept| if let Sweep::Resend(job) = swept { Some(job) } else { None };
    let taken: Vec<Job> = taken.into_iter().filter_map(|taken| resend(taken.expect("read"))).collect();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].tenant.as_str(), taken[0].resends), ("acme", 1));
    assert!(jobs.overdue(10, late_ms).await.expect("read").is_empty());
    claimed(&jobs, &id, late_ms).await;
}

#[tokio::test]
async fn a_sweep_does_not_take_the_job_from_its_drain() {
    let (_dynamodb, jobs) = setup().await;
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW_MS).await;
    let late_ms = NOW_MS + LEASE_MS + RESEND_AFTER_MS;
    assert!(matches!(jobs.sweep(&job.id, late_ms).await, Ok(Sweep::Resend(_))));
    assert_eq!(jobs.finish(&job, &succeeded("hello"), late_ms).await, Ok(true));
}

#[tokio::test]
async fn a_sweep_ends_what_nobody_can_end_any_more() {
    let (_dynamodb, jobs) = setup().await;
    let waiting = submitted(&jobs).await.id;
    let expired_ms = NOW_MS + HOUR_MS + 1;
    assert!(matches!(jobs.sweep(&waiting, expired_ms).await, Ok(Sweep::Ended(job)) if job.status == Status::Expired));

    let lost = submitted(&jobs).await.id;
    for attempt in 0..u64::from(MAX_ATTEMPTS) {
        claimed(&jobs, &lost, NOW_MS + attempt * LEASE_MS).await;
    }
    let late_ms = NOW_MS + 3 * LEASE_MS + RESEND_AFTER_MS;
    assert!(matches!(jobs.sweep(&lost, late_ms).await, Ok(Sweep::Ended(job)) if job.status == Status::Failed));
    assert!(jobs.overdue(10, expired_ms).await.expect("read").is_empty());
    assert_eq!(jobs.sweep(&lost, expired_ms).await, Ok(Sweep::Nothing));
}

#[tokio::test]
async fn a_failed_job_can_be_queued_again_and_its_former_drains_are_not_heard() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    let failed = Outcome::Failed { error: "why".into(), result: answer("no") };
    let mut former = claimed(&jobs, &id, NOW_MS).await;
    for attempt in 1..u64::from(MAX_ATTEMPTS) {
        jobs.retry(&former, NOW_MS).await.expect("queued");
        former = claimed(&jobs, &id, NOW_MS + attempt).await;
    }
    assert_eq!(jobs.redrive(&id, NOW_MS).await, Ok(Redrive::Not(Status::Running)));
    jobs.finish(&former, &failed, NOW_MS).await.expect("failed");

    let day_ms = 24 * HOUR_MS;
    let again = jobs.redrive(&id, NOW_MS + day_ms).await;
    let Ok(Redrive::Queued(queued)) = again else { panic!("{again:?}") };
    assert_eq!((queued.status, queued.attempts, queued.fence), (Status::Queued, 0, former.fence));
    assert_eq!((queued.error, queued.answered_at_fence), (None, None));
    assert_eq!(queued.expires_ms, NOW_MS + day_ms + HOUR_MS, "it has its time again");
    assert_eq!(jobs.finish(&former, &succeeded("late"), NOW_MS).await, Ok(false));
    let running = claimed(&jobs, &id, NOW_MS + day_ms).await;
    assert_eq!(jobs.finish(&running, &succeeded("hello"), NOW_MS + day_ms).await, Ok(true));
    let done = jobs.get(&id).await.expect("read").expect("there");
    assert_eq!(jobs.result(&done).await.expect("read").expect("an answer").body, "hello");
    assert_eq!(jobs.redrive("018f0000-0000-7000-8000-000000000000", NOW_MS).await, Ok(Redrive::Missing));
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

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_made_once() {
    let (dynamodb, jobs) = setup().await;
    let Some(faults) = &dynamodb.faults else { return };
    // So few that no job loses all its attempts: the SDK gives up after three, and a claim without an answer is one.
    faults.inject(Fault { probability: 0.3, ..Fault::on("PutItem", Effect::CutAfter) });
    for _ in 0..20 {
        let job = again(async || jobs.submit(&new_job()).await).await;
        let running = claimed_in_the_end(&jobs, &job.id).await;
        assert!(again(async || jobs.finish(&running, &succeeded("hello"), NOW_MS).await).await);
        assert_eq!(status(&jobs, &job.id).await, Status::Succeeded);
    }
    assert!(faults.stats().failed_conditions > 5, "{:?}", faults.stats());
}

/// A claim that got no answer holds the job until its lease ends: it is claimed again then.
async fn claimed_in_the_end(jobs: &Jobs, id: &str) -> Job {
    let mut now_ms = NOW_MS;
    loop {
        match again(async || jobs.claim(id, LEASE_MS, now_ms).await).await {
            Claim::Run { job, .. } => return *job,
            Claim::NotYet { until_ms } => now_ms = until_ms,
            other => panic!("{other:?}"),
        }
    }
}

async fn again<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    for _ in 0..50 {
        match call().await {
            Ok(done) => return done,
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("unavailable 50 times in a row")
}

#[tokio::test]
async fn no_job_is_lost_or_answered_twice_while_the_store_fails_and_drains_race() {
    let (dynamodb, jobs) = setup().await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(submitted(&jobs).await.id);
    }
    if let Some(faults) = &dynamodb.faults {
        for effect in [Effect::CutAfter, Effect::Error500, Effect::Throttle] {
            faults.inject(Fault { operation: None, probability: 0.15, ..Fault::on("", effect) });
        }
    }
    let drains = (0..4).map(|drain| drain_all(&jobs, &ids, drain));
    let mut finished: HashMap<String, Vec<String>> = HashMap::new();
    for drain in join_all(drains).await {
        for (id, text) in drain {
            finished.entry(id).or_default().push(text);
        }
    }
    if let Some(faults) = &dynamodb.faults {
        faults.clear();
    }
    let mut succeeded = 0;
    for id in &ids {
        let ended = jobs.get(id).await.expect("read").expect("there");
        match ended.status {
            Status::Succeeded => {
                let stored = jobs.result(&ended).await.expect("read").expect("an answer");
                let told = &finished[id];
                assert_eq!(told, &[String::from_utf8_lossy(&stored.body)], "told to have finished, and stored");
                succeeded += 1;
            }
            // Three claims in a row whose answer was lost.
            Status::Failed => assert_eq!(ended.attempts, MAX_ATTEMPTS),
            status => panic!("{status:?}"),
        }
    }
    assert!(succeeded > ids.len() / 2, "{succeeded} succeeded");
}

/// Works until every job has ended; gives the answers that it was told it has stored.
async fn drain_all(jobs: &Jobs, ids: &[String], drain: usize) -> Vec<(String, String)> {
    let mut told = Vec::new();
    for round in 0..40 {
        // The leases of one round are over in the next.
        let now_ms = NOW_MS + round * LEASE_MS;
        let mut open = 0;
        for id in ids {
            let claim = again(async || jobs.claim(id, LEASE_MS, now_ms).await).await;
            match claim {
                Claim::Run { job, .. } if (job.fence + round) % 3 == 0 => {
                    again(async || jobs.defer(&job, now_ms + 1_000).await).await;
                    open += 1;
                }
                Claim::Run { job, .. } => {
                    let text = format!("{id} by {drain} at {}", job.fence);
                    if again(async || jobs.finish(&job, &succeeded(&text), now_ms).await).await {
                        told.push((id.clone(), text));
                    }
                }
                Claim::NotYet { .. } => open += 1,
                Claim::Ended(_) => {}
                Claim::Missing => panic!("{id} is gone"),
            }
        }
        if open == 0 {
            break;
        }
    }
    told
}
