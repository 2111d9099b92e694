//! The ladder: tries one pool after the other until a pool answers.

use tracing::warn;

use super::{ModelRequest, accounts, admit::Admitted, estimate, problems, record_denial, settlement};
use crate::{
    app::App,
    chat::Answer,
    concurrency::{CallOutcome, DAILY_QUOTA_REST, Permit, TryAcquireError},
    model::{EventStream, Failure, ModelCall, Quota},
    pool::Pool,
    problem::Problem,
    quota::{self, Charged},
    store::ledger::{HeldReservation, ReserveOutcome},
    units::Millis,
};

/// A pool that accepted the request, and its response.
pub struct Routed<'a> {
    pub pool: &'a Pool,
    /// The reservation on the pool; `None` if it has no limits.
    pub held: Option<HeldReservation>,
    /// The concurrency permit of a job that can wait.
    pub permit: Option<Permit>,
    /// Number of pools that were called, including this one.
    pub calls: u32,
    pub response: Response,
}

/// The response of a pool.
pub enum Response {
    Whole(Answer),
    /// The first event has arrived.
    Stream(Box<EventStream>),
}

/// No pool answered.
pub struct Failed {
    pub problem: Problem,
    /// Whether a model may have worked on the request.
    pub may_be_billed: bool,
    /// The pool that may be billed, and the charge that remains on it.
    pub pool: Option<(String, Option<Charged>)>,
}

impl Failed {
    fn unbilled(problem: Problem) -> Self {
        Self { problem, may_be_billed: false, pool: None }
    }
}

/// Time until the next try of a pool whose ledger items have too many concurrent writes.
const CONTENDED_RETRY_AFTER: Millis = Millis::from_s(1);

/// The reasons why the pools so far did not take the request.
#[derive(Default)]
struct Obstacles {
    min_retry_after: Option<Millis>,
    unavailable: Option<Problem>,
}

/// Waits for a concurrency permit of a pool, if `request` is a job that can wait.
///
/// # Errors
/// Returns an error if no pool has a permit in time.
pub async fn wait_for_permit(app: &App, request: &ModelRequest) -> Result<Option<Permit>, Problem> {
    let Some(deadline) = request.permit_deadline else { return Ok(None) };
    match app.concurrency.acquire(&request.model, &rungs(request)?, deadline).await {
        Ok(permit) => Ok(Some(permit)),
        Err(retry_after) => Err(problems::pools_full(&request.model.name, retry_after)),
    }
}

/// Tries the pools of the model's ladder in order. A full, throttled, resting or unavailable pool
/// leads to the next; any other failure ends the request. `permit` is the one that the job waited
/// for. Returns `None` if the ledger has seen a newer ladder.
pub async fn route<'a>(
    app: &App,
    request: &'a ModelRequest,
    admitted: &Admitted,
    mut permit: Option<Permit>,
) -> Result<Option<Routed<'a>>, Failed> {
    let mut obstacles = Obstacles::default();
    let mut calls = 0;
    for pool in rungs(request).map_err(Failed::unbilled)? {
        let permit = match permit_for(app, request, pool, &mut permit) {
            Ok(permit) => permit,
            Err(retry_after) => {
                obstacles.add_full(retry_after);
                continue;
            }
        };
        let held = match reserve(app, request, admitted, pool).await? {
            Room::Unlimited => None,
            Room::Held(held) => Some(held),
            Room::TooSmall => continue,
            Room::Stale => return Ok(None),
            Room::Full { retry_after } => {
                obstacles.add_full(retry_after);
                if let Some(permit) = permit {
                    permit.release(CallOutcome::Refused { retry_after });
                }
                continue;
            }
        };
        calls += 1;
        let failure = match invoke(app, request, admitted, pool).await {
            Ok(response) => return Ok(Some(Routed { pool, held, permit, calls, response })),
            Err(failure) => failure,
        };
        record_denial(app, &failure, &pool.model_id);
        let may_be_billed = matches!(failure, Failure::Failed(_));
        let charged = match held {
            Some(held) => Some(settlement::give_back(app, held, may_be_billed).await),
            None => None,
        };
        match failure {
            Failure::Throttled(quota) => obstacles.add_full(record_throttle(app, request, pool, permit, quota)),
            Failure::Unavailable(problem) => obstacles.unavailable = Some(problem),
            Failure::Denied(_) => return Err(Failed::unbilled(failure.into_problem())),
            Failure::Rejected(problem) | Failure::Unsupported(problem) => return Err(Failed::unbilled(problem)),
            Failure::Failed(problem) => {
                return Err(Failed { problem, may_be_billed, pool: Some((pool.name.clone(), charged)) });
            }
        }
    }
    Err(Failed::unbilled(obstacles.into_problem(request)))
}

