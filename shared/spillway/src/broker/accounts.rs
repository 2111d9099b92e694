//! Which ledger items stand for whom, and how their limits are spread.

use crate::{
    pool::{Model, Pool},
    quota::{self, Limits, Policy},
    store::ledger::{Account, drain_account, pool_account, tenant_account},
    tenant::Tenant,
};

/// The writes that a request costs its tenant: the reservation and the settlement.
const TENANT_WRITES: u64 = 2;

/// The writes that a request costs a pool, with those that a pool in demand refuses: its shards are sized by attempts.
const POOL_WRITES: u64 = 4;

/// The account of `tenant`.
pub fn of_tenant(tenant: &Tenant) -> Account {
    Account {
        name: tenant_account(&tenant.name),
        policy: Policy { limits: tenant.limits, version: tenant.version, burst: tenant.burst(), share_percent: 100 },
        shards: quota::shards(&tenant.limits, TENANT_WRITES),
    }
}

/// The account of the jobs of `tenant` that run, if only so many may.
pub fn of_drained(tenant: &Tenant) -> Option<Account> {
    let limits = Limits { in_flight: Some(tenant.drain_in_flight?), ..Limits::default() };
    Some(Account {
        name: drain_account(&tenant.name),
        policy: Policy { limits, version: tenant.version, burst: tenant.burst(), share_percent: 100 },
        shards: quota::shards(&limits, TENANT_WRITES),
    })
}

/// The account of `pool` of `model`, as far as a request may fill it that may take `share_percent` of it.
pub fn of_pool(model: &Model, pool: &Pool, share_percent: u64) -> Account {
    Account {
        name: pool_account(&model.name, &pool.name),
        policy: Policy { limits: pool.limits, version: model.version, burst: pool.burst(), share_percent },
        shards: quota::shards(&pool.limits, POOL_WRITES),
    }
}
