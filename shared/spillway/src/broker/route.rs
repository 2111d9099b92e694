//! The ladder: tries one pool after the other until a pool answers.

mod invoke;
mod obstacles;
mod room;
mod rungs;

pub use obstacles::Trace;
pub use rungs::wait_for_permit;

use super::{ModelRequest, admit::Admitted, outages, probe, problems, record_denial, settlement};
use crate::{
    app::App,
    chat::Answer,
    concurrency::{CallOutcome, Permit},
    health::{Access, CallKind, TrackedCall},
    model::{EventStream, Failure, Quota},
    outage::{DAILY_QUOTA_OUTAGE, Outage, OutageCause, PoolFault},
    pool::{OnSilence, Pool},
    problem::Problem,
    quota::Charged,
    store::ledger::{HeldReservation, View},
    telemetry::LateCallEvent,
    units::Millis,
};
use obstacles::Obstacles;
use room::Room;

/// A pool that accepted the request, and its response.
pub struct Routed<'a> {
    pub pool: &'a Pool,
    /// The reservation on the pool; `None` if it has no limits.
    pub held: Option<HeldReservation>,
    /// The concurrency permit of a job that can wait.
    pub permit: Option<Permit>,
    /// The call, which ends with the response.
    pub call: TrackedCall,
    pub response: Response,
    pub trace: Trace,
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
    pub trace: Trace,
}

impl Failed {
    fn unbilled(problem: Problem) -> Self {
        Self { problem, may_be_billed: false, pool: None, trace: Trace::default() }
    }
}

/// Tries the pools of the model's ladder in order. A pool that is full, throttled or out of order
/// leads to the next; any other failure ends the request. `permit` is the one that the job waited
/// for. Returns `None` if the ledger has seen a newer ladder.
pub async fn route<'r>(
    app: &App,
    request: &'r ModelRequest,
    admitted: &Admitted,
    permit: Option<Permit>,
) -> Result<Option<Routed<'r>>, Failed> {
    let (obstacles, trace) = (Obstacles::default(), Trace::new(&request.model));
    let mut attempt = LadderAttempt { app, request, admitted, permit, obstacles, trace };
    match attempt.climb().await {
        Ok(Climbed::Answered(answered)) => {
            let AnsweringPool { pool, held, permit, call, response } = *answered;
            Ok(Some(Routed { pool, held, permit, call, response, trace: attempt.trace }))
        }
        Ok(Climbed::Stale) => Ok(None),
        Ok(Climbed::NoRoom) => {
            let problem = attempt.obstacles.into_problem(request, attempt.app.clock.now());
            attempt.trace.skipped.is_whole_ladder = true;
            Err(Failed { problem, may_be_billed: false, pool: None, trace: attempt.trace })
        }
        Err(ended) => Err(Failed { trace: attempt.trace, ..ended }),
    }
}

/// An attempt to find a pool that answers.
struct LadderAttempt<'a, 'r> {
    app: &'a App,
    request: &'r ModelRequest,
    admitted: &'a Admitted,
    /// The permit that the job waited for.
    permit: Option<Permit>,
    obstacles: Obstacles,
    trace: Trace,
}

/// Outcome of an attempt on all pools.
enum Climbed<'a> {
    Answered(Box<AnsweringPool<'a>>),
    /// The ledger has seen a newer ladder.
    Stale,
    NoRoom,
}

/// Outcome of an attempt on one pool.
enum Step<'a> {
    Answered(Box<AnsweringPool<'a>>),
    Stale,
    Next,
}

struct AnsweringPool<'a> {
    pool: &'a Pool,
    held: Option<HeldReservation>,
    permit: Option<Permit>,
    call: TrackedCall,
    response: Response,
}

