//! The registry: tenants, keys, callers, webhooks and models. The functions read it, through a short cache; the command writes it.

mod rows;

use std::sync::Arc;

use aws_sdk_dynamodb::Client;

pub use rows::Written;
use rows::{Row, Rows};

use super::{RegistryError, StoreError, cache::Cache};
use crate::{
    clock::Clock,
    pool::{Catalogue, Model},
    tenant::{ApiKey, CallerRecord, Endpoint, KeyRecord, Tenant},
};

/// How many tenants, keys, callers and tenants' webhooks are kept in memory, each. Unknown ones take places too, but never more.
const KEPT: usize = 10_000;

/// The registry table. Clones share its cache.
#[derive(Clone)]
pub struct Registry {
    rows: Rows,
    keys: Arc<Cache<KeyRecord>>,
    callers: Arc<Cache<CallerRecord>>,
    tenants: Arc<Cache<Tenant>>,
    endpoints: Arc<Cache<Vec<Endpoint>>>,
    catalogue: Arc<Cache<Catalogue>>,
    clock: Clock,
}

impl Registry {
    /// The registry in `table`, whose rows are read again when they are `cache_ms` old.
    pub fn new(client: Client, table: &str, cache_ms: u64, clock: Clock) -> Self {
        Self {
            rows: Rows::new(client, table),
            keys: Arc::new(Cache::new(KEPT, cache_ms, clock.clone())),
            callers: Arc::new(Cache::new(KEPT, cache_ms, clock.clone())),
            tenants: Arc::new(Cache::new(KEPT, cache_ms, clock.clone())),
            endpoints: Arc::new(Cache::new(KEPT, cache_ms, clock.clone())),
            catalogue: Arc::new(Cache::new(1, cache_ms, clock.clone())),
            clock,
        }
    }

    /// Whose key this is; `None` if it is nobody's, or no longer works.
    pub async fn authenticate(&self, key: &ApiKey) -> Result<Option<Arc<Tenant>>, RegistryError> {
        let record = self.keys.get(key.id(), self.rows.get(Row::key(key.id()))).await?;
        let record = record.unwrap_or_else(|| Arc::new(KeyRecord::unknown()));
        if !record.admits(key, self.clock.now()) {
            return Ok(None);
        }
        self.tenant(&record.tenant).await
    }

    /// Whose requests this caller sends; `None` if it is nobody's. The id is one of
    /// [`caller_id`](crate::tenant::caller_id).
    pub async fn tenant_of_caller(&self, id: &str) -> Result<Option<Arc<Tenant>>, RegistryError> {
        match self.callers.get(id, self.rows.get(Row::caller(id))).await? {
            Some(record) => self.tenant(&record.tenant).await,
            None => Ok(None),
        }
    }

    /// The tenant of this name.
    pub async fn tenant(&self, name: &str) -> Result<Option<Arc<Tenant>>, RegistryError> {
        Ok(self.tenants.get(name, self.rows.get(Row::tenant(name))).await?)
    }

    /// The webhook endpoints of a tenant, by id.
    pub async fn endpoints(&self, tenant: &str) -> Result<Arc<Vec<Endpoint>>, RegistryError> {
        let read = async { Ok(Some(self.rows.endpoints(tenant).await?)) };
        Ok(self.endpoints.get(tenant, read).await?.unwrap_or_default())
    }

    /// All models.
    pub async fn catalogue(&self) -> Result<Arc<Catalogue>, RegistryError> {
        let read = async { Ok(Some(Catalogue::new(self.rows.models().await?))) };
        Ok(self.catalogue.get("", read).await?.unwrap_or_default())
    }

    /// Makes the next request of this tenant read it again, because the ledger has seen a newer version of it.
    pub fn forget(&self, tenant: &str) {
        self.tenants.forget(tenant);
    }

    /// Makes the next request read the models again, because the ledger has seen a newer version of one.
    pub fn forget_models(&self) {
        self.catalogue.forget("");
    }
}

/// What the command does. Nothing here is cached.
impl Registry {
    /// Writes a tenant if it differs from the one that is there. Its `version` is set by the registry.
    pub async fn put_tenant(&self, tenant: &Tenant) -> Result<Written, StoreError> {
        let written = self.rows.put(&Row::tenant(&tenant.name), tenant).await?;
        self.tenants.forget(&tenant.name);
        Ok(written)
    }

