//! The limits of the tenant and of the organisation it belongs to: both hold, or nothing is charged.

use std::sync::Arc;

use tracing::warn;

use super::{Ask, Plan, accounts, problems, settlement};
use crate::{
    app::App,
    problem::Problem,
    quota::{Charge, Charged, History, LimitState, Receipt},
    store::{
        LedgerError,
        ledger::{Held, ReserveOutcome, View},
    },
    tenant::{RightSizing, Tenant},
    units::UnixMs,
};

/// A request that fits its tenant's limits, and its parent's.
#[must_use = "an admission holds capacity until it is settled"]
pub struct Admitted {
    pub plan: Plan,
    /// When the attempt must be over, in milliseconds since 1970: its reservations expire then, and its call and its stream
    /// are cut off.
    pub deadline_ms: u64,
    pub held: Held,
    /// The reservation on the tenant's parent, if it has one.
    pub parent: Option<Held>,
    /// Where the tenant's limits stand.
    pub limits: Vec<LimitState>,
    /// Whether the tenant, or its parent, is above its committed share of the pools.
    pub is_excess: bool,
    /// Quota tokens that the tenant did not reserve because its recent answers were shorter than what was asked.
    pub regained_tokens: u64,
}

impl Admitted {
    /// Quota tokens reserved on the tenant.
    pub fn reserved_tokens(&self) -> u64 {
        self.held.reservation().charge.minute_tokens
    }

    /// Gives the reservations back because no pool answered: whole, or only their slots if a model may have been billed.
    /// Says what stays charged.
    pub async fn give_back(self, app: &App, may_be_billed: bool) -> Receipt {
        let give_back = async |held: Held| settlement::give_back(app, held, may_be_billed).await;
        let give_back_if_held = async |held: Option<Held>| match held {
            Some(held) => Some(give_back(held).await),
            None => None,
        };
        let (tenant, parent) = tokio::join!(give_back(self.held), give_back_if_held(self.parent));
        let if_charged = |charged: Charged| Some(charged).filter(|charged| !charged.charge.is_zero());
        Receipt { tenant: if_charged(tenant), parent: parent.and_then(if_charged), ..Receipt::default() }
    }
}

/// Who pays for a request.
pub struct Payers {
    tenant: Arc<Tenant>,
    parent: Option<Arc<Tenant>>,
}

/// What is reserved on them, and where their limits stand.
pub struct Reserved {
    pub tenant: (Held, View),
    pub parent: Option<(Held, View)>,
}

/// Reserves for `ask` on its tenant and on that one's parent. When the ledger knows newer limits than the registry cache,
/// those are read and tried once.
///
/// # Errors
/// The request can never fit, does not fit now, or the ledger cannot be reached.
pub async fn admit(app: &App, ask: &Ask) -> Result<Admitted, Problem> {
    let deadline_ms = ask.attempt_deadline_ms(app.clock.now_ms());
    let payers = Payers::of(app, ask.tenant.clone()).await?;
    if let Some(admitted) = reserve(app, ask, &payers, deadline_ms).await? {
        return Ok(admitted);
    }
    let payers = payers.read_again(app).await?;
    reserve(app, ask, &payers, deadline_ms).await?.ok_or_else(problems::limits_changing)
}

/// Plans `ask` without reserving anything.
///
/// # Errors
/// The request can never fit.
pub async fn check(app: &App, ask: &Ask) -> Result<(), Problem> {
    let Payers { tenant, parent } = Payers::of(app, ask.tenant.clone()).await?;
    Plan::new(ask, &tenant, parent.as_deref(), &History::default()).map(drop)
}

impl Payers {
    pub async fn of(app: &App, tenant: Arc<Tenant>) -> Result<Self, Problem> {
        let Some(name) = &tenant.parent else { return Ok(Self { tenant, parent: None }) };
        let parent = app.registry.tenant(name).await?;
        let parent = parent.ok_or_else(|| problems::parent_missing(&tenant.name, name))?;
        Ok(Self { tenant, parent: Some(parent) })
    }

