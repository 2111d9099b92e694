//! The pools that may take a request, and the permits of jobs to call them.

use crate::{
    app::App,
    broker::{ModelRequest, problems},
    chat::{Format, Input},
    concurrency::{Permit, TryAcquireError},
    outage::{Outage, OutageCause},
    pool::{Pool, PoolKind, share_equal_rungs},
    problem::{Kind, Problem, SkippedPool, SkippedPools},
    stable_hash::stable_hash,
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
        let rungs = rungs(app, request)?;
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
    SkippedPool::passed_over(&pool.name, outage.map_or(NO_PERMIT, |outage| outage.cause.name()))
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

/// Returns the pools that may take the request, in the order in which they are tried. Equal pools
/// are ordered by the conversation and by their health. The pool that has the conversation in its
/// prompt cache is the first on-demand pool, unless the cheapest is. Pools that throttle one call
/// after the other are the last.
pub(super) fn rungs<'r>(app: &App, request: &'r ModelRequest) -> Result<Vec<&'r Pool>, Problem> {
    let model = &request.model;
    let is_cheapest_first = request.permit_deadline.is_some();
    let mut rungs = if is_cheapest_first { model.rungs_by_price() } else { model.rungs().collect() };
    if let Some(tier) = &request.chat.service_tier {
        let has_tier = |pool: &Pool| pool.service_tier.as_ref().is_some_and(|pool_tier| pool_tier.as_str() == tier);
        rungs.retain(|pool| has_tier(pool));
        if rungs.is_empty() {
            let message =
                format!("Model {} has no pool of the service tier {tier}. Leave service_tier out.", model.name);
            return Err(Problem::invalid("service_tier", message));
        }
    }
    rungs.retain(|pool| takes_body(request, pool));
    if rungs.is_empty() {
        let message = format!("Model {} has no pool for bodies of this format. Use Converse.", model.name);
        return Err(Problem::new(Kind::Invalid, message));
    }
    if model.depends_on_conversation() {
        let key = request.conversation.unwrap_or_else(|| stable_hash(0, request.request_id.as_bytes()));
        share_equal_rungs(&mut rungs, key, is_cheapest_first, |pool| app.health.weight(model, pool));
        if !is_cheapest_first {
            put_cached_first(app, request, &mut rungs);
        }
    }
    rungs.sort_by_cached_key(|pool| app.health.is_throttling(model, pool));
    Ok(rungs)
}

/// Whether `pool` takes the body of the request. A substitute takes a body in a model's own format
/// only if it has the same format.
pub(super) fn takes_body(request: &ModelRequest, pool: &Pool) -> bool {
    match &request.chat.input {
        Input::Native(native) if pool.substitute => {
            native.format.is_some() && native.format == Format::for_model_id(&pool.model_id)
        }
        Input::Native(_) | Input::Converse(_) => true,
    }
}

/// Moves the pool that has the conversation of the request in its prompt cache before the other
/// on-demand pools. Capacity that is paid for in advance stays first.
fn put_cached_first(app: &App, request: &ModelRequest, rungs: &mut [&Pool]) {
    let cached = request.conversation.and_then(|conversation| app.prompt_caches.pool(conversation));
    let Some(cached) = cached else { return };
    let paid = rungs.iter().take_while(|pool| pool.kind == PoolKind::Provisioned).count();
    let on_demand = &mut rungs[paid..];
    if let Some(place) = on_demand.iter().position(|pool| *pool.name == *cached) {
        on_demand[..=place].rotate_right(1);
    }
}