    /// Writes a model if it differs from the one that is there. Its `version` is set by the registry.
    pub async fn put_model(&self, model: &Model) -> Result<Written, StoreError> {
        let written = self.rows.put(&Row::model(&model.name), model).await?;
        self.forget_models();
        Ok(written)
    }

    /// Writes a key.
    pub async fn put_key(&self, key: &KeyRecord) -> Result<Written, StoreError> {
        let written = self.rows.put(&Row::key(&key.id), key).await?;
        self.keys.forget(&key.id);
        Ok(written)
    }

    /// Takes a key away; whether it was there.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        let was_there = self.rows.delete(&Row::key(id)).await?;
        self.keys.forget(id);
        Ok(was_there)
    }

    /// Writes a caller.
    pub async fn put_caller(&self, caller: &CallerRecord) -> Result<Written, StoreError> {
        let written = self.rows.put(&Row::caller(&caller.id), caller).await?;
        self.callers.forget(&caller.id);
        Ok(written)
    }

    /// Takes a caller away; whether it was there.
    pub async fn revoke_caller(&self, id: &str) -> Result<bool, StoreError> {
        let was_there = self.rows.delete(&Row::caller(id)).await?;
        self.callers.forget(id);
        Ok(was_there)
    }

    /// Writes a webhook endpoint.
    pub async fn put_endpoint(&self, endpoint: &Endpoint) -> Result<Written, StoreError> {
        let written = self.rows.put(&Row::endpoint(&endpoint.tenant, &endpoint.id), endpoint).await?;
        self.endpoints.forget(&endpoint.tenant);
        Ok(written)
    }

    /// The webhook endpoint with this id, whoever's it is.
    pub async fn endpoint(&self, id: &str) -> Result<Option<Endpoint>, StoreError> {
        let endpoints: Vec<Endpoint> = self.rows.scan(rows::WEBHOOK).await?;
        Ok(endpoints.into_iter().find(|endpoint| endpoint.id == id))
    }

    /// Takes a webhook endpoint away; whether it was there.
    pub async fn remove_endpoint(&self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        let was_there = self.rows.delete(&Row::endpoint(tenant, id)).await?;
        self.endpoints.forget(tenant);
        Ok(was_there)
    }

    /// Takes a tenant, its keys, its callers and its webhooks away; whether it was there.
    pub async fn delete_tenant(&self, name: &str) -> Result<bool, StoreError> {
        let was_there = self.rows.delete(&Row::tenant(name)).await?;
        self.tenants.forget(name);
        // After the tenant, without which they open nothing: whatever stops us here leaves no way in.
        for key in self.keys_of(name).await? {
            self.revoke_key(&key.id).await?;
        }
        for caller in self.callers().await?.into_iter().filter(|caller| caller.tenant == name) {
            self.revoke_caller(&caller.id).await?;
        }
        for endpoint in self.rows.endpoints(name).await? {
            self.remove_endpoint(name, &endpoint.id).await?;
        }
        Ok(was_there)
    }

    /// Takes a model away; whether it was there.
    pub async fn delete_model(&self, name: &str) -> Result<bool, StoreError> {
        let was_there = self.rows.delete(&Row::model(name)).await?;
        self.forget_models();
        Ok(was_there)
    }

    /// All tenants, by name.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        let mut tenants: Vec<Tenant> = self.rows.scan(rows::TENANT).await?;
        tenants.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(tenants)
    }

    /// All keys of a tenant, by id.
    pub async fn keys_of(&self, tenant: &str) -> Result<Vec<KeyRecord>, StoreError> {
        let mut keys: Vec<KeyRecord> = self.rows.scan(rows::KEY).await?;
        keys.retain(|key| key.tenant == tenant);
        keys.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(keys)
    }

    /// All callers, by id.
    pub async fn callers(&self) -> Result<Vec<CallerRecord>, StoreError> {
        let mut callers: Vec<CallerRecord> = self.rows.scan(rows::CALLER).await?;
        callers.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(callers)
    }
}
