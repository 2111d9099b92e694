//! Settlement: replaces estimates by actual usage, on the tenant, its parent and the pool
//! concurrently.

use std::sync::Arc;

use tracing::warn;

use super::{ModelRequest, admit::Admitted, estimate, outages::MetOutage};
use crate::{
    app::App,
    pool::Pool,
    quota::{Charged, Receipt, Reservation, Settled},
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
    /// The last outage that the request has met.
    pub outage: Option<MetOutage>,
    /// Number of earlier calls that may be billed as well.
    pub late_calls: u64,
}

impl Settlement {
    /// Settles all reservations and returns the final charges. Without `usage` the answer broke
    /// off: the most that the request can cost is charged, since the model may bill that. If
    /// `is_broken` with usage, the larger of the two is charged.
    pub async fn settle(self, app: &App, usage: Option<Usage>, is_broken: bool) -> Receipt {
        let Self { request, admitted, held, pool, outage, late_calls } = self;
        let outage = outage.map(MetOutage::to_pair);
        let actual = usage.map(|usage| estimate::actual(&request, &usage, &pool));
        let settle_held = async |held: HeldReservation, regained_tokens: u64, late_calls: u64| {
            let max = held.reservation().charge.in_full();
            let charge = match actual {
                Some(actual) if is_broken => actual.max(max),
                Some(actual) => actual,
                None => max,
            };
            let charge = charge.with_calls(max, late_calls);
            settle(app, held, Settled { charge, usage, regained_tokens, outage }, Some(&request.request_id)).await
        };
        let settle_if_held = async |held: Option<HeldReservation>, late_calls: u64| match held {
            Some(held) => Some(settle_held(held, 0, late_calls).await),
            None => None,
        };
        let (tenant, parent, pool_charge, ()) = tokio::join!(
            settle_held(admitted.held, admitted.regained_tokens, late_calls),
            settle_if_held(admitted.parent, late_calls),
            settle_if_held(held, 0),
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
    let Reservation { at, carries_over, .. } = *held.reservation();
    let charged = Charged { at, charge: settled.charge, carries_over };
    if let Err(error) = app.ledger.settle(held, &settled).await {
        warn!(request_id, %error, "failed to settle a reservation; it will expire");
    }
    charged
}

/// Gives back a reservation without an answer, except for `billed_calls` calls that may have been
/// billed. Passes on the outage that the request has met. Returns the remaining charge.
pub async fn give_back(app: &App, held: HeldReservation, billed_calls: u64, outage: Option<MetOutage>) -> Charged {
    let settled = Settled::unknown(held.reservation(), billed_calls);
    settle(app, held, Settled { outage: outage.map(MetOutage::to_pair), ..settled }, None).await
}

/// Gives back a reservation if there is one.
pub async fn give_back_if_held(
    app: &App,
    held: Option<HeldReservation>,
    billed_calls: u64,
    outage: Option<MetOutage>,
) -> Option<Charged> {
    match held {
        Some(held) => Some(give_back(app, held, billed_calls, outage).await),
        None => None,
    }
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
