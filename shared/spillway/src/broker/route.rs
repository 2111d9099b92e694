//! The ladder: pool after pool, until one answers.

use super::{Ask, accounts, admit::Admitted, problems, settlement};
use crate::{
    app::App,
    chat::Answer,
    concurrency::{CallOutcome, Permit, TryAcquireError},
    model::{EventStream, Failure, ModelCall},
    pool::Pool,
    problem::Problem,
    quota::{self, Charged},
    store::{
        LedgerError,
        ledger::{Held, ReserveOutcome},
    },
    units::{Millis, UnixMs},
};

/// A pool that took the request.
pub struct Routed<'a> {
    pub pool: &'a Pool,
    /// The reservation on the pool; `None` when it has no limits.
    pub held: Option<Held>,
    /// The concurrency permit of a job that can wait.
    pub permit: Option<Permit>,
    /// How many pools were called, this one included.
    pub calls: u32,
    pub response: Response,
}

/// What the pool gives.
pub enum Response {
    Whole(Answer),
    /// Its first event has arrived.
    Stream(Box<EventStream>),
}

/// No pool answered.
pub struct Failed {
    pub problem: Problem,
    /// Whether a model may have worked on the request.
    pub may_be_billed: bool,
    /// The pool that may have, and what stays charged on it.
    pub pool: Option<(String, Option<Charged>)>,
}

impl Failed {
    fn unbilled(problem: Problem) -> Self {
        Self { problem, may_be_billed: false, pool: None }
    }
}

/// When a pool whose ledger items are too hot to write to is worth another try.
const BUSY_RETRY_MS: u64 = 1_000;

/// What stood in the way so far.
#[derive(Default)]
struct Obstacles {
    soonest_retry_ms: Option<u64>,
    unavailable: Option<Problem>,
}

/// Waits for a concurrency permit of a pool, if `ask` is a job that can wait.
///
/// # Errors
/// Returns an error if no pool has a permit in time.
pub async fn wait_for_permit(app: &App, ask: &Ask) -> Result<Option<Permit>, Problem> {
    let Some(until_ms) = ask.patient_until_ms else { return Ok(None) };
    match app.concurrency.acquire(&ask.model, &rungs(ask)?, UnixMs::from_ms(until_ms)).await {
        Ok(permit) => Ok(Some(permit)),
        Err(retry_after) => Err(problems::pools_full(&ask.model.name, retry_after)),
    }
}

/// Tries the pools of the model's ladder in order: a full, throttled or unavailable one leads to the next; anything else
/// ends the request. `permit` is the permit that the job waited for.
pub async fn route<'a>(
    app: &App,
    ask: &'a Ask,
    admitted: &Admitted,
    mut permit: Option<Permit>,
) -> Result<Routed<'a>, Failed> {
    let mut obstacles = Obstacles::default();
    let mut calls = 0;
    for pool in rungs(ask).map_err(Failed::unbilled)? {
        let permit = match permit_for(app, ask, pool, &mut permit) {
            Ok(permit) => permit,
            Err(retry_after_ms) => {
                obstacles.full(retry_after_ms);
                continue;
            }
        };
        let held = match reserve(app, ask, admitted, pool).await? {
            Room::Free => None,
            Room::Held(held) => Some(held),
            Room::Never => continue,
            Room::Full { retry_after_ms } => {
                obstacles.full(retry_after_ms);
                if let Some(permit) = permit {
                    permit.release(CallOutcome::Refused { retry_after: Millis::from_ms(retry_after_ms) });
                }
                continue;
            }
        };
        calls += 1;
        let failure = match invoke(app, ask, admitted, pool).await {
            Ok(response) => return Ok(Routed { pool, held, permit, calls, response }),
            Err(failure) => failure,
        };
        let may_be_billed = matches!(failure, Failure::Failed(_));
        let charged = match held {
            Some(held) => Some(settlement::give_back(app, held, may_be_billed).await),
            None => None,
        };
        match failure {
            Failure::Throttled => {
                let cool_down = match permit {
                    Some(permit) => permit.release(CallOutcome::Throttled),
                    None => {
                        app.concurrency.record_throttle(&ask.model, pool);
                        Millis::ZERO
                    }
                };
                obstacles.full(cool_down.as_ms().max(problems::THROTTLED_RETRY_AFTER.as_ms()));
            }
            Failure::Unavailable(problem) => obstacles.unavailable = Some(problem),
            Failure::Rejected(problem) | Failure::Unsupported(problem) => return Err(Failed::unbilled(problem)),
            Failure::Failed(problem) => {
                return Err(Failed { problem, may_be_billed, pool: Some((pool.name.clone(), charged)) });
            }
        }
    }
    Err(Failed::unbilled(obstacles.into_problem(&ask.model.name)))
}