/// Records that `pool` throttled a call, so that jobs call it less. Beyond the quota of a day, the
/// pool rests. Returns the time until the next try.
fn record_throttle(app: &App, request: &ModelRequest, pool: &Pool, permit: Option<Permit>, quota: Quota) -> Millis {
    let cool_down = match permit {
        Some(permit) => permit.release(CallOutcome::Throttled),
        None => {
            app.concurrency.record_throttle(&request.model, pool);
            Millis::ZERO
        }
    };
    match quota {
        Quota::Minute => cool_down.max(problems::THROTTLED_RETRY_AFTER),
        Quota::Day => {
            warn!(model_id = pool.model_id, rest_ms = %DAILY_QUOTA_REST, "the daily quota of a pool is used up");
            app.concurrency.start_rest(&request.model, pool, DAILY_QUOTA_REST);
            DAILY_QUOTA_REST
        }
    }
}

/// Returns the permit to call `pool`: `acquired` if it is for this pool, or else a free permit. A
/// request whose caller waits needs none, unless the pool rests.
///
/// # Errors
/// Returns the time after which the pool may be called.
fn permit_for(
    app: &App,
    request: &ModelRequest,
    pool: &Pool,
    acquired: &mut Option<Permit>,
) -> Result<Option<Permit>, Millis> {
    if let Some(until) = app.concurrency.rest_ends(&request.model, pool) {
        return Err(until - app.clock.now());
    }
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
fn rungs(request: &ModelRequest) -> Result<Vec<&Pool>, Problem> {
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

impl Obstacles {
    fn add_full(&mut self, retry_after: Millis) {
        self.min_retry_after = Some(self.min_retry_after.map_or(retry_after, |min| min.min(retry_after)));
    }

    fn into_problem(self, request: &ModelRequest) -> Problem {
        let model = &request.model.name;
        match (self.min_retry_after, self.unavailable) {
            (Some(retry_after), _) => problems::pools_full(model, retry_after),
            (None, Some(problem)) => Problem { retry_after: Some(problems::THROTTLED_RETRY_AFTER), ..problem },
            (None, None) => problems::larger_than_every_pool(model, estimate::calls(request)),
        }
    }
}

/// Whether a pool has room for a request.
enum Room {
    /// The pool has no limits.
    Unlimited,
    Held(HeldReservation),
    Full {
        retry_after: Millis,
    },
    /// The request is larger than the pool's limits.
    TooSmall,
    /// The ledger has seen newer limits of the pool.
    Stale,
}

/// Reserves for the request on `pool`.
async fn reserve(app: &App, request: &ModelRequest, admitted: &Admitted, pool: &Pool) -> Result<Room, Failed> {
    if pool.limits.is_unlimited() {
        return Ok(Room::Unlimited);
    }
    let charge = admitted.plan.pool_charge(pool);
    if !quota::too_large(&pool.limits, &charge).is_empty() {
        return Ok(Room::TooSmall);
    }
    let share_percent = pool.share_percent(request.class, admitted.is_excess);
    let account = accounts::for_pool(&request.model, pool, share_percent);
    match app.ledger.reserve(&account, charge, admitted.deadline).await {
        Ok(ReserveOutcome::Reserved(held, _)) => Ok(Room::Held(held)),
        Ok(ReserveOutcome::Refused(refusal, _)) => Ok(Room::Full { retry_after: refusal.retry_after() }),
        // A retry would only add to the contention: a pool with too many concurrent writes is too
        // busy to serve.
        Ok(ReserveOutcome::Busy) => Ok(Room::Full { retry_after: CONTENDED_RETRY_AFTER }),
        Ok(ReserveOutcome::Stale) => Ok(Room::Stale),
        Err(error) => Err(Failed::unbilled(error.into())),
    }
}

/// Calls `pool`. A stream is returned when its first event has arrived.
async fn invoke(app: &App, request: &ModelRequest, admitted: &Admitted, pool: &Pool) -> Result<Response, Failure> {
    let call = ModelCall {
        pool,
        input: &request.chat.input,
        max_tokens: admitted.plan.max_tokens_set,
        tenant: &request.tenant.name,
        request_id: &request.request_id,
    };
    let response = async {
        if !request.chat.stream {
            return app.models.answer(&call).await.map(Response::Whole);
        }
        let mut stream = app.models.stream(&call).await?;
        stream.peek().await?;
        Ok(Response::Stream(Box::new(stream)))
    };
    tokio::select! {
        biased;
        () = app.clock.sleep_until(admitted.deadline) => Err(Failure::timed_out()),
        response = response => response,
    }
}
