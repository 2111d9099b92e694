//! One drill: a time in which all is well, an outage, and the return of the region.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    Phases,
    account::{Account, BilledTwice},
    callers::{Callers, Ended, Outcome},
    deployment::{BROKERS, Deployment},
    fault::Fault,
    jobs::{Jobs, JobsEnded},
};

/// Longest wait for the use of a pool that works again.
const MAX_RECOVERY: Duration = Duration::from_secs(60);

/// Figures of a drill.
#[derive(Debug)]
pub struct Figures {
    /// Requests that ended, in all phases.
    pub requests: usize,
    /// Requests that were in progress when the outage began, and failed.
    pub failed_in_progress: usize,
    /// Requests that began during the outage, and failed: the most of one broker at one pool.
    pub failed: usize,
    /// Requests without a response, and jobs that did not end.
    pub lost: usize,
    pub jobs: JobsEnded,
    pub billed_twice: BilledTwice,
    /// Time until the last broker noticed the outage; `None` if one did not.
    pub noticed: Option<Duration>,
    /// 95th percentile of the answers before the outage, and after a broker has noticed it.
    pub healthy_p95: Duration,
    pub outage_p95: Duration,
    /// Time from the end of the outage until each broker used the pool again; `None` if one did
    /// not.
    pub recovered: Option<Duration>,
}

/// Runs a drill.
///
/// # Errors
/// Returns an error if a process does not answer.
pub async fn run(deployment: &Deployment, fault: Fault, phases: Phases, callers: u64) -> anyhow::Result<Figures> {
    let running = Callers::start(deployment, callers)?;
    // As many jobs as during the outage, so that both phases have the same load.
    let before = Jobs::submit(deployment).await?;
    tokio::time::sleep(phases.healthy).await;
    let began = Instant::now();
    fault.begin(deployment).await?;
    let jobs = Jobs::submit(deployment).await?;
    tokio::time::sleep(phases.outage.saturating_sub(began.elapsed())).await;
    let ended = Instant::now();
    Fault::end(deployment).await?;
    while ended.elapsed() < MAX_RECOVERY && recovery(&running.ended(), ended).is_none() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let requests = running.stop().await;
    let jobs = before.settle().await?.plus(jobs.settle().await?);
    let account = Account::read(deployment).await?;
    let noticed_at: Vec<_> = deployment.brokers.iter().map(|broker| broker.first_outage(began)).collect();
    Ok(evaluate(&requests, (began, ended), &noticed_at, jobs, &account))
}

fn evaluate(
    requests: &[Ended],
    (began, ended): (Instant, Instant),
    noticed_at: &[Option<Instant>],
    jobs: JobsEnded,
    account: &Account,
) -> Figures {
    let is_failed = |request: &&Ended| matches!(request.outcome, Outcome::Failed { .. });
    let mut failed = BTreeMap::<_, usize>::new();
    let models = account.models();
    for request in requests.iter().filter(|request| request.began >= began).filter(is_failed) {
        let model = request.request_id.as_deref().and_then(|id| models.get(id));
        *failed.entry((request.broker, model)).or_default() += 1;
    }
    let in_progress = requests.iter().filter(|request| request.began < began && request.ended >= began);
    let healthy = requests.iter().filter(|request| request.ended < began);
    let after = requests.iter().filter(|request| {
        let noticed = noticed_at.get(request.broker).copied().flatten().unwrap_or(began);
        request.began >= noticed && request.ended < ended
    });
    let ids = requests.iter().filter_map(|request| request.request_id.as_deref()).collect();
    let lost = requests.iter().filter(|request| request.outcome == Outcome::Lost).count();
    Figures {
        requests: requests.len(),
        failed_in_progress: in_progress.filter(is_failed).count(),
        failed: failed.into_values().max().unwrap_or_default(),
        lost: lost + jobs.open,
        jobs,
        billed_twice: account.billed_twice(&ids),
        noticed: noticed_at.iter().copied().collect::<Option<Vec<_>>>().and_then(|at| {
            let last = at.into_iter().max()?;
            Some(last - began)
        }),
        healthy_p95: p95(healthy),
        outage_p95: p95(after),
        recovered: recovery(requests, ended),
    }
}

/// Returns the time from `ended` until the first pool has answered a request of each broker that
/// began after `ended`.
fn recovery(requests: &[Ended], ended: Instant) -> Option<Duration> {
    let first = |broker: usize| {
        let used = requests.iter().filter(|request| request.broker == broker && request.began >= ended);
        used.filter(|request| request.is_from("near-provisioned")).map(|request| request.began - ended).min()
    };
    (0..BROKERS).map(first).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// Returns the 95th percentile of the durations of answers.
fn p95<'a>(requests: impl Iterator<Item = &'a Ended>) -> Duration {
    let mut durations: Vec<_> = requests.filter(|request| request.is_answered()).map(Ended::duration).collect();
    durations.sort_unstable();
    durations.get(durations.len() * 95 / 100).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_drill_are_those_of_its_phases() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let request = |broker, began, ended, outcome: &Outcome| Ended {
            broker,
            began: at(began),
            ended: at(ended),
            request_id: Some(began.to_string()),
            outcome: outcome.clone(),
        };
        let near = Outcome::Answered { pool: "near-provisioned".to_owned() };
        let far = Outcome::Answered { pool: "far".to_owned() };
        let failed = Outcome::Failed { status: 504 };
        let requests = [
            request(0, 0, 90, &near),
            request(1, 0, 100, &near),
            request(0, 900, 1_100, &failed),
            request(0, 1_010, 1_050, &failed),
            request(1, 1_010, 1_020, &failed),
            request(1, 1_030, 1_040, &failed),
            request(1, 1_031, 1_041, &failed),
            request(1, 1_100, 1_210, &far),
            request(0, 1_200, 1_290, &Outcome::Lost),
            request(0, 2_010, 2_100, &far),
            request(0, 2_300, 2_390, &near),
            request(1, 2_500, 2_600, &near),
        ];
        let noticed = [Some(at(1_050)), Some(at(1_040))];
        let jobs = JobsEnded { succeeded: 5, failed: 0, open: 1 };
        let account = Account::of(&[("1010", "a"), ("1030", "a"), ("1031", "b"), ("1100", "a"), ("1100", "b")]);
        let figures = evaluate(&requests, (at(1_000), at(2_000)), &noticed, jobs, &account);
        assert_eq!((figures.requests, figures.failed_in_progress, figures.failed, figures.lost), (12, 1, 2, 2));
        assert_eq!(figures.billed_twice, BilledTwice { calls: 1, jobs: 0 });
        assert_eq!(figures.noticed, Some(Duration::from_millis(50)));
        assert_eq!((figures.healthy_p95, figures.outage_p95), (Duration::from_millis(100), Duration::from_millis(110)));
        assert_eq!(figures.recovered, Some(Duration::from_millis(500)));
        assert_eq!(recovery(&requests[..11], at(2_000)), None, "one broker has not used it");
    }
}
