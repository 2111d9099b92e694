//! Capacity for further requests of one size, without reserving anything.

use super::{
    ModelRequest, Plan, accounts,
    admit::{Payers, history},
    problems,
};
use crate::{
    app::App,
    problem::Problem,
    quota::{Capacity, Charge},
    tenant::Tenant,
    units::UnixMs,
};

/// Finds when requests like `request` fit the limits of its tenant and of the parent, until `until`
/// and for up to `max` requests. It reads one item for each shard.
///
/// # Errors
/// Returns an error if such a request can never fit, or if the ledger is unavailable.
pub async fn capacity(app: &App, request: &ModelRequest, until: UnixMs, max: usize) -> Result<Capacity, Problem> {
    let payers = Payers::for_tenant(app, request.tenant.clone()).await?;
    if let Some(capacity) = for_payers(app, request, &payers, until, max).await? {
        return Ok(capacity);
    }
    let payers = payers.reload(app).await?;
    for_payers(app, request, &payers, until, max).await?.ok_or_else(problems::limits_changing)
}

/// Returns `None` if the limits of one payer are out of date.
async fn for_payers(
    app: &App,
    request: &ModelRequest,
    payers: &Payers,
    until: UnixMs,
    max: usize,
) -> Result<Option<Capacity>, Problem> {
    let Payers { tenant, parent } = payers;
    let history = history(app, request, tenant).await;
    let plan = Plan::new(request, tenant, parent.as_deref(), &history)?;
    let charge = |payer: &Tenant| plan.tenant_charge(payer, &request.model);
    let period = (app.clock.now(), until);
    let Some(capacity) = on(app, tenant, &charge(tenant), period, max).await? else { return Ok(None) };
    let Some(parent) = parent else { return Ok(Some(capacity)) };
    Ok(on(app, parent, &charge(parent), period, max).await?.map(|of_parent| capacity.and(of_parent)))
}

async fn on(
    app: &App,
    payer: &Tenant,
    charge: &Charge,
    period: (UnixMs, UnixMs),
    max: usize,
) -> Result<Option<Capacity>, Problem> {
    let account = accounts::for_tenant(payer);
    let images = app.ledger.images(&account).await?;
    Ok(account.capacity(&images, charge, period, max))
}
