//! A guardrail applied by itself: it counts as a request of the tenant, and takes no tokens.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    admit::{Payers, Reserved},
    problems, settlement,
};
use crate::{
    app::App,
    model::Failure,
    problem::Problem,
    quota::{Charge, LimitState, Receipt, Settled},
    tenant::Tenant,
};

/// How long a guardrail may take, in milliseconds. Its call and its reservation end then.
const TIMEOUT_MS: u64 = 20_000;

/// What a guardrail said.
#[derive(Debug)]
pub struct Applied {
    /// The JSON body of Bedrock's reply.
    pub body: Bytes,
    /// Where the tenant's limits stand.
    pub limits: Vec<LimitState>,
    /// What it is charged.
    pub receipt: Receipt,
}

/// Applies the guardrail `id` for `tenant`.
///
/// # Errors
/// The tenant has no room for a request, there is no such guardrail, or Bedrock cannot be reached; nothing is charged.
pub async fn apply_guardrail(
    app: &App,
    tenant: Arc<Tenant>,
    id: &str,
    version: &str,
    body: Bytes,
) -> Result<Applied, Problem> {
    let charge = Charge { requests: 1, ..Charge::default() };
    let deadline_ms = app.clock.now_ms() + TIMEOUT_MS;
    let reserved = reserve(app, tenant, charge, deadline_ms).await?;
    let applied = tokio::select! {
        biased;
        () = app.clock.sleep_until(crate::units::UnixMs::from_ms(deadline_ms)) => Err(Failure::timed_out()),
        applied = app.models.apply_guardrail(id, version, body) => applied,
    };
    let settled = match &applied {
        Ok(_) => Settled { charge, ..Settled::refund() },
        Err(_) => Settled::refund(),
    };
    let (held, view) = reserved.tenant;
    let parent = async {
        match reserved.parent {
            Some((held, _)) => Some(settlement::settle(app, held, settled, None).await),
            None => None,
        }
    };
    let (of_tenant, parent) = tokio::join!(settlement::settle(app, held, settled, None), parent);
    let receipt = Receipt { tenant: Some(of_tenant), parent, ..Receipt::default() };
    let body = applied.map_err(|failure| match failure {
        Failure::Throttled => problems::guardrail_throttled(),
        failure => failure.into_problem(),
    })?;
    Ok(Applied { body, limits: view.states(app.clock.now()), receipt })
}

async fn reserve(app: &App, tenant: Arc<Tenant>, charge: Charge, deadline_ms: u64) -> Result<Reserved, Problem> {
    let payers = Payers::of(app, tenant).await?;
    if let Some(reserved) = payers.reserve(app, |_| charge, deadline_ms).await? {
        return Ok(reserved);
    }
    let payers = payers.read_again(app).await?;
    payers.reserve(app, |_| charge, deadline_ms).await?.ok_or_else(problems::limits_changing)
}
