//! A store whose responses get lost.

use std::collections::HashMap;

use futures_util::future::join_all;
use spillway::{
    job::{Job, JobStatus, MAX_ATTEMPTS},
    store::{
        StoreError,
        jobs::{ClaimOutcome, Jobs},
    },
    units::Millis,
};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::{LEASE, NOW, new_job, setup, status, submitted, succeeded, wait};

#[tokio::test]
async fn a_write_whose_response_was_lost_is_made_once() {
    let (dynamodb, jobs) = setup().await;
    let Some(faults) = &dynamodb.faults else { return };
    // A low probability, so that no job loses all its attempts. The SDK gives up after three tries,
    // and a claim without a response is an attempt.
    faults.inject(Fault { probability: 0.3, ..Fault::on("PutItem", Effect::CutAfter) });
    for _ in 0..20 {
        let job = retrying(async || jobs.submit(&new_job()).await).await;
        let running = claimed_eventually(&jobs, &job.id).await;
        assert!(retrying(async || jobs.finish(&running, &succeeded("hello"), NOW).await).await);
        assert_eq!(status(&jobs, &job.id).await, JobStatus::Succeeded);
    }
    assert!(faults.stats().failed_conditions > 5, "{:?}", faults.stats());
}

/// A claim without a response holds the job until its lease ends. Then the job can be claimed
/// again.
async fn claimed_eventually(jobs: &Jobs, id: &str) -> Job {
    let mut now = NOW;
    loop {
        match retrying(async || jobs.claim(id, LEASE, now).await).await {
            ClaimOutcome::Run { job, .. } => return *job,
            ClaimOutcome::NotYet { until } => now = until,
            outcome => panic!("{outcome:?}"),
        }
    }
}

async fn retrying<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
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
async fn no_job_is_lost_or_answered_twice_while_the_store_fails_and_drains_compete() {
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
        let ended = jobs.get(id).await.expect("read").expect("a row");
        match ended.status {
            JobStatus::Succeeded => {
                let stored = jobs.result(&ended).await.expect("read").expect("an answer");
                let reported = &finished[id];
                assert_eq!(reported, &[String::from_utf8_lossy(&stored.body)], "reported as finished, and stored");
                succeeded += 1;
            }
            // The responses to three consecutive claims were lost.
            JobStatus::Failed => assert_eq!(ended.attempts, MAX_ATTEMPTS),
            status => panic!("{status:?}"),
        }
    }
    assert!(succeeded > ids.len() / 2, "{succeeded} succeeded");
}

/// Runs jobs until all have ended. Returns the answers that the store reported as stored.
async fn drain_all(jobs: &Jobs, ids: &[String], drain: usize) -> Vec<(String, String)> {
    let mut stored = Vec::new();
    for round in 0..40 {
        // The leases of a round end before the next round.
        let now = NOW + LEASE * round;
        let mut open = 0;
        for id in ids {
            let claim = retrying(async || jobs.claim(id, LEASE, now).await).await;
            match claim {
                ClaimOutcome::Run { job, .. } if (job.fence + round) % 3 == 0 => {
                    retrying(async || jobs.defer(&job, &wait(), now + Millis::from_s(1)).await).await;
                    open += 1;
                }
                ClaimOutcome::Run { job, .. } => {
                    let text = format!("{id} by {drain} at {}", job.fence);
                    if retrying(async || jobs.finish(&job, &succeeded(&text), now).await).await {
                        stored.push((id.clone(), text));
                    }
                }
                ClaimOutcome::NotYet { .. } => open += 1,
                ClaimOutcome::Ended(_) => {}
                ClaimOutcome::Missing => panic!("{id} is gone"),
            }
        }
        if open == 0 {
            break;
        }
    }
    stored
}
