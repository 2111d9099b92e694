//! Which ledger item stands for whom, and how its limits are spread.

use crate::{
    pool::{Model, Pool},
    quota::{EPOCHS, Policy},
    store::ledger::Account,
    tenant::{Class, Tenant},
};

/// The item's shard: every item has one until its limit outgrows what one item can take.
const SHARD: u32 = 0;

/// A tenant may spend a minute's limit at once.
const TENANT_BURST_EPOCHS: u64 = EPOCHS;

/// A pool is spent evenly: a burst here would be refused by Bedrock, or echo every minute.
const POOL_BURST_EPOCHS: u64 = 1;

/// The account of `tenant`.
pub fn of_tenant(tenant: &Tenant) -> Account {
    Account {
        key: format!("T#{}#{SHARD}", tenant.name),
        policy: Policy {
            limits: tenant.limits,
            version: tenant.version,
            burst_epochs: TENANT_BURST_EPOCHS,
            share_percent: 100,
        },
    }
}

/// The account of `pool` of `model`, as far as a request of `class` may fill it.
pub fn of_pool(model: &Model, pool: &Pool, class: Class) -> Account {
    let share_percent = match class {
        Class::Interactive => 100,
        Class::Standard => 90,
        Class::Batch => 70,
    };
    Account {
        key: format!("P#{}#{}#{SHARD}", model.name, pool.name),
        policy: Policy { limits: pool.limits, version: model.version, burst_epochs: POOL_BURST_EPOCHS, share_percent },
    }
}
