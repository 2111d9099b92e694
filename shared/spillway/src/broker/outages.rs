//! Outages of pools, which the processes share through the ledger.
//!
//! A request whose call met an outage settles its reservations anyway, and these writes carry the
//! outage: to the item of the tenant, of its parent, and of the pool if it has limits. Every
//! admission returns the tenant's item, so a process that has never called the pool learns of the
//! outage without a further read.

use sha2::{Digest, Sha256};
use tracing::warn;

use crate::{
    app::App,
    outage::Outage,
    pool::{Model, Pool},
    store::ledger::View,
    telemetry::PoolOutageEvent,
};

/// An outage that a request has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetOutage {
    /// Number of the pool.
    pub pool: u64,
    pub outage: Outage,
}

impl MetOutage {
    /// The pool's number and the outage, as a settlement takes them.
    pub fn to_pair(self) -> (u64, Outage) {
        (self.pool, self.outage)
    }
}

/// Takes over the outages in the item of an account.
pub fn learn(app: &App, model: &Model, view: &View) {
    for (number, outage) in view.outages() {
        let pools = model.ladder.iter().filter(|pool| pool_number(model, pool) == number);
        pools.for_each(|pool| app.health.learn(model, pool, outage));
    }
}

/// Logs and counts an outage of `pool` that begins. Returns it for the ledger.
pub fn report(app: &App, model: &Model, pool: &Pool, outage: Outage) -> MetOutage {
    let (cause, lasts) = (outage.cause.name(), outage.until - app.clock.now());
    warn!(model = model.name, pool = pool.name, model_id = pool.model_id, cause, lasts_ms = %lasts, "a pool is out");
    app.telemetry.record_outage(PoolOutageEvent {
        model: model.name.clone(),
        pool: pool.name.clone(),
        cause,
        pool_outage_ms: lasts,
        outages_in_a_row: outage.streak,
    });
    MetOutage { pool: pool_number(model, pool), outage }
}

/// Number of a pool in the ledger. Two pools with the same number would share their outages. With
/// 40 bits that is unlikely, and it costs no more than a passed-over pool.
fn pool_number(model: &Model, pool: &Pool) -> u64 {
    let digest = Sha256::new().chain_update(&model.name).chain_update("#").chain_update(&pool.name).finalize();
    digest.iter().take(5).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