/// Returns the permit to call `pool`: `acquired` if it is for this pool, or else a free one. A request whose caller
/// waits needs none.
///
/// # Errors
/// Returns the time in milliseconds after which the pool probably has a permit.
fn permit_for(app: &App, ask: &Ask, pool: &Pool, acquired: &mut Option<Permit>) -> Result<Option<Permit>, u64> {
    if ask.patient_until_ms.is_none() {
        return Ok(None);
    }
    if acquired.as_ref().is_some_and(|permit| permit.is_for(&ask.model, pool)) {
        return Ok(acquired.take());
    }
    app.concurrency.try_acquire(&ask.model, pool).map(Some).map_err(|error| {
        let (TryAcquireError::CoolingDown { until } | TryAcquireError::NoPermits { until }) = error;
        until.as_ms().saturating_sub(app.clock.now_ms())
    })
}

/// The pools that may take the request, in order.
fn rungs(ask: &Ask) -> Result<Vec<&Pool>, Problem> {
    let all = if ask.patient_until_ms.is_some() { ask.model.rungs_by_price() } else { ask.model.rungs().collect() };
    let Some(tier) = &ask.request.service_tier else { return Ok(all) };
    let pools: Vec<_> = all
        .into_iter()
        .filter(|pool| pool.service_tier.as_ref().is_some_and(|tier_of_pool| tier_of_pool.as_str() == tier))
        .collect();
    if pools.is_empty() {
        let told = format!("Model {} has no pool of the tier {tier} here; leave the service tier out.", ask.model.name);
        return Err(Problem::invalid("service_tier", told));
    }
    Ok(pools)
}

impl Obstacles {
    fn full(&mut self, retry_after_ms: u64) {
        self.soonest_retry_ms =
            Some(self.soonest_retry_ms.map_or(retry_after_ms, |soonest| soonest.min(retry_after_ms)));
    }

    fn into_problem(self, model: &str) -> Problem {
        match (self.soonest_retry_ms, self.unavailable) {
            (Some(retry_after_ms), _) => problems::pools_full(model, Millis::from_ms(retry_after_ms)),
            (None, Some(problem)) => Problem { retry_after: Some(problems::THROTTLED_RETRY_AFTER), ..problem },
            (None, None) => problems::larger_than_every_pool(model),
        }
    }
}

enum Room {
    /// The pool has no limits.
    Free,
    Held(Held),
    Full {
        retry_after_ms: u64,
    },
    /// The request is larger than the pool.
    Never,
}

async fn reserve(app: &App, ask: &Ask, admitted: &Admitted, pool: &Pool) -> Result<Room, Failed> {
    if pool.limits.is_unlimited() {
        return Ok(Room::Free);
    }
    let charge = admitted.plan.pool_charge(pool);
    if !quota::too_large(&pool.limits, &charge).is_empty() {
        return Ok(Room::Never);
    }
    let share_percent = pool.share_percent(ask.class, admitted.is_excess);
    let account = accounts::for_pool(&ask.model, pool, share_percent);
    match app.ledger.reserve(&account, charge, crate::units::UnixMs::from_ms(admitted.deadline_ms)).await {
        Ok(ReserveOutcome::Reserved(held, _)) => Ok(Room::Held(held)),
        Ok(ReserveOutcome::Refused(refused, _)) => Ok(Room::Full { retry_after_ms: refused.retry_after().as_ms() }),
        // One more try would only add to the heat: what is too hot to write to is too busy to serve.
        Ok(ReserveOutcome::Busy) => Ok(Room::Full { retry_after_ms: BUSY_RETRY_MS }),
        // The ladder changed under us; the next request reads it again.
        Ok(ReserveOutcome::Stale) => {
            app.registry.forget_models();
            Ok(Room::Full { retry_after_ms: 1 })
        }
        Err(error) => Err(Failed::unbilled(LedgerError(error).into())),
    }
}

async fn invoke(app: &App, ask: &Ask, admitted: &Admitted, pool: &Pool) -> Result<Response, Failure> {
    let call = ModelCall {
        pool,
        input: &ask.request.input,
        max_tokens: admitted.plan.max_tokens,
        tenant: &ask.tenant.name,
        request_id: &ask.request_id,
    };
    let answered = async {
        if !ask.request.stream {
            return app.models.answer(&call).await.map(Response::Whole);
        }
        let mut stream = app.models.stream(&call).await?;
        stream.peek().await?;
        Ok(Response::Stream(Box::new(stream)))
    };
    tokio::select! {
        biased;
        () = app.clock.sleep_until(crate::units::UnixMs::from_ms(admitted.deadline_ms)) => Err(Failure::timed_out()),
        answered = answered => answered,
    }
}
