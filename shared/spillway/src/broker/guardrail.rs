//! Guardrails applied without a model. A call counts as one request of the tenant and takes no
//! tokens.

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
    units::{Millis, UnixMs},
};

/// Maximum duration of a guardrail call. Its reservation ends at the same time.
const TIMEOUT: Millis = Millis::from_s(20);

/// Result of a guardrail.
#[derive(Debug)]
pub struct GuardrailResult {
    /// The JSON body of Bedrock's reply.
    pub body: Bytes,
    /// State of the tenant's limits.
    pub limit_states: Vec<LimitState>,
    /// The charge for the call.
    pub receipt: Receipt,
}

/// Applies the guardrail `id` for `tenant`.
///
/// # Errors
/// Returns an error if the tenant has no room for a request, the guardrail does not exist, or
/// Bedrock is unavailable. Nothing is charged.
pub async fn apply_guardrail(
    app: &App,
    tenant: Arc<Tenant>,
    id: &str,
    version: &str,
    body: Bytes,
) -> Result<GuardrailResult, Problem> {
    let charge = Charge { requests: 1, ..Charge::default() };
    let deadline = app.clock.now() + TIMEOUT;
    let reserved = reserve(app, tenant, charge, deadline).await?;
    let applied = tokio::select! {
        biased;
        () = app.clock.sleep_until(deadline) => Err(Failure::timed_out()),
        applied = app.models.apply_guardrail(id, version, body) => applied,
    };
    let settled = match &applied {
        Ok(_) => Settled { charge, ..Settled::refund() },
        Err(_) => Settled::refund(),
    };
    let (held, view) = reserved.tenant;
    let settle_parent = async {
        match reserved.parent {
            Some((held, _)) => Some(settlement::settle(app, held, settled, None).await),
            None => None,
        }
    };
    let (tenant, parent) = tokio::join!(settlement::settle(app, held, settled, None), settle_parent);
    let receipt = Receipt { tenant: Some(tenant), parent, ..Receipt::default() };
    let body = applied.map_err(|failure| match failure {
        Failure::Throttled(_) => problems::guardrail_throttled(),
        failure => failure.into_problem(),
    })?;
    Ok(GuardrailResult { body, limit_states: view.states(app.clock.now()), receipt })
}

async fn reserve(app: &App, tenant: Arc<Tenant>, charge: Charge, deadline: UnixMs) -> Result<Reserved, Problem> {
    let payers = Payers::for_tenant(app, tenant).await?;
    if let Some(reserved) = payers.reserve(app, |_| charge, deadline).await? {
        return Ok(reserved);
    }
    let payers = payers.reload(app).await?;
    payers.reserve(app, |_| charge, deadline).await?.ok_or_else(problems::limits_changing)
}
