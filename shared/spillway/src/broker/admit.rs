//! Admission: reserves on the tenant and on its organisation. Both have room, or nothing is
//! charged.

use std::sync::Arc;

use tracing::warn;

use super::{
    ModelRequest, Plan, accounts,
    outages::{self, MetOutage},
    problems, settlement,
};
use crate::{
    app::App,
    heavy_work,
    problem::Problem,
    quota::{Charge, Charged, History, LimitState, Receipt},
    store::ledger::{HeldReservation, ReserveOutcome, View},
    tenant::{RightSizing, Tenant},
    units::UnixMs,
};

/// A request that fits the limits of its tenant and of the parent.
#[must_use = "an admission holds capacity until it is settled"]
pub struct Admitted {
    pub plan: Plan,
    /// Deadline of the attempt: its reservations expire then, and its call and its stream are cut
    /// off.
    pub deadline: UnixMs,
    /// The reservation on the tenant.
    pub held: HeldReservation,
    /// The reservation on the tenant's parent, if it has one.
    pub parent: Option<HeldReservation>,
    /// State of the tenant's limits.
    pub limit_states: Vec<LimitState>,
    /// Whether the tenant, or its parent, is above its committed share of the pools.
    pub is_excess: bool,
    /// Quota tokens that the tenant did not reserve because recent answers were shorter than the
    /// output cap.
    pub regained_tokens: u64,
}

impl Admitted {
    /// Returns the quota tokens reserved on the tenant.
    pub fn reserved_tokens(&self) -> u64 {
        self.held.reservation().charge.minute_tokens
    }

    /// Gives the reservations back because no pool answered, except for `billed_calls` calls that
    /// may have been billed. Passes on the outage that the request has met. Returns the remaining
    /// charges.
    pub async fn give_back(self, app: &App, billed_calls: u64, outage: Option<MetOutage>) -> Receipt {
        let (tenant, parent) = tokio::join!(
            settlement::give_back(app, self.held, billed_calls, outage),
            settlement::give_back_if_held(app, self.parent, billed_calls, outage),
        );
        let if_charged = |charged: Charged| Some(charged).filter(|charged| !charged.charge.is_zero());
        Receipt { tenant: if_charged(tenant), parent: parent.and_then(if_charged), ..Receipt::default() }
    }
}

/// The tenant and the organisation that are charged for a request.
pub struct Payers {
    pub tenant: Arc<Tenant>,
    pub parent: Option<Arc<Tenant>>,
}

/// The reservations on the payers, each with the view of its limits.
pub struct Reserved {
    pub tenant: (HeldReservation, View),
    pub parent: Option<(HeldReservation, View)>,
}

/// Reserves for `request` on its tenant and on the parent. If the ledger has seen newer limits than
/// the registry cache, reloads the limits and tries again, once.
///
/// # Errors
/// Returns an error if the request can never fit, does not fit now, or the ledger is unavailable.
pub async fn admit(app: &App, request: &ModelRequest) -> Result<Admitted, Problem> {
    let deadline = request.attempt_deadline(app.clock.now());
    let payers = Payers::for_tenant(app, request.tenant.clone()).await?;
    if let Some(admitted) = reserve(app, request, &payers, deadline).await? {
        return Ok(admitted);
    }
    let payers = payers.reload(app).await?;
    reserve(app, request, &payers, deadline).await?.ok_or_else(problems::limits_changing)
}

/// Plans `request` without reserving anything.
///
/// # Errors
/// Returns an error if the request can never fit.
pub async fn check(app: &App, request: &ModelRequest) -> Result<(), Problem> {
    let Payers { tenant, parent } = Payers::for_tenant(app, request.tenant.clone()).await?;
    Plan::new(request, &tenant, parent.as_deref(), &History::default()).map(drop)
}

impl Payers {
    /// Reads the parent of `tenant`.
    pub async fn for_tenant(app: &App, tenant: Arc<Tenant>) -> Result<Self, Problem> {
        let parent = app.registry.parent_of(&tenant).await?;
        Ok(Self { tenant, parent })
    }

