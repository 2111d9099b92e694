//! Replaces estimates by what really happened, on the tenant, its parent and the pool at once.

use tracing::warn;

use super::{admit::Admitted, estimate};
use crate::{app::App, chat::Usage, pool::Pool, quota::Settled, store::ledger::Held};

/// Everything that an answer owes when it ends.
#[must_use = "an answer that is not settled holds its capacity until it expires"]
pub struct Settlement {
    pub admitted: Admitted,
    pub held: Option<Held>,
    pub pool: Pool,
}

impl Settlement {
    /// Settles all reservations; gives the cost that the tenant is charged, in micro-USD. Without `usage` the answer broke
    /// off: the reserve stays charged, since it is at least what the model may bill. If it `broke` off with usage, the
    /// larger of the two is charged.
    pub async fn settle(self, app: &App, usage: Option<Usage>, broke: bool) -> u64 {
        let Self { admitted, held, pool } = self;
        let actual = usage.map(|usage| estimate::actual(&usage, &pool));
        let settle_one = async |held: Held| {
            let reserve = held.reservation().charge;
            let charge = match actual {
                Some(actual) if broke => actual.dearest(reserve),
                Some(actual) => actual,
                None => reserve,
            };
            settle(app, held, &Settled { charge, usage, regained_tokens: 0 }).await;
            charge.cost_microusd
        };
        let settle_if_held = async |held: Option<Held>| {
            if let Some(held) = held {
                settle_one(held).await;
            }
        };
        let (cost_microusd, (), ()) =
            tokio::join!(settle_one(admitted.held), settle_if_held(admitted.parent), settle_if_held(held));
        cost_microusd
    }
}

/// Settles one reservation. A failure is not repeated: the write may have happened, and if it did not, the slot expires
/// and the reserve stays charged.
pub async fn settle(app: &App, held: Held, settled: &Settled) {
    if let Err(error) = app.ledger.settle(held, settled).await {
        warn!(error = format!("{error:#}"), "a reservation was not settled and will expire");
    }
}
