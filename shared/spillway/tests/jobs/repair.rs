//! What the sweep and the operator bring back.

use futures_util::future::join_all;
use spillway::{
    clock::Clock,
    job::{Job, MAX_ATTEMPTS, Outcome, RESEND_AFTER_MS, Status},
    store::{
        jobs::{Redrive, Sweep},
        registry::Registry,
    },
    tenant::EventType,
};

use crate::{HOUR_MS, LEASE_MS, NOW_MS, answer, claimed, setup, submitted, succeeded};

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
