//! The limit of jobs of one tenant that run concurrently in all drains.

use std::sync::Arc;

use tracing::warn;

use crate::{
    app::App,
    broker::account_for_running_jobs,
    job::Job,
    quota::{Charge, Settled},
    store::ledger::{HeldReservation, ReserveOutcome},
    tenant::Tenant,
    units::{Millis, UnixMs},
};

/// Whether one more job of a tenant can run.
pub enum Slot {
    /// The tenant has no limit.
    Unlimited,
    /// The job can run. It gives the slot back when it is done.
    Held { held: HeldReservation, tenant: Arc<Tenant>, since: UnixMs },
    /// The tenant runs as many jobs as it may.
    Full { retry_at: UnixMs },
}

/// The charge of a running job.
const ONE_REQUEST: Charge = Charge { requests: 1, ..Charge::ZERO };

/// Time until the next try if the limit is being changed, or its ledger item is contended.
const RETRY_AFTER: Millis = Millis::from_s(1);

/// Takes a slot for `job`. It becomes free at `lease_ends` if this process dies.
///
/// # Errors
/// Returns an error if the registry or the ledger is unavailable.
pub async fn take(app: &App, job: &Job, lease_ends: UnixMs) -> anyhow::Result<Slot> {
    // If the tenant no longer exists, the attempt reports it.
    let Some(tenant) = app.registry.tenant(&job.tenant).await? else { return Ok(Slot::Unlimited) };
    let (Some(max_in_flight), Some(account)) = (tenant.drain_in_flight, account_for_running_jobs(&tenant)) else {
        return Ok(Slot::Unlimited);
    };
    let since = app.clock.now();
    Ok(match app.ledger.reserve(&account, ONE_REQUEST, lease_ends).await? {
        ReserveOutcome::Reserved(held, _) => Slot::Held { held, tenant, since },
        ReserveOutcome::Refused(..) => Slot::Full { retry_at: app.concurrency.next_retry(&tenant.name, max_in_flight) },
        ReserveOutcome::Busy => Slot::Full { retry_at: since + RETRY_AFTER },
        ReserveOutcome::Stale => {
            app.registry.forget(&tenant.name);
            Slot::Full { retry_at: since + RETRY_AFTER }
        }
    })
}

impl Slot {
    /// Gives the slot back. If this fails, the slot becomes free when the lease ends.
    pub async fn give_back(self, app: &App) {
        let Self::Held { held, tenant, since } = self else { return };
        app.concurrency.record_job(&tenant.name, app.clock.now() - since);
        if let Err(error) = app.ledger.settle(held, &Settled::refund()).await {
            warn!(%error, "failed to give back the slot of a job; it will expire");
        }
    }
}
