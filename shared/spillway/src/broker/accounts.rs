//! Ledger accounts of tenants, jobs and pools.

use crate::{
    pool::{Model, Pool},
    quota::{self, Limits, Policy},
    store::ledger::{Account, drain_account, pool_account, tenant_account},
    tenant::Tenant,
};

/// Ledger writes of a request on its tenant: the reservation and the settlement.
const TENANT_WRITES: u64 = 2;

/// Ledger writes of a request on a pool, including writes that a pool in demand refuses: attempts
/// determine the number of shards.
const POOL_WRITES: u64 = 4;

/// Returns the account of `tenant`.
pub fn for_tenant(tenant: &Tenant) -> Account {
    Account {
        name: tenant_account(&tenant.name),
        policy: Policy { limits: tenant.limits, version: tenant.version, burst: tenant.burst(), share_percent: 100 },
        shards: quota::shards(&tenant.limits, TENANT_WRITES),
    }
}

/// Returns the account of the running jobs of `tenant`, if their number is limited.
pub fn for_running_jobs(tenant: &Tenant) -> Option<Account> {
    let limits = Limits { in_flight: Some(tenant.drain_in_flight?), ..Limits::default() };
    Some(Account {
        name: drain_account(&tenant.name),
        policy: Policy { limits, version: tenant.version, burst: tenant.burst(), share_percent: 100 },
        shards: quota::shards(&limits, TENANT_WRITES),
    })
}

/// Returns the account of `pool` of `model`, for a request that may fill `share_percent` of it.
pub fn for_pool(model: &Model, pool: &Pool, share_percent: u64) -> Account {
    Account {
        name: pool_account(&model.name, &pool.name),
        policy: Policy { limits: pool.limits, version: model.version, burst: pool.burst(), share_percent },
        shards: quota::shards(&pool.limits, POOL_WRITES),
    }
}
