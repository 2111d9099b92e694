//! Parked jobs: jobs without a message, which the turns of their tenant find in the index.

use spillway::{
    job::{Backlog, Job, JobStatus, NewJob, Priority, RESEND_AFTER},
    store::{
        backlogs::{Backlogs, tenant_of},
        jobs::{Jobs, SweepOutcome},
    },
    units::Millis,
};

use crate::{HOUR, NOW, claimed, new_job, setup, submitted, wait};

async fn parked(jobs: &Jobs, priority: Priority, after_ms: u64) -> Job {
    let created_at = NOW + Millis::from_ms(after_ms);
    jobs.submit(&NewJob { is_parked: true, priority, created_at, ..new_job() }).await.expect("stored")
}

#[tokio::test]
async fn parked_jobs_are_found_in_order_and_apart_from_jobs_with_messages() {
    let (_dynamodb, jobs) = setup().await;
    let low = parked(&jobs, Priority::Low, 1).await;
    let high = parked(&jobs, Priority::High, 3).await;
    let with_message = submitted(&jobs).await;
    let ids = |waiting: Vec<spillway::job::WaitingJob>| waiting.into_iter().map(|job| job.id).collect::<Vec<_>>();
    let (first, with_messages) = jobs.waiting("acme", 10).await.expect("read");
    assert_eq!(
        (ids(first), ids(with_messages)),
        (vec![high.id.clone(), low.id.clone()], vec![with_message.id.clone()])
    );
    assert_eq!(jobs.count_before(&low).await, Ok(2), "both kinds have places");
    assert_eq!(ids(jobs.before(&with_message, 10).await.expect("read")), [high.id]);

    let running = claimed(&jobs, &low.id, NOW).await;
    assert!(!running.is_parked);
    assert_eq!(jobs.park(&running, &wait(), NOW + Millis::from_s(9), NOW).await, Ok(true));
    let again = jobs.get(&low.id).await.expect("read").expect("a row");
    assert_eq!((again.status, again.is_parked, again.attempts, again.deferrals), (JobStatus::Queued, true, 0, 1));
    assert_eq!(jobs.waiting("acme", 10).await.expect("read").0[1].ready_at, NOW + Millis::from_s(9));
}

#[tokio::test]
async fn the_sweep_leaves_a_parked_job_alone_until_it_expires() {
    let (_dynamodb, jobs) = setup().await;
    let job = parked(&jobs, Priority::Normal, 0).await;
    let overdue = async |now| jobs.overdue(10, now).await.expect("read").len();
    assert_eq!(overdue(job.expires_at - Millis::from_ms(1)).await, 0);
    assert_eq!(overdue(job.expires_at).await, 1);
    let swept = jobs.sweep(&job.id, job.expires_at).await;
    assert!(matches!(swept, Ok(SweepOutcome::Ended(job)) if job.status == JobStatus::Expired));
    let long = NewJob { is_parked: true, expires_at: NOW + HOUR * 48, ..new_job() };
    let long = jobs.submit(&long).await.expect("stored");
    let swept = jobs.sweep(&long.id, NOW + HOUR * 6).await;
    assert!(
        matches!(swept, Ok(SweepOutcome::Resend(job)) if job.is_parked),
        "the caller makes sure that it has a turn"
    );
    assert_eq!(overdue(NOW + HOUR * 11).await, 0);
}

#[tokio::test]
async fn only_the_first_of_many_parked_jobs_plans_a_turn() {
    let (dynamodb, jobs) = setup().await;
    let backlogs = Backlogs::new(dynamodb.client.clone(), &dynamodb.table);
    let note = async |after_s| {
        let now = NOW + Millis::from_s(after_s);
        backlogs.note_parked("acme", now, now).await.expect("written")
    };
    let first = note(0).await.expect("a turn");
    assert_eq!((first.turn, note(0).await, note(10).await, note(25).await), (1, None, None, None));
    let overdue = async |now| jobs.overdue(10, now).await.expect("read");
    let late = first.turn_at + RESEND_AFTER;
    assert!(overdue(late - Millis::from_ms(1)).await.is_empty());
    let found = overdue(late).await.remove(0);
    assert_eq!(tenant_of(&found.id), Some("acme"));
    let resent: Option<Backlog> = backlogs.take_for_resend("acme", late).await.expect("written");
    assert_eq!(resent.map(|backlog| backlog.turn), Some(1));
    assert_eq!(backlogs.take_for_resend("acme", late).await, Ok(None));
}
