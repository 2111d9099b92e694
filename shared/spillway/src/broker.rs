//! Admits, routes, invokes and settles a request.
//!
//! [`serve`] is the product in one function. The API calls it for a waiting client, the drain calls
//! it for a job. If it returns a [`Kind::Throttled`] problem, its caller decides whether the
//! request overflows into a job.

mod accounts;
mod admit;
mod capacity;
mod count;
mod estimate;
mod guardrail;
mod outages;
mod probe;
mod problems;
mod respond;
mod route;
mod served_headers;
mod settlement;

use std::sync::Arc;

use tracing::error;

pub use accounts::{
    for_pool as account_for_pool, for_running_jobs as account_for_running_jobs, for_tenant as account_for,
};
pub use capacity::capacity;
pub use count::{TokenCount, count_tokens};
use estimate::Plan;
pub use guardrail::{GuardrailResult, NamedGuardrail, apply_guardrail};
pub use problems::behind_jobs;
pub use respond::{Delta, Deltas};

use crate::{
    app::App,
    chat::{self, Answer},
    connections::spawn_for_caller,
    model::{Denial, Failure},
    pool::Model,
    problem::{Kind, Problem},
    quota::{LimitState, Receipt},
    stable_hash::stable_hash,
    stored_headers::StoredHeaders,
    telemetry::{DenialEvent, RequestEvent},
    tenant::{Class, Tenant},
    units::{Millis, UnixMs},
};

/// A request to a model, ready to be served.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// Id of the request in answers, logs and Bedrock's invocation log.
    pub request_id: String,
    /// The tenant that is charged.
    pub tenant: Arc<Tenant>,
    /// The requested model.
    pub model: Arc<Model>,
    /// The request in the form in which it is sent to the model.
    pub chat: chat::Request,
    /// Hash of the conversation that the request belongs to; `None` if it belongs to none, or if it
    /// does not change the order of the pools.
    pub conversation: Option<u64>,
    /// Size of the caller's body.
    pub body_bytes: usize,
    /// Class of the request, which determines the share of a pool that it may fill.
    pub class: Class,
    /// Maximum time to wait here for room.
    pub hold: Millis,
    /// Time when the process or the job's lease ends, so that the request must be over; `None` if
    /// only the model's timeout counts.
    pub deadline: Option<UnixMs>,
    /// For a job that can wait: the end of its wait for a concurrency permit. Such a job calls the
    /// cheapest pool first. `None` if a caller waits for the answer, which needs no permit.
    pub permit_deadline: Option<UnixMs>,
    /// The request event so far. It is completed and recorded when the request has been answered.
    pub event: RequestEvent,
}

impl ModelRequest {
    /// Returns the deadline of an attempt that is admitted at `now`: the end of the model's timeout
    /// or of the process, whichever comes first. It is fixed once, so that reservations, call and
    /// stream end together.
    fn attempt_deadline(&self, now: UnixMs) -> UnixMs {
        let timeout_ends = now + self.model.timeout;
        self.deadline.map_or(timeout_ends, |deadline| deadline.min(timeout_ends))
    }

    /// Whether an attempt until `deadline` has the whole timeout of the model.
    fn has_whole_timeout(&self, deadline: UnixMs) -> bool {
        self.deadline.is_none_or(|ends| ends > deadline)
    }

    /// Returns the request with the newest version of its model. The version is newer than this
    /// one's, unless the store is unavailable.
    async fn with_newest_model(&self, app: &App) -> Result<Self, Problem> {
        let mut model = app.registry.model_for(&self.tenant, &self.model.name).await?;
        if model.version == self.model.version {
            app.registry.forget_models();
            model = app.registry.model_for(&self.tenant, &self.model.name).await?;
        }
        Ok(Self { model, ..self.clone() })
    }
}

/// An answer, complete or still arriving.
#[derive(Debug)]
pub struct Served {
    /// The answer.
    pub reply: Reply,
    /// The pool that answers.
    pub pool: String,
    /// The name of the pool's model, if that is a substitute for the requested one.
    pub substitute: Option<String>,
    /// The pools that did not take the request, each with the reason.
    pub skipped: Option<String>,
    /// Output cap that was set because the caller set none, in tokens.
    pub max_tokens_set: Option<u64>,
    /// State of the tenant's limits.
    pub limit_states: Vec<LimitState>,
}

/// An answer, whole or streamed.
#[derive(Debug)]
pub enum Reply {
    /// A complete answer. It is settled.
    Whole(Answer),
    /// A stream. It is settled when the model has sent its last event, even if the reader has left.
    Stream {
        /// Headers of the model's reply for the caller (`x-amzn-bedrock-*`).
        headers: StoredHeaders,
        /// The events of the stream.
        deltas: Deltas,
    },
}

/// Returns the hash of the conversation that `request` of `tenant` belongs to, if it can change the
/// order of the pools of `model`.
pub fn conversation(tenant: &Tenant, model: &Model, request: &chat::Request) -> Option<u64> {
    let prefix = model.depends_on_conversation().then(|| request.input.conversation()).flatten()?;
    let names = [&tenant.name, &model.name];
    Some(names.into_iter().fold(prefix, |hash, name| stable_hash(hash, name.as_bytes())))
}

