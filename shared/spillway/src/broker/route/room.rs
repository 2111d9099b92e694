//! Room in a pool: its reservation.

use super::Failed;
use crate::{
    app::App,
    broker::{ModelRequest, accounts, admit::Admitted},
    pool::Pool,
    quota::{self, Refusal},
    store::ledger::{HeldReservation, ReserveOutcome, View},
    units::Millis,
};

/// Time until the next try of a pool whose ledger items have too many concurrent writes.
const CONTENDED_RETRY_AFTER: Millis = Millis::from_s(1);

/// Whether a pool has room for a request.
pub(super) enum Room {
    /// The pool has no limits.
    Unlimited,
    /// The reservation, and the view of the pool's item.
    Held(Box<(HeldReservation, View)>),
    Full {
        retry_after: Millis,
        /// The limit that is reached, or what else keeps the request out.
        reason: &'static str,
    },
    /// The request is larger than the pool's limits.
    TooSmall,
    /// The ledger has seen newer limits of the pool.
    Stale,
}

/// Reserves for the request on `pool`.
pub(super) async fn reserve(
    app: &App,
    request: &ModelRequest,
    admitted: &Admitted,
    pool: &Pool,
) -> Result<Room, Failed> {
    if pool.limits.is_unlimited() {
        return Ok(Room::Unlimited);
    }
    let charge = admitted.plan.pool_charge(pool);
    if !quota::too_large(&pool.limits, &charge).is_empty() {
        return Ok(Room::TooSmall);
    }
    let share_percent = pool.share_percent(request.class, admitted.is_excess);
    let account = accounts::for_pool(&request.model, pool, share_percent);
    match app.ledger.reserve(&account, charge, admitted.deadline).await {
        Ok(ReserveOutcome::Reserved(held, view)) => Ok(Room::Held(Box::new((held, view)))),
        Ok(ReserveOutcome::Refused(refusal, _)) => {
            Ok(Room::Full { retry_after: refusal.retry_after(), reason: first_limit(&refusal) })
        }
        // A retry would only add to the contention: a pool with too many concurrent writes is too
        // busy to serve.
        Ok(ReserveOutcome::Busy) => Ok(Room::Full { retry_after: CONTENDED_RETRY_AFTER, reason: "contended" }),
        Ok(ReserveOutcome::Stale) => Ok(Room::Stale),
        Err(error) => Err(Failed::unbilled(error.into())),
    }
}

/// Returns the name of the limit that refuses for the longest time.
fn first_limit(refusal: &Refusal) -> &'static str {
    refusal.limits.first().map_or("full", |refused| refused.limit.name())
}
