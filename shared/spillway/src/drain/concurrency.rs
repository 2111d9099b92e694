//! How many jobs of one tenant run at once, over all drains.

use std::sync::Arc;

use tracing::warn;

use crate::{
    app::App,
    broker::account_for_running_jobs,
    job::Job,
    quota::{Charge, Settled},
    store::ledger::{Held, ReserveOutcome},
    tenant::Tenant,
    units::Millis,
};

/// Whether one more job of a tenant may run.
pub enum Slot {
    /// The tenant says nothing about it.
    Free,
    /// It may, and this is given back when it is done.
    Held { held: Held, tenant: Arc<Tenant>, since_ms: u64 },
    /// Not before this time, in milliseconds since 1970.
    NotYet { until_ms: u64 },
}

/// One request of a tenant, and nothing of its limits.
const ONE: Charge = Charge { requests: 1, minute_tokens: 0, day_tokens: 0, cost_microusd: 0 };

/// When limits that are being changed are worth another look, in milliseconds.
const CHANGING_MS: u64 = 1_000;

/// Takes a slot for `job` that frees itself at `lease_ends_ms`, should this process die.
///
/// # Errors
/// The registry or the ledger cannot be reached.
pub async fn take(app: &App, job: &Job, lease_ends_ms: u64) -> anyhow::Result<Slot> {
    // A tenant that is gone is the broker's to tell.
    let Some(tenant) = app.registry.tenant(&job.tenant).await? else { return Ok(Slot::Free) };
    let (Some(at_once), Some(account)) = (tenant.drain_in_flight, account_for_running_jobs(&tenant)) else {
        return Ok(Slot::Free);
    };
    let since_ms = app.clock.now_ms();
    Ok(match app.ledger.reserve(&account, ONE, crate::units::UnixMs::from_ms(lease_ends_ms)).await? {
        ReserveOutcome::Reserved(held, _) => Slot::Held { held, tenant, since_ms },
        ReserveOutcome::Refused(..) => {
            Slot::NotYet { until_ms: app.concurrency.next_retry(&tenant.name, at_once).as_ms() }
        }
        ReserveOutcome::Busy => Slot::NotYet { until_ms: since_ms + CHANGING_MS },
        ReserveOutcome::Stale => {
            app.registry.forget(&tenant.name);
            Slot::NotYet { until_ms: since_ms + CHANGING_MS }
        }
    })
}

impl Slot {
    /// Gives it back. What fails to be given back expires with the lease.
    pub async fn give_back(self, app: &App) {
        let Self::Held { held, tenant, since_ms } = self else { return };
        app.concurrency.record_job(&tenant.name, Millis::from_ms(app.clock.now_ms().saturating_sub(since_ms)));
        if let Err(error) = app.ledger.settle(held, &Settled::refund()).await {
            warn!(%error, "the slot of a job was not given back and will expire");
        }
    }
}
