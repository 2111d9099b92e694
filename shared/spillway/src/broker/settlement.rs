//! Settlement: replaces estimates by actual usage, on the tenant, its parent and the pool
//! concurrently.

use std::sync::Arc;

use tracing::warn;

use super::{ModelRequest, admit::Admitted, estimate};
use crate::{
    app::App,
    pool::Pool,
    quota::{Charged, Receipt, Settled},
    store::ledger::HeldReservation,
    tenant::RightSizing,
    usage::Usage,
};

/// The reservations to settle when an answer ends.
#[must_use = "an answer that is not settled holds its capacity until it expires"]
pub struct Settlement {
    pub request: Arc<ModelRequest>,
    pub admitted: Admitted,
    /// The reservation on the pool; `None` if it has no limits.
    pub held: Option<HeldReservation>,
    pub pool: Pool,
}

impl Settlement {
    /// Settles all reservations and returns the final charges. Without `usage` the answer broke
    /// off: the most that the request can cost is charged, since the model may bill that. If
    /// `is_broken` with usage, the larger of the two is charged.
    pub async fn settle(self, app: &App, usage: Option<Usage>, is_broken: bool) -> Receipt {
        let Self { request, admitted, held, pool } = self;
        let actual = usage.map(|usage| estimate::actual(&request, &usage, &pool));
        let settle_held = async |held: HeldReservation, regained_tokens: u64| {
            let max = held.reservation().charge.in_full();
            let charge = match actual {
                Some(actual) if is_broken => actual.max(max),
                Some(actual) => actual,
                None => max,
            };
            settle(app, held, Settled { charge, usage, regained_tokens }, Some(&request.request_id)).await
        };
        let settle_if_held = async |held: Option<HeldReservation>| match held {
            Some(held) => Some(settle_held(held, 0).await),
            None => None,
        };
        let (tenant, parent, pool_charge, ()) = tokio::join!(
            settle_held(admitted.held, admitted.regained_tokens),
            settle_if_held(admitted.parent),
            settle_if_held(held),
            async {
                if let Some(usage) = usage {
                    record_observation(app, &request, &admitted.plan, &usage).await;
                }
            }
        );
        Receipt { tenant: Some(tenant), parent, pool: pool_charge, pool_name: Some(pool.name) }
    }
}

/// Settles one reservation and returns the final charge. A failed write is not repeated, because it
/// may have taken effect. If it did not, the slot expires and the reserve stays charged. The log
/// then names the request with the missing usage.
pub async fn settle(app: &App, held: HeldReservation, settled: Settled, request_id: Option<&str>) -> Charged {
    let charged = Charged { at: held.reservation().at, charge: settled.charge };
    if let Err(error) = app.ledger.settle(held, &settled).await {
        warn!(request_id, %error, "failed to settle a reservation; it will expire");
    }
    charged
}

/// Gives back a reservation without an answer: all of it, or only its slot if a model may have been
/// billed. Returns the remaining charge.
pub async fn give_back(app: &App, held: HeldReservation, may_be_billed: bool) -> Charged {
    let settled = if may_be_billed { Settled::unknown(held.reservation()) } else { Settled::refund() };
    settle(app, held, settled, None).await
}

/// Adds the request to the history of its tenant and model, unless right-sizing is off.
async fn record_observation(app: &App, request: &ModelRequest, plan: &estimate::Plan, usage: &Usage) {
    if request.tenant.right_sizing == RightSizing::Off {
        return;
    }
    if let Err(error) = app.histories.add(&request.tenant.name, &request.model.name, plan.observation(usage)).await {
        warn!(%error, "failed to store observations of a history");
    }
}