impl<'r> LadderAttempt<'_, 'r> {
    async fn climb(&mut self) -> Result<Climbed<'r>, Failed> {
        let kind = if self.request.chat.stream { CallKind::Stream } else { CallKind::Whole };
        let mut last_resorts = Vec::new();
        for pool in self.request.model.substitutes().filter(|pool| !rungs::takes_body(self.request, pool)) {
            self.trace.skip(pool, "format");
        }
        for pool in rungs::rungs(self.app, self.request).map_err(Failed::unbilled)? {
            let call = match self.app.health.ask(&self.request.model, pool, kind) {
                Access::Call(call) => call,
                Access::PassedOver { outage, is_last_resort, probe } => {
                    if let Some(probe) = probe {
                        probe::start(self.app, &self.request.model, pool, probe);
                    }
                    self.pass_over(pool, outage);
                    last_resorts.extend(is_last_resort.then_some(pool));
                    continue;
                }
            };
            match self.attempt(pool, call).await? {
                Step::Answered(answered) => return Ok(Climbed::Answered(answered)),
                Step::Stale => return Ok(Climbed::Stale),
                Step::Next => {}
            }
        }
        // A job waits until the outage is over.
        if self.trace.calls > 0 || self.obstacles.min_retry_after.is_some() || self.request.permit_deadline.is_some() {
            return Ok(Climbed::NoRoom);
        }
        for pool in last_resorts {
            let call = self.app.health.call_anyway(&self.request.model, pool, kind);
            match self.attempt(pool, call).await? {
                Step::Answered(answered) => return Ok(Climbed::Answered(answered)),
                Step::Stale => return Ok(Climbed::Stale),
                Step::Next => {}
            }
        }
        Ok(Climbed::NoRoom)
    }

    /// Calls `pool` if it has room.
    async fn attempt(&mut self, pool: &'r Pool, call: TrackedCall) -> Result<Step<'r>, Failed> {
        let (app, request) = (self.app, self.request);
        let permit = match rungs::permit_for(app, request, pool, &mut self.permit) {
            Ok(permit) => permit,
            Err(retry_after) => {
                self.is_full(pool, rungs::NO_PERMIT, retry_after);
                return Ok(Step::Next);
            }
        };
        let (held, view) = match room::reserve(app, request, self.admitted, pool).await? {
            Room::Unlimited => (None, None),
            Room::Held(room) => {
                let (held, view) = *room;
                (Some(held), Some(view))
            }
            Room::TooSmall => {
                self.trace.skip(pool, "too_small");
                return Ok(Step::Next);
            }
            Room::Stale => return Ok(Step::Stale),
            Room::Full { retry_after, reason } => {
                self.is_full(pool, reason, retry_after);
                if let Some(permit) = permit {
                    permit.release(CallOutcome::Refused { retry_after });
                }
                return Ok(Step::Next);
            }
        };
        if let Some(outage) = view.and_then(|view| self.learned(pool, &view)) {
            settlement::give_back_if_held(app, held, 0, None).await;
            self.pass_over(pool, outage);
            return Ok(Step::Next);
        }
        self.trace.calls += 1;
        match invoke::invoke(app, request, self.admitted, pool, &call).await {
            Ok(response) => Ok(Step::Answered(Box::new(AnsweringPool { pool, held, permit, call, response }))),
            Err(failure) => self.after_failure(pool, call, held, permit, failure).await,
        }
    }

    /// Gives the reservation on `pool` back, and decides whether the next pool is tried.
    async fn after_failure(
        &mut self,
        pool: &Pool,
        call: TrackedCall,
        held: Option<HeldReservation>,
        permit: Option<Permit>,
        failure: Failure,
    ) -> Result<Step<'r>, Failed> {
        let (app, request) = (self.app, self.request);
        record_denial(app, &failure, &pool.model_id);
        let fault = failure.fault();
        let outage = call.fail(fault).map(|outage| outages::report(app, &request.model, pool, outage));
        self.trace.outage = outage.or(self.trace.outage);
        let may_be_billed = matches!(failure, Failure::Failed(..));
        let charged = settlement::give_back_if_held(app, held, may_be_billed.into(), outage).await;
        match failure {
            Failure::Throttled(Quota::Minute) => {
                let cool_down = record_throttle(app, request, pool, permit);
                self.trace.fail(pool, "throttled", None);
                self.obstacles.add_full(cool_down.max(problems::THROTTLED_RETRY_AFTER));
            }
            Failure::Throttled(Quota::Day) => {
                record_throttle(app, request, pool, permit);
                self.trace.fail(pool, OutageCause::DailyQuota.name(), None);
                self.obstacles.add_full(DAILY_QUOTA_OUTAGE);
            }
            Failure::Unavailable(unavailable) => {
                self.trace.fail(pool, unavailable.cause.name(), unavailable.error);
                self.obstacles.unavailable = Some(unavailable.problem);
            }
            Failure::Denied(ref denial) => {
                self.trace.fail(pool, OutageCause::Denied.name(), denial.error.clone());
                self.obstacles.denied = Some(failure.into_problem());
            }
            // The body was made for the model, and may have members that the substitute refuses.
            Failure::Rejected(_) | Failure::Unsupported(_) if pool.substitute => {
                self.trace.fail(pool, "rejected", None);
            }
            Failure::Rejected(problem) | Failure::Unsupported(problem) => return Err(Failed::unbilled(problem)),
            Failure::Failed(PoolFault::Certain(OutageCause::Silent), problem) if self.is_passed_on(pool) => {
                self.trace.fail(pool, OutageCause::Silent.name(), None);
                self.trace.late_calls += 1;
                record_late_call(app, request, pool, charged);
                self.obstacles.unavailable = Some(problem);
            }
            Failure::Failed(_, problem) => {
                let pool = Some((pool.name.clone(), charged));
                return Err(Failed { problem, may_be_billed, pool, trace: Trace::default() });
            }
        }
        Ok(Step::Next)
    }

    /// Whether a request that `pool` did not answer in time goes to the next pool.
    fn is_passed_on(&self, pool: &Pool) -> bool {
        pool.on_silence == OnSilence::NextPool && self.app.clock.now() < self.admitted.deadline
    }

    /// Returns the outage of `pool` that another process has written to the pool's item.
    fn learned(&self, pool: &Pool, view: &View) -> Option<Outage> {
        outages::learn(self.app, &self.request.model, view);
        self.app.health.outage(&self.request.model, pool)
    }

    fn is_full(&mut self, pool: &Pool, reason: &'static str, retry_after: Millis) {
        self.trace.skip(pool, reason);
        self.obstacles.add_full(retry_after);
    }

    fn pass_over(&mut self, pool: &Pool, outage: Outage) {
        if outage.cause == OutageCause::DailyQuota {
            return self.is_full(pool, outage.cause.name(), outage.until - self.app.clock.now());
        }
        self.trace.skip(pool, outage.cause.name());
        self.obstacles.add_outage(outage);
    }
}

/// Records a call that `pool` did not answer in time, with the charge that remains on the pool.
fn record_late_call(app: &App, request: &ModelRequest, pool: &Pool, charged: Option<Charged>) {
    app.telemetry.record_late_call(LateCallEvent {
        late_calls: 1,
        request_id: request.request_id.clone(),
        model: request.model.name.clone(),
        pool: pool.name.clone(),
        pool_charged: charged.map(Into::into),
    });
}

/// Records that `pool` throttled a call, so that jobs call it less. Returns how long they do not
/// call it at all.
fn record_throttle(app: &App, request: &ModelRequest, pool: &Pool, permit: Option<Permit>) -> Millis {
    match permit {
        Some(permit) => permit.release(CallOutcome::Throttled),
        None => {
            app.concurrency.record_throttle(&request.model, pool);
            Millis::ZERO
        }
    }
}
