//! Replaces estimates by what really happened, on the tenant, its parent and the pool at once.

use std::sync::Arc;

use tracing::warn;

use super::{Ask, admit::Admitted, estimate};
use crate::{
    app::App,
    pool::Pool,
    quota::{Charged, Receipt, Settled},
    store::ledger::Held,
    tenant::RightSizing,
    usage::Usage,
};

/// Everything that an answer owes when it ends.
#[must_use = "an answer that is not settled holds its capacity until it expires"]
pub struct Settlement {
    pub ask: Arc<Ask>,
    pub admitted: Admitted,
    pub held: Option<Held>,
    pub pool: Pool,
}

impl Settlement {
    /// Settles all reservations and says what is charged in the end. Without `usage` the answer broke off: the reserve stays
    /// charged, since it is at least what the model may bill. If it `broke` off with usage, the larger of the two is charged.
    pub async fn settle(self, app: &App, usage: Option<Usage>, broke: bool) -> Receipt {
        let Self { ask, admitted, held, pool } = self;
        let actual = usage.map(|usage| estimate::actual(&usage, &pool));
        let settle_one = async |held: Held, regained_tokens: u64| {
            let reserve = held.reservation().charge;
            let charge = match actual {
                Some(actual) if broke => actual.max(reserve),
                Some(actual) => actual,
                None => reserve,
            };
            settle(app, held, Settled { charge, usage, regained_tokens }, Some(&ask.request_id)).await
        };
        let settle_if_held = async |held: Option<Held>| match held {
            Some(held) => Some(settle_one(held, 0).await),
            None => None,
        };
        let (tenant, parent, of_pool, ()) = tokio::join!(
            settle_one(admitted.held, admitted.regained_tokens),
            settle_if_held(admitted.parent),
            settle_if_held(held),
            async {
                if let Some(usage) = usage {
                    learn(app, &ask, &admitted.plan, &usage).await;
                }
            }
        );
        Receipt { tenant: Some(tenant), parent, pool: of_pool, pool_name: Some(pool.name) }
    }
}

/// Settles one reservation; says what it comes to. A failure is not repeated: the write may have happened, and if it did
/// not, the slot expires and the reserve stays charged. The log then names the request whose usage may be missing.
pub async fn settle(app: &App, held: Held, settled: Settled, request_id: Option<&str>) -> Charged {
    let charged = Charged { at: held.reservation().at, charge: settled.charge };
    if let Err(error) = app.ledger.settle(held, &settled).await {
        warn!(request_id, %error, "a reservation was not settled and will expire");
    }
    charged
}

/// Gives back a reservation that no answer came of: whole, or only its slot if a model may have been billed. Says what stays
/// charged.
pub async fn give_back(app: &App, held: Held, may_be_billed: bool) -> Charged {
    let settled = if may_be_billed { Settled::unknown(held.reservation()) } else { Settled::refund() };
    settle(app, held, settled, None).await
}

async fn learn(app: &App, ask: &Ask, plan: &estimate::Plan, usage: &Usage) {
    if ask.tenant.right_sizing == RightSizing::Off {
        return;
    }
    if let Err(error) = app.histories.add(&ask.tenant.name, &ask.model.name, plan.observation(usage)).await {
        warn!(%error, "failed to store observations of a history");
    }
}