/// A request that was not answered.
#[derive(Debug)]
pub struct ServeError {
    /// The problem to report to the caller.
    pub problem: Problem,
    /// The charge that remains because a model may have been billed.
    pub receipt: Option<Box<Receipt>>,
    /// Number of calls of pools.
    pub calls: u32,
}

/// Nothing was charged.
impl From<Problem> for ServeError {
    fn from(problem: Problem) -> Self {
        Self { problem, receipt: None, calls: 0 }
    }
}

/// Serves `request`: waits for room for up to `hold`, then calls the model. Every reservation made
/// on the way is settled, or expires if this process dies.
///
/// # Errors
/// Returns the problem to report to the caller. [`Kind::Throttled`] is "not now" and carries the
/// time of the next try; nothing was charged.
pub async fn serve(app: &App, request: ModelRequest) -> Result<Served, ServeError> {
    let started = app.clock.now();
    let hold_ends = started + request.hold;
    let request = Arc::new(request);
    let mut held = None;
    loop {
        // A separate task: a caller that disconnects stops neither the model nor the bill, so the
        // attempt continues without the caller and is settled.
        let attempt = spawn_for_caller(attempt(app.clone(), Arc::clone(&request), held, started));
        let failed = match attempt.await {
            Ok(Ok(served)) => return Ok(served),
            Ok(Err(failed)) => failed,
            Err(died) => return Err(problems::task_died(&died).into()),
        };
        let now = app.clock.now();
        held = Some(now - started);
        match failed.problem.retry_after.map(|wait| now + wait) {
            Some(retry_at) if failed.problem.kind == Kind::Throttled && retry_at <= hold_ends => {
                app.clock.sleep_until(retry_at).await;
            }
            _ => {
                log_refusal(app, &request.tenant, &failed.problem).await;
                return Err(failed);
            }
        }
    }
}

/// Checks whether `request` could be admitted without competing requests. Nothing is reserved.
///
/// # Errors
/// Returns an error if the request is larger than a whole limit of its tenant or of the parent.
pub async fn check(app: &App, request: &ModelRequest) -> Result<(), Problem> {
    admit::check(app, request).await
}

/// Records a "not now" in the refusal log of `tenant`, even if the limits belong to its parent or
/// to a pool. A "never" is the caller's mistake and is not recorded.
async fn log_refusal(app: &App, tenant: &Tenant, problem: &Problem) {
    let (Some(refused_by), Some(_)) = (&problem.refused_by, problem.retry_after) else { return };
    app.refusals.add(&tenant.name, &refused_by.limit_names()).await;
}

/// Attempts to serve `request`. If the ledger has seen a newer ladder than the registry cache,
/// reloads the model and tries again, once.
async fn attempt(
    app: App,
    request: Arc<ModelRequest>,
    held: Option<Millis>,
    started: UnixMs,
) -> Result<Served, ServeError> {
    if let Some(served) = attempt_on_ladder(&app, &request, held, started).await? {
        return Ok(served);
    }
    let request = Arc::new(request.with_newest_model(&app).await?);
    let served = attempt_on_ladder(&app, &request, held, started).await?;
    served.ok_or_else(|| problems::pools_full(&request.model.name, Millis::from_ms(1)).into())
}

/// Returns `None` if the ledger has seen a newer ladder. Nothing is charged then.
async fn attempt_on_ladder(
    app: &App,
    request: &Arc<ModelRequest>,
    held: Option<Millis>,
    started: UnixMs,
) -> Result<Option<Served>, ServeError> {
    let attempt_started = app.clock.now();
    let permit = route::wait_for_permit(app, request).await?;
    let permit_acquired = app.clock.now();
    let admitted = admit::admit(app, request).await?;
    let mut event = request.event.clone();
    event.hold_ms = held.or_else(|| permit.is_some().then(|| permit_acquired - attempt_started));
    event.reserved_tokens = Some(admitted.reserved_tokens());
    event.regained_tokens = Some(admitted.regained_tokens).filter(|regained| *regained > 0);
    event.admit_ms = Some(app.clock.now() - permit_acquired);
    match route::route(app, request, &admitted, permit).await {
        Ok(Some(routed)) => {
            Ok(Some(respond::respond(app, Arc::clone(request), admitted, routed, event, started).await))
        }
        Ok(None) => {
            admitted.give_back(app, 0, None).await;
            Ok(None)
        }
        Err(failed) => {
            let billed_calls = failed.trace.late_calls + u64::from(failed.may_be_billed);
            let mut receipt = admitted.give_back(app, billed_calls, failed.trace.outage).await;
            let (name, charged) = failed.pool.unzip();
            (receipt.pool_name, receipt.pool) = (name, charged.flatten());
            let receipt = (billed_calls > 0).then(|| Box::new(receipt));
            let problem = Problem { skipped: Some(Box::new(failed.trace.skipped)), ..failed.problem };
            Err(ServeError { problem, receipt, calls: failed.trace.calls })
        }
    }
}

/// Counts a denial and logs Bedrock's reason. It names the missing right, form or model, which the
/// caller cannot correct and must not see.
fn record_denial(app: &App, failure: &Failure, model_id: &str) {
    if let Failure::Denied(Denial { reason, .. }) = failure {
        error!(model_id, reason, "Bedrock denies the broker a model");
        app.telemetry.record_denial(DenialEvent { denied: 1, model_id: model_id.to_owned() });
    }
}
