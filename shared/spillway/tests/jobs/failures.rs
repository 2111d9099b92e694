//! A store whose answers get lost.

use std::collections::HashMap;

use futures_util::future::join_all;
use spillway::{
    job::{Job, MAX_ATTEMPTS, Status},
    store::{
        StoreError,
        jobs::{Claim, Jobs},
    },
};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::{LEASE_MS, NOW_MS, new_job, setup, status, submitted, succeeded};

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