    pub async fn read_again(self, app: &App) -> Result<Self, Problem> {
        for stale in [Some(&self.tenant), self.parent.as_ref()].into_iter().flatten() {
            app.registry.forget(&stale.name);
        }
        let tenant = app.registry.tenant(&self.tenant.name).await;
        let tenant = tenant?;
        Self::of(app, tenant.ok_or_else(problems::tenant_deleted)?).await
    }

    /// Reserves on both what `charge` says, or on neither; `None` if the limits of one of them are out of date.
    ///
    /// # Errors
    /// One of them has no room, or the ledger cannot be reached.
    pub async fn reserve(
        &self,
        app: &App,
        charge: impl Fn(&Tenant) -> Charge,
        expires_ms: u64,
    ) -> Result<Option<Reserved>, Problem> {
        let Some(tenant) = reserve_on(app, &self.tenant, charge(&self.tenant), expires_ms).await? else {
            return Ok(None);
        };
        let Some(parent) = &self.parent else { return Ok(Some(Reserved { tenant, parent: None })) };
        match reserve_on(app, parent, charge(parent), expires_ms).await {
            Ok(Some(parent)) => Ok(Some(Reserved { tenant, parent: Some(parent) })),
            refused => {
                settlement::give_back(app, tenant.0, false).await;
                refused.map(|_| None)
            }
        }
    }
}

/// `None` if the limits of one of the payers are out of date.
async fn reserve(app: &App, ask: &Ask, payers: &Payers, deadline_ms: u64) -> Result<Option<Admitted>, Problem> {
    let Payers { tenant, parent } = payers;
    let history = history(app, ask, tenant).await;
    let plan = Plan::new(ask, tenant, parent.as_deref(), &history)?;
    let charge = |payer: &Tenant| plan.tenant_charge(payer, &ask.model);
    let Some(reserved) = payers.reserve(app, charge, deadline_ms).await? else { return Ok(None) };
    let now = app.clock.now();
    let Reserved { tenant: (held, view), parent: of_parent } = reserved;
    let is_parent_excess = parent.as_ref().zip(of_parent.as_ref());
    let is_parent_excess = is_parent_excess.is_some_and(|(parent, (_, view))| is_excess(parent, view, now));
    Ok(Some(Admitted {
        deadline_ms,
        held,
        parent: of_parent.map(|(held, _)| held),
        limits: view.states(now),
        is_excess: is_excess(tenant, &view, now) || is_parent_excess,
        regained_tokens: plan.regained_tokens(tenant, &ask.model),
        plan,
    }))
}

async fn reserve_on(
    app: &App,
    payer: &Tenant,
    charge: Charge,
    expires_ms: u64,
) -> Result<Option<(Held, View)>, Problem> {
    let reserved = app.ledger.reserve(&accounts::for_tenant(payer), charge, UnixMs::from_ms(expires_ms)).await;
    match reserved.map_err(LedgerError)? {
        ReserveOutcome::Reserved(held, view) => Ok(Some((held, view))),
        ReserveOutcome::Refused(refused, view) => {
            Err(problems::limits_reached(&payer.name, &refused, view.states(app.clock.now())))
        }
        ReserveOutcome::Busy => Err(problems::ledger_contended(&payer.name)),
        ReserveOutcome::Stale => Ok(None),
    }
}

/// What recent requests tell about this one, if its tenant wants to know. Without an answer it reserves what it asks for.
async fn history(app: &App, ask: &Ask, tenant: &Tenant) -> History {
    if tenant.right_sizing == RightSizing::Off {
        return History::default();
    }
    let recent = app.histories.recent(&tenant.name, &ask.model.name).await;
    recent.unwrap_or_else(|error| {
        warn!(%error, "a history was not read");
        History::default()
    })
}

/// Whether `payer` uses more than its committed share of the pools.
fn is_excess(payer: &Tenant, view: &View, now: UnixMs) -> bool {
    payer.committed_tokens_per_minute.is_some_and(|committed| view.minute_tokens(now) > committed)
}
