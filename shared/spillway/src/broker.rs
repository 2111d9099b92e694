//! Admit, route, invoke, settle – or say why not.
//!
//! [`serve`] is the product in one function. The API calls it for a waiting client, the drain calls it for a job;
//! overflow is what the caller makes of a [`Kind::Throttled`](crate::problem::Kind) problem.

mod accounts;
mod admit;
mod count;
mod estimate;
mod find;
mod guardrail;
mod problems;
mod respond;
mod route;
mod served_headers;
mod settlement;

use std::sync::Arc;

use tracing::warn;

pub use accounts::{
    for_pool as account_for_pool, for_running_jobs as account_for_running_jobs, for_tenant as account_for,
};
pub use count::{Count, count_tokens};
use estimate::Plan;
pub use find::find_model;
pub use guardrail::{Applied, apply_guardrail};
pub use problems::behind_jobs;
pub use respond::{Delta, Deltas};

use crate::{
    app::App,
    chat::{self, Answer},
    pool::Model,
    problem::{Kind, Problem},
    quota::{LimitState, Receipt},
    stored_headers::StoredHeaders,
    telemetry::RequestEvent,
    tenant::{Class, Tenant},
    units::UnixMs,
};

/// A request that is ready to be served.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Names the request in answers, logs and Bedrock's invocation log.
    pub request_id: String,
    /// Who asks.
    pub tenant: Arc<Tenant>,
    /// For which model.
    pub model: Arc<Model>,
    /// What.
    pub request: chat::Request,
    /// How much of a pool it may take.
    pub class: Class,
    /// How long it may wait here for room, in milliseconds.
    pub hold_ms: u64,
    /// When it must be over, in milliseconds since 1970, because its process or its job's lease ends; `None` when only the
    /// model's own timeout counts.
    pub deadline_ms: Option<u64>,
    /// For a job that can wait: until when it may do so here for its turn at a pool, in milliseconds since 1970. Its pools are
    /// called at the drain's pace, the cheapest first. `None` when somebody waits for the answer.
    pub patient_until_ms: Option<u64>,
    /// What is known of the request so far; completed and recorded when it is answered.
    pub event: RequestEvent,
}

impl Ask {
    /// The deadline of an attempt that is admitted at `now_ms`: when the model's time is up, or this process's. It is
    /// fixed once, so that reservations, call and stream end together.
    fn attempt_deadline_ms(&self, now_ms: u64) -> u64 {
        let model_ms = now_ms.saturating_add(self.model.timeout.as_ms());
        self.deadline_ms.map_or(model_ms, |deadline_ms| deadline_ms.min(model_ms))
    }
}

/// An answer under way.
#[derive(Debug)]
pub struct Served {
    /// The answer.
    pub reply: Reply,
    /// The pool that gives it.
    pub pool: String,
    /// The output cap that was set because the request named none, in tokens.
    pub max_tokens_set: Option<u64>,
    /// Where the tenant's limits stand.
    pub limits: Vec<LimitState>,
}

/// An answer, whole or in pieces.
#[derive(Debug)]
pub enum Reply {
    /// Complete and settled.
    Whole(Answer),
    /// Being produced; settled when the last piece has been read or the reader has gone.
    Stream {
        /// The headers of the model's reply that its caller may want (`x-amzn-bedrock-*`).
        headers: StoredHeaders,
        /// The pieces.
        deltas: Deltas,
    },
}

/// A request that was not answered.
#[derive(Debug)]
pub struct ServeError {
    /// The problem to report to the caller.
    pub problem: Problem,
    /// The charge that remains because a model may have been billed.
    pub receipt: Option<Box<Receipt>>,
}

/// Nothing was charged.
impl From<Problem> for ServeError {
    fn from(problem: Problem) -> Self {
        Self { problem, receipt: None }
    }
}

/// Serves `ask`: waits for room for up to `hold_ms`, then calls the model. Every reservation made
/// on the way is settled, or expires if this process dies.
///
/// # Errors
/// Returns the problem to report to the caller. [`Kind::Throttled`] is "not now" and carries the
/// time of the next try; nothing was charged.
pub async fn serve(app: &App, ask: Ask) -> Result<Served, ServeError> {
    let started_ms = app.clock.now_ms();
    let hold_until_ms = started_ms + ask.hold_ms;
    let ask = Arc::new(ask);
    let mut held_ms = None;
    loop {
        // In a task of its own: a caller that goes away stops neither the model nor the bill, so the answer is awaited
        // and settled all the same.
        let attempt = tokio::spawn(attempt(app.clone(), Arc::clone(&ask), held_ms, started_ms));
        let failed = match attempt.await {
            Ok(Ok(served)) => return Ok(served),
            Ok(Err(failed)) => failed,
            Err(died) => return Err(problems::task_died(&died).into()),
        };
        let now_ms = app.clock.now_ms();
        held_ms = Some(now_ms.saturating_sub(started_ms));
        let retry_at = failed.problem.retry_after.map(|wait| UnixMs::from_ms(now_ms) + wait);
        match retry_at {
            Some(at) if failed.problem.kind == Kind::Throttled && at.as_ms() <= hold_until_ms => {
                app.clock.sleep_until(at).await;
            }
            _ => {
                note_refusal(app, &ask.tenant, &failed.problem).await;
                return Err(failed);
            }
        }
    }
}

/// Whether `ask` could be admitted if nothing else were under way. Nothing is reserved.
///
/// # Errors
/// It is larger than a whole limit, of its tenant or its parent.
pub async fn check(app: &App, ask: &Ask) -> Result<(), Problem> {
    admit::check(app, ask).await
}

/// Records a "not now" for operators, on the tenant that was refused, whoever's limits they were. A "never" is the
/// caller's own affair.
async fn note_refusal(app: &App, tenant: &Tenant, problem: &Problem) {
    let (Some(refused_by), Some(_)) = (&problem.refused_by, problem.retry_after) else { return };
    if let Err(error) = app.refusals.add(&tenant.name, &refused_by.limit_names()).await {
        warn!(%error, "a refusal was not recorded");
    }
}

async fn attempt(app: App, ask: Arc<Ask>, held_ms: Option<u64>, started_ms: u64) -> Result<Served, ServeError> {
    let began_ms = app.clock.now_ms();
    let permit = route::wait_for_permit(&app, &ask).await?;
    let attempted_ms = app.clock.now_ms();
    let admitted = admit::admit(&app, &ask).await?;
    let mut event = ask.event.clone();
    event.hold_ms = held_ms.or_else(|| permit.is_some().then(|| attempted_ms.saturating_sub(began_ms)));
    event.reserved_tokens = Some(admitted.reserved_tokens());
    event.regained_tokens = Some(admitted.regained_tokens).filter(|regained| *regained > 0);
    event.admit_ms = Some(app.clock.now_ms().saturating_sub(attempted_ms));
    match route::route(&app, &ask, &admitted, permit).await {
        Ok(routed) => Ok(respond::respond(&app, Arc::clone(&ask), admitted, routed, event, started_ms).await),
        Err(failed) => {
            let mut receipt = admitted.give_back(&app, failed.may_be_billed).await;
            let (name, charged) = failed.pool.unzip();
            (receipt.pool_name, receipt.pool) = (name, charged.flatten());
            let receipt = failed.may_be_billed.then(|| Box::new(receipt));
            Err(ServeError { problem: failed.problem, receipt })
        }
    }
}