    /// Reads the tenant and the parent again, past the cache.
    pub async fn reload(self, app: &App) -> Result<Self, Problem> {
        for stale in [Some(&self.tenant), self.parent.as_ref()].into_iter().flatten() {
            app.registry.forget(&stale.name);
        }
        let tenant = app.registry.tenant(&self.tenant.name).await?;
        Self::for_tenant(app, tenant.ok_or_else(problems::tenant_deleted)?).await
    }

    /// Reserves `charge` on both payers, or on neither. Returns `None` if the limits of one payer
    /// are out of date.
    ///
    /// # Errors
    /// Returns an error if one payer has no room, or the ledger is unavailable.
    pub async fn reserve(
        &self,
        app: &App,
        charge: impl Fn(&Tenant) -> Charge,
        expires_at: UnixMs,
    ) -> Result<Option<Reserved>, Problem> {
        let Some(tenant) = reserve_on(app, &self.tenant, charge(&self.tenant), expires_at).await? else {
            return Ok(None);
        };
        let Some(parent) = &self.parent else { return Ok(Some(Reserved { tenant, parent: None })) };
        match reserve_on(app, parent, charge(parent), expires_at).await {
            Ok(Some(parent)) => Ok(Some(Reserved { tenant, parent: Some(parent) })),
            refused => {
                settlement::give_back(app, tenant.0, 0, None).await;
                refused.map(|_| None)
            }
        }
    }
}

/// Plans `request` and reserves for it. Returns `None` if the limits of one payer are out of date.
async fn reserve(
    app: &App,
    request: &ModelRequest,
    payers: &Payers,
    deadline: UnixMs,
) -> Result<Option<Admitted>, Problem> {
    let Payers { tenant, parent } = payers;
    let history = history(app, request, tenant).await;
    let plan = || Plan::new(request, tenant, parent.as_deref(), &history);
    let plan = heavy_work::run(request.body_bytes, plan)?;
    let charge = |payer: &Tenant| plan.tenant_charge(payer, &request.model);
    let Some(reserved) = payers.reserve(app, charge, deadline).await? else { return Ok(None) };
    let now = app.clock.now();
    let Reserved { tenant: (held, view), parent: held_on_parent } = reserved;
    for view in held_on_parent.iter().map(|(_, view)| view).chain([&view]) {
        outages::learn(app, &request.model, view);
    }
    let is_parent_excess = parent.as_ref().zip(held_on_parent.as_ref());
    let is_parent_excess = is_parent_excess.is_some_and(|(parent, (_, view))| is_excess(parent, view, now));
    let regained_tokens = plan.regained_tokens(&held.reservation().charge, tenant, &request.model);
    Ok(Some(Admitted {
        deadline,
        held,
        parent: held_on_parent.map(|(held, _)| held),
        limit_states: view.states(now),
        is_excess: is_excess(tenant, &view, now) || is_parent_excess,
        regained_tokens,
        plan,
    }))
}

/// Reserves `charge` on `payer`. Returns `None` if its limits are out of date.
async fn reserve_on(
    app: &App,
    payer: &Tenant,
    charge: Charge,
    expires_at: UnixMs,
) -> Result<Option<(HeldReservation, View)>, Problem> {
    match app.ledger.reserve(&accounts::for_tenant(payer), charge, expires_at).await? {
        ReserveOutcome::Reserved(held, view) => Ok(Some((held, view))),
        ReserveOutcome::Refused(refusal, view) => {
            Err(problems::limits_reached(&payer.name, &refusal, view.states(app.clock.now())))
        }
        ReserveOutcome::Busy => Err(problems::ledger_contended(&payer.name)),
        ReserveOutcome::Stale => Ok(None),
    }
}

/// Returns the history of recent requests to the model, if `tenant` uses right-sizing. If it cannot
/// be read, the request reserves its full output cap.
pub async fn history(app: &App, request: &ModelRequest, tenant: &Tenant) -> History {
    if tenant.right_sizing == RightSizing::Off {
        return History::default();
    }
    let recent = app.histories.recent(&tenant.name, &request.model.name).await;
    recent.unwrap_or_else(|error| {
        warn!(%error, "failed to read a history");
        History::default()
    })
}

/// Whether `payer` uses more than its committed share of the pools.
fn is_excess(payer: &Tenant, view: &View, now: UnixMs) -> bool {
    payer.committed_tokens_per_minute.is_some_and(|committed| view.minute_tokens(now) > committed)
}
