//! The pools that may take a request, and the permits of jobs to call them.

use super::obstacles::passed_over;
use crate::{
    app::App,
    broker::{ModelRequest, problems},
    concurrency::{Permit, TryAcquireError},
    outage::{Outage, OutageCause},
    pool::Pool,
    problem::{Problem, SkippedPool, SkippedPools},
    units::Millis,
};

/// Reason of a pool that has no concurrency permit for a job.
pub(super) const NO_PERMIT: &str = "concurrency";

/// Waits for a concurrency permit of a pool, if `request` is a job that can wait.
///
/// # Errors
/// Returns an error if no pool has a permit in time.
pub async fn wait_for_permit(app: &App, request: &ModelRequest) -> Result<Option<Permit>, Problem> {
    let Some(deadline) = request.permit_deadline else { return Ok(None) };
    let model = &request.model;
    loop {
        let rungs = rungs(request)?;
        let outages: Vec<_> = rungs.iter().map(|pool| app.health.outage(model, pool)).collect();
        let first_ends = outages.iter().flatten().map(|outage| outage.until).min();
        let reasons = || rungs.iter().zip(&outages).map(|(pool, outage)| wait_reason(pool, *outage)).collect();
        let pools: Vec<_> =
            rungs.iter().zip(&outages).filter_map(|(pool, outage)| outage.is_none().then_some(*pool)).collect();
        let Some(first_ends) = first_ends.filter(|_| pools.is_empty()) else {
            return match app.concurrency.acquire(model, &pools, deadline).await {
                Ok(permit) => Ok(Some(permit)),
                Err(retry_after) => Err(skipping_all(problems::pools_full(&model.name, retry_after), reasons())),
            };
        };
        if first_ends > deadline {
            let wait = first_ends - app.clock.now();
            // A quota that is used up is a lack of room and no failure, as on the ladder.
            let is_full = outages.iter().flatten().any(|outage| outage.cause == OutageCause::DailyQuota);
            let problem = if is_full { problems::pools_full } else { problems::pools_out };
            return Err(skipping_all(problem(&model.name, wait), reasons()));
        }
        app.clock.sleep_until(first_ends).await;
    }
}

/// Why a job waits for `pool`: for the end of its outage, or for a permit.
fn wait_reason(pool: &Pool, outage: Option<Outage>) -> SkippedPool {
    passed_over(pool, outage.map_or(NO_PERMIT, |outage| outage.cause.name()))
}

/// The problem of a request that all pools kept out before the ladder was tried.
fn skipping_all(problem: Problem, pools: Vec<SkippedPool>) -> Problem {
    Problem { skipped: Some(Box::new(SkippedPools { pools, is_whole_ladder: true })), ..problem }
}

/// Returns the permit to call `pool`: `acquired` if it is for this pool, or else a free permit. A
/// request whose caller waits needs none.
///
/// # Errors
/// Returns the time after which the pool may be called.
pub(super) fn permit_for(
    app: &App,
    request: &ModelRequest,
    pool: &Pool,
    acquired: &mut Option<Permit>,
) -> Result<Option<Permit>, Millis> {
    if request.permit_deadline.is_none() {
        return Ok(None);
    }
    if acquired.as_ref().is_some_and(|permit| permit.is_for(&request.model, pool)) {
        return Ok(acquired.take());
    }
    app.concurrency.try_acquire(&request.model, pool).map(Some).map_err(|error| {
        let (TryAcquireError::CoolingDown { until } | TryAcquireError::NoPermits { until }) = error;
        until - app.clock.now()
    })
}

/// Returns the pools that may take the request, in the order in which they are tried.
pub(super) fn rungs(request: &ModelRequest) -> Result<Vec<&Pool>, Problem> {
    let model = &request.model;
    let rungs = if request.permit_deadline.is_some() { model.rungs_by_price() } else { model.rungs().collect() };
    let Some(tier) = &request.chat.service_tier else { return Ok(rungs) };
    let has_tier = |pool: &&Pool| pool.service_tier.as_ref().is_some_and(|pool_tier| pool_tier.as_str() == tier);
    let pools: Vec<_> = rungs.into_iter().filter(has_tier).collect();
    if pools.is_empty() {
        let message = format!("Model {} has no pool of the service tier {tier}. Leave service_tier out.", model.name);
        return Err(Problem::invalid("service_tier", message));
    }
    Ok(pools)
}
