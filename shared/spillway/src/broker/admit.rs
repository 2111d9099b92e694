//! The tenant's own limits: one write, all or nothing.

use super::{Ask, Plan, accounts, refusal};
use crate::{
    app::App,
    chat::Problem,
    quota::{self, LimitState, Settled},
    store::ledger::{Held, Outcome},
};

/// A request that fits its tenant's limits.
#[must_use = "an admission holds capacity until it is settled"]
pub struct Admitted {
    pub plan: Plan,
    pub held: Held,
    pub limits: Vec<LimitState>,
}

impl Admitted {
    /// Quota tokens reserved on the tenant.
    pub fn reserved_tokens(&self) -> u64 {
        self.held.reservation().charge.quota_tokens
    }

    /// Gives the reservation back because no pool answered: whole, or only its slot if a model may have been billed.
    pub async fn give_back(self, app: &App, may_be_billed: bool) {
        let settled = if may_be_billed { Settled::unknown(self.held.reservation()) } else { Settled::nothing() };
        super::settlement::settle(app, self.held, &settled).await;
    }
}

/// Reserves for `ask` on its tenant. When the ledger knows newer limits than the registry cache, those are read and
/// tried once.
///
/// # Errors
/// The request can never fit, does not fit now, or the ledger cannot be reached.
pub async fn admit(app: &App, ask: &Ask) -> Result<Admitted, Problem> {
    let mut tenant = ask.tenant.clone();
    for is_second in [false, true] {
        if is_second {
            app.registry.forget(&tenant.name);
            tenant = app
                .registry
                .tenant(&ask.tenant.name)
                .await
                .map_err(|error| refusal::unreachable("registry", &error))?
                .ok_or_else(refusal::tenant_gone)?;
        }
        let plan = Plan::new(ask, &tenant)?;
        let account = accounts::of_tenant(&tenant);
        let expires_ms = expires_ms(app, ask);
        let reserved = app.ledger.reserve(&account, plan.tenant_charge(&ask.model), expires_ms).await;
        match reserved.map_err(|error| refusal::unreachable("ledger", &error))? {
            Outcome::Reserved(held, image) => {
                let limits = quota::states(&account.policy, &image, app.clock.now_ms());
                return Ok(Admitted { plan, held, limits });
            }
            Outcome::Refused(refused, image) => {
                let limits = quota::states(&account.policy, &image, app.clock.now_ms());
                return Err(refusal::of_tenant(&tenant.name, &refused, limits));
            }
            Outcome::Stale => {}
        }
    }
    Err(refusal::changing_limits())
}

/// When the reservation of `ask` expires by itself: when the model's time is up, or this process's.
pub fn expires_ms(app: &App, ask: &Ask) -> u64 {
    let model_ms = app.clock.now_ms() + ask.model.timeout_ms;
    ask.deadline_ms.map_or(model_ms, |deadline_ms| deadline_ms.min(model_ms))
}
