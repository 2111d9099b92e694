//! Repairs by the sweep and by the operator.

use futures_util::future::join_all;
use spillway::{
    clock::Clock,
    job::{Job, JobOutcome, JobStatus, MAX_ATTEMPTS, RESEND_AFTER},
    store::{
        jobs::{RedriveOutcome, SweepOutcome},
        registry::Registry,
    },
    tenant::EventType,
    units::{Millis, UnixMs},
};

use crate::{HOUR, LEASE, NOW, answer, claimed, setup, submitted, succeeded, wait};

#[tokio::test]
async fn the_sweep_finds_open_jobs_whose_message_is_late_and_no_others() {
    let (_dynamodb, jobs) = setup().await;
    let mut waiting = Vec::new();
    for _ in 0..12 {
        waiting.push(submitted(&jobs).await.id);
    }
    let cancelled = submitted(&jobs).await.id;
    jobs.cancel(&cancelled, "acme", NOW).await.expect("cancelled");
    let deferred = claimed(&jobs, &submitted(&jobs).await.id, NOW).await;
    jobs.defer(&deferred, &wait(), NOW + HOUR / 2).await.expect("deferred");
    let running = claimed(&jobs, &submitted(&jobs).await.id, NOW).await;
    let done = claimed(&jobs, &submitted(&jobs).await.id, NOW).await;
    jobs.finish(&done, &succeeded("hello"), NOW).await.expect("finished");

    let overdue = async |now: UnixMs| {
        let mut ids: Vec<_> = jobs.overdue(1_000, now).await.expect("read").into_iter().map(|open| open.id).collect();
        ids.sort_unstable();
        ids
    };
    assert!(overdue(NOW + RESEND_AFTER - Millis::from_ms(1)).await.is_empty());
    waiting.sort_unstable();
    assert_eq!(overdue(NOW + RESEND_AFTER).await, waiting);
    assert_eq!(jobs.overdue(5, NOW + RESEND_AFTER).await.expect("read").len(), 5);
    waiting.push(running.id);
    waiting.sort_unstable();
    assert_eq!(overdue(NOW + LEASE + RESEND_AFTER).await, waiting, "its drain may have died");
}

#[tokio::test]
async fn without_a_registry_the_end_of_a_job_is_kept_to_be_reported() {
    let (dynamodb, jobs) = setup().await;
    let registry = Registry::new(dynamodb.client.clone(), "no-such-table", Millis::ZERO, Clock::default());
    let jobs = jobs.with_webhooks(registry);
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW).await;
    jobs.finish(&job, &succeeded("hello"), NOW).await.expect("finished");
    let overdue = async || jobs.overdue(10, NOW + RESEND_AFTER).await.expect("read").len();
    assert_eq!(overdue().await, 1);
    let Ok(SweepOutcome::Report(ended)) = jobs.sweep(&job.id, NOW + RESEND_AFTER).await else { panic!("no report") };
    assert_eq!((ended.status, ended.pending_event), (JobStatus::Succeeded, Some(EventType::JobSucceeded)));
    jobs.clear_pending_event(&ended).await.expect("noted");
    assert_eq!(jobs.overdue(10, UnixMs::from_ms(u64::MAX / 2)).await.expect("read").len(), 0);
    assert_eq!(jobs.result(&ended).await, Ok(Some(answer("hello"))));
}

#[tokio::test]
async fn one_of_many_concurrent_sweeps_sends_the_message() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    assert_eq!(jobs.sweep(&id, NOW).await, Ok(SweepOutcome::Nothing), "its message is not late");
    let late = NOW + RESEND_AFTER;
    let taken = join_all((0..10).map(|_| jobs.sweep(&id, late))).await;
    let resend = |outcome| if let SweepOutcome::Resend(job) = outcome { Some(job) } else { None };
    let taken: Vec<Job> = taken.into_iter().filter_map(|taken| resend(taken.expect("read"))).collect();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].tenant.as_str(), taken[0].redelivery.resends), ("acme", 1));
    assert!(jobs.overdue(10, late).await.expect("read").is_empty());
    claimed(&jobs, &id, late).await;
}

#[tokio::test]
async fn a_sweep_does_not_take_the_job_from_its_drain() {
    let (_dynamodb, jobs) = setup().await;
    let job = claimed(&jobs, &submitted(&jobs).await.id, NOW).await;
    let late = NOW + LEASE + RESEND_AFTER;
    assert!(matches!(jobs.sweep(&job.id, late).await, Ok(SweepOutcome::Resend(_))));
    assert_eq!(jobs.finish(&job, &succeeded("hello"), late).await, Ok(true));
}

#[tokio::test]
async fn a_sweep_ends_jobs_that_no_drain_can_end() {
    let (_dynamodb, jobs) = setup().await;
    let waiting = submitted(&jobs).await.id;
    let expired = NOW + HOUR + Millis::from_ms(1);
    assert!(
        matches!(jobs.sweep(&waiting, expired).await, Ok(SweepOutcome::Ended(job)) if job.status == JobStatus::Expired)
    );

    let lost = submitted(&jobs).await.id;
    for attempt in 0..u64::from(MAX_ATTEMPTS) {
        claimed(&jobs, &lost, NOW + LEASE * attempt).await;
    }
    let late = NOW + LEASE * 3 + RESEND_AFTER;
    assert!(matches!(jobs.sweep(&lost, late).await, Ok(SweepOutcome::Ended(job)) if job.status == JobStatus::Failed));
    assert!(jobs.overdue(10, expired).await.expect("read").is_empty());
    assert_eq!(jobs.sweep(&lost, expired).await, Ok(SweepOutcome::Nothing));
}

#[tokio::test]
async fn a_failed_job_can_be_queued_again_without_its_former_drains() {
    let (_dynamodb, jobs) = setup().await;
    let id = submitted(&jobs).await.id;
    let failed = JobOutcome::Failed { error: "why".into(), result: answer("no") };
    let mut former = claimed(&jobs, &id, NOW).await;
    for attempt in 1..u64::from(MAX_ATTEMPTS) {
        jobs.retry(&former, NOW).await.expect("queued");
        former = claimed(&jobs, &id, NOW + Millis::from_ms(attempt)).await;
    }
    assert_eq!(jobs.redrive(&id, NOW).await, Ok(RedriveOutcome::NotFailed(JobStatus::Running)));
    jobs.finish(&former, &failed, NOW).await.expect("failed");

    let day = HOUR * 24;
    let again = jobs.redrive(&id, NOW + day).await;
    let Ok(RedriveOutcome::Queued(queued)) = again else { panic!("{again:?}") };
    assert_eq!((queued.status, queued.attempts, queued.fence), (JobStatus::Queued, 0, former.fence));
    assert_eq!((queued.error, queued.result_fence), (None, None));
    assert_eq!(queued.expires_at, NOW + day + HOUR, "it has its original lifetime");
    assert_eq!(jobs.finish(&former, &succeeded("late"), NOW).await, Ok(false));
    let running = claimed(&jobs, &id, NOW + day).await;
    assert_eq!(jobs.finish(&running, &succeeded("hello"), NOW + day).await, Ok(true));
    let done = jobs.get(&id).await.expect("read").expect("a row");
    assert_eq!(jobs.result(&done).await.expect("read").expect("an answer").body, "hello");
    assert_eq!(jobs.redrive("018f0000-0000-7000-8000-000000000000", NOW).await, Ok(RedriveOutcome::Missing));
}
