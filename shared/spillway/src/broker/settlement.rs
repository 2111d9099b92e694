//! Replaces estimates by what really happened, on the tenant and on the pool at once.

use tracing::warn;

use super::{admit::Admitted, estimate};
use crate::{
    app::App,
    chat::Usage,
    pool::Pool,
    quota::{Charge, Settled},
    store::ledger::Held,
};

/// Everything that an answer owes when it ends.
#[must_use = "an answer that is not settled holds its capacity until it expires"]
pub struct Settlement {
    pub admitted: Admitted,
    pub held: Option<Held>,
    pub pool: Pool,
}

impl Settlement {
    /// Settles both reservations; gives the cost that the tenant is charged, in micro-USD. Without `usage` the answer
    /// broke off: the reserve stays charged, since it is at least what the model may bill.
    pub async fn settle(self, app: &App, usage: Option<Usage>) -> u64 {
        let Self { admitted, held, pool } = self;
        let actual = usage.map(|usage| estimate::actual(&usage, &pool));
        let settled = |reserve: Charge| Settled { charge: actual.unwrap_or(reserve), usage };
        let of_tenant = settled(admitted.held.reservation().charge);
        let of_pool = async {
            if let Some(held) = held {
                let of_pool = settled(held.reservation().charge);
                settle(app, held, &of_pool).await;
            }
        };
        tokio::join!(settle(app, admitted.held, &of_tenant), of_pool);
        of_tenant.charge.cost_microusd
    }
}

/// Settles one reservation. A failure is not repeated: the write may have happened, and if it did not, the slot expires
/// and the reserve stays charged.
pub async fn settle(app: &App, held: Held, settled: &Settled) {
    if let Err(error) = app.ledger.settle(held, settled).await {
        warn!(error = format!("{error:#}"), "a reservation was not settled and will expire");
    }
}
