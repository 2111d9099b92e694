//! The registry: tenants, keys, callers, webhook endpoints and models. The functions read it
//! through a cache. The command writes it.

mod rows;
mod unknown;

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::Client;
use serde::de::DeserializeOwned;
use tracing::error;

pub use rows::Written;
use rows::{RegistryRows, RowKey};
use unknown::UnknownReads;

use super::{RegistryError, StoreError, cache::Cache, rows::Consistency};
use crate::{
    clock::Clock,
    connections::spawn_for_caller,
    pool::{Catalogue, Model},
    problem::{Kind, Problem},
    tenant::{ApiKey, CallerRecord, Endpoint, KeyRecord, Tenant},
    units::Millis,
};

/// Maximum of tenants in the cache, and likewise of keys, callers and lists of endpoints. Unknown
/// names count too.
const MAX_CACHED: usize = 10_000;

/// Maximum age of the models in which a requested model is not found. A new model works soon, even
/// if the cache is older.
const MAX_UNKNOWN_AGE: Millis = Millis::from_s(2);

/// The only key in the cache of all models.
const ALL_MODELS: &str = "";

/// The registry table. Clones share its cache.
#[derive(Clone)]
pub struct Registry {
    rows: RegistryRows,
    keys: Arc<Cache<KeyRecord>>,
    callers: Arc<Cache<CallerRecord>>,
    tenants: Arc<Cache<Tenant>>,
    endpoints: Arc<Cache<Vec<Endpoint>>>,
    catalogue: Arc<Cache<Catalogue>>,
    unknown_reads: Arc<Mutex<UnknownReads>>,
    clock: Clock,
    /// Region of this process, which pools without a region are called in.
    own_region: Option<Arc<str>>,
}

impl Registry {
    /// The registry in `table`. Cached rows are used until the age `cache_ttl`.
    pub fn new(client: Client, table: &str, cache_ttl: Millis, clock: Clock) -> Self {
        Self {
            rows: RegistryRows::new(client, table),
            keys: Arc::new(Cache::new(MAX_CACHED, cache_ttl, clock.clone())),
            callers: Arc::new(Cache::new(MAX_CACHED, cache_ttl, clock.clone())),
            tenants: Arc::new(Cache::new(MAX_CACHED, cache_ttl, clock.clone())),
            endpoints: Arc::new(Cache::new(MAX_CACHED, cache_ttl, clock.clone())),
            catalogue: Arc::new(Cache::new(1, cache_ttl, clock.clone())),
            unknown_reads: Arc::default(),
            clock,
            own_region: None,
        }
    }

    /// Returns the registry for a process in `region`.
    pub fn in_region(self, region: Option<&str>) -> Self {
        Self { own_region: region.map(Arc::from), ..self }
    }

    /// Region of this process; `None` if it is not known.
    pub fn own_region(&self) -> Option<&str> {
        self.own_region.as_deref()
    }

    /// Returns the tenant of an API key, or `None` if the key is unknown, revoked or expired.
    ///
    /// # Errors
    /// Returns an error if the registry is unavailable, or if too many unknown keys were looked up.
    pub async fn authenticate(&self, key: &ApiKey) -> Result<Option<Arc<Tenant>>, RegistryError> {
        let record = self.find(&self.keys, key.id(), RowKey::key(key.id())).await?;
        let record = record.unwrap_or_else(|| Arc::new(KeyRecord::unknown()));
        if !record.admits(key, self.clock.now()) {
            return Ok(None);
        }
        self.prefetch_catalogue();
        self.tenant(&record.tenant).await
    }

    /// Returns the tenant of a caller, or `None` if the caller is unknown. `id` is a
    /// [`caller_id`](crate::tenant::caller_id).
    ///
    /// # Errors
    /// Returns an error if the registry is unavailable, or if too many unknown callers were looked
    /// up.
    pub async fn tenant_of_caller(&self, id: &str) -> Result<Option<Arc<Tenant>>, RegistryError> {
        let Some(record) = self.find(&self.callers, id, RowKey::caller(id)).await? else { return Ok(None) };
        self.prefetch_catalogue();
        self.tenant(&record.tenant).await
    }

    /// Returns the tenant called `name`.
    ///
    /// # Errors
    /// Returns an error if the registry is unavailable.
    pub async fn tenant(&self, name: &str) -> Result<Option<Arc<Tenant>>, RegistryError> {
        Ok(self.tenants.get(name, |_| self.row(RowKey::tenant(name))).await?)
    }

    /// Returns the webhook endpoints of a tenant, by id.
    ///
    /// # Errors
    /// Returns an error if the registry is unavailable.
    pub async fn endpoints(&self, tenant: &str) -> Result<Arc<Vec<Endpoint>>, RegistryError> {
        let read = |_| {
            let (rows, tenant) = (self.rows.clone(), tenant.to_owned());
            async move { rows.endpoints(&tenant).await.map(Some) }
        };
        Ok(self.endpoints.get(tenant, read).await?.unwrap_or_default())
    }

    /// Returns all models.
    ///
    /// # Errors
    /// Returns an error if the registry is unavailable.
    pub async fn catalogue(&self) -> Result<Arc<Catalogue>, RegistryError> {
        Ok(self.catalogue.get(ALL_MODELS, |consistency| self.models(consistency)).await?.unwrap_or_default())
    }

    /// Returns all models, with all writes visible.
    ///
    /// # Errors
    /// Returns an error if the registry is unavailable.
    pub async fn latest_catalogue(&self) -> Result<Arc<Catalogue>, RegistryError> {
        self.recent_catalogue(Millis::ZERO).await
    }

    /// Returns the parent of `tenant`, if it has one.
    ///
    /// # Errors
    /// Returns an error if the registry is unavailable, or the parent does not exist.
    pub async fn parent_of(&self, tenant: &Tenant) -> Result<Option<Arc<Tenant>>, Problem> {
        let Some(name) = &tenant.parent else { return Ok(None) };
        let parent = self.tenant(name).await?;
        parent.map(Some).ok_or_else(|| parent_missing(&tenant.name, name))
    }

    /// Returns the model with this `id`, if `tenant` may call it, with only the pools that `tenant`
    /// and its parent permit.
    ///
    /// # Errors
    /// Returns an error if the registry is unavailable, the model does not exist, `tenant` may not
    /// call it, or no pool is permitted.
    pub async fn model_for(&self, tenant: &Tenant, id: &str) -> Result<Arc<Model>, Problem> {
        let model = match self.catalogue().await?.resolve_for(tenant, id) {
            Ok(model) => model,
            Err(_) => self.recent_catalogue(MAX_UNKNOWN_AGE).await?.resolve_for(tenant, id)?,
        };
        let parent = self.parent_of(tenant).await?;
        model.permitted_to(&payers(tenant, parent.as_deref()), self.own_region())
    }

    /// Returns the models that `tenant` may call and of which it may use a pool, sorted by name.
    ///
    /// # Errors
    /// Returns an error if the registry is unavailable, or the parent of `tenant` does not exist.
    pub async fn models_for(&self, tenant: &Tenant) -> Result<Vec<Arc<Model>>, Problem> {
        let parent = self.parent_of(tenant).await?;
        let catalogue = self.catalogue().await?;
        let callable = catalogue.models().filter(|model| tenant.may_call(&model.name));
        let permitted = |model: &Arc<Model>| {
            Arc::clone(model).permitted_to(&payers(tenant, parent.as_deref()), self.own_region()).ok()
        };
        Ok(callable.filter_map(permitted).collect())
    }

    async fn recent_catalogue(&self, max_age: Millis) -> Result<Arc<Catalogue>, RegistryError> {
        let read = |consistency| self.models(consistency);
        Ok(self.catalogue.get_recent(ALL_MODELS, max_age, read).await?.unwrap_or_default())
    }

    /// Starts a read of all models, if the cache has none. Most requests need them right after the
    /// tenant, so both are read at the same time.
    fn prefetch_catalogue(&self) {
        if self.catalogue.is_cold(ALL_MODELS) {
            let registry = self.clone();
            spawn_for_caller(async move { registry.catalogue().await });
        }
    }

    /// Returns the row of an id that a caller presents, which may be made up.
    async fn find<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        cache: &Cache<T>,
        id: &str,
        key: RowKey,
    ) -> Result<Option<Arc<T>>, RegistryError> {
        if !cache.is_unknown(id) {
            return Ok(cache.get(id, |_| self.row(key.clone())).await?);
        }
        let unknown_reads = || self.unknown_reads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(retry_after) = unknown_reads().wait(self.clock.now()) {
            return Err(RegistryError::TooManyUnknown { retry_after });
        }
        let row = cache.get(id, |_| self.row(key.clone())).await?;
        if row.is_none() {
            unknown_reads().count(self.clock.now());
        }
        Ok(row)
    }

    fn row<T: DeserializeOwned>(
        &self,
        key: RowKey,
    ) -> impl Future<Output = Result<Option<T>, StoreError>> + Send + use<T> {
        let rows = self.rows.clone();
        async move { rows.get(key).await }
    }

    fn models(
        &self,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Option<Catalogue>, StoreError>> + Send + use<> {
        let rows = self.rows.clone();
        async move { Ok(Some(Catalogue::new(rows.models(consistency).await?))) }
    }

    /// Makes the next request of this tenant read the tenant again, because the ledger knows a
    /// newer version.
    pub fn forget(&self, tenant: &str) {
        self.tenants.forget(tenant);
    }

    /// Makes the next request read the models again, because the ledger knows a newer version of a
    /// model.
    pub fn forget_models(&self) {
        self.catalogue.forget(ALL_MODELS);
    }
}

/// Reads and writes of the command. They are not cached, and fail if the registry is unavailable.
impl Registry {
    /// Writes a tenant if it differs from the stored tenant. The registry sets its `version`.
    pub async fn put_tenant(&self, tenant: &Tenant) -> Result<Written, StoreError> {
        let written = self.rows.put(&RowKey::tenant(&tenant.name), tenant).await?;
        self.tenants.forget(&tenant.name);
        Ok(written)
    }

    /// Writes a model if it differs from the stored model. The registry sets its `version`.
    pub async fn put_model(&self, model: &Model) -> Result<Written, StoreError> {
        let written = self.rows.put(&RowKey::model(&model.name), model).await?;
        self.forget_models();
        Ok(written)
    }

    /// Writes a key.
    pub async fn put_key(&self, key: &KeyRecord) -> Result<Written, StoreError> {
        let written = self.rows.put(&RowKey::key(&key.id), key).await?;
        self.keys.forget(&key.id);
        Ok(written)
    }

    /// Revokes a key. Returns whether it existed.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        let existed = self.rows.delete(&RowKey::key(id)).await?;
        self.keys.forget(id);
        Ok(existed)
    }

    /// Writes a caller.
    pub async fn put_caller(&self, caller: &CallerRecord) -> Result<Written, StoreError> {
        let written = self.rows.put(&RowKey::caller(&caller.id), caller).await?;
        self.callers.forget(&caller.id);
        Ok(written)
    }

    /// Revokes a caller. Returns whether it existed.
    pub async fn revoke_caller(&self, id: &str) -> Result<bool, StoreError> {
        let existed = self.rows.delete(&RowKey::caller(id)).await?;
        self.callers.forget(id);
        Ok(existed)
    }

    /// Writes a webhook endpoint.
    pub async fn put_endpoint(&self, endpoint: &Endpoint) -> Result<Written, StoreError> {
        let written = self.rows.put(&RowKey::endpoint(&endpoint.tenant, &endpoint.id), endpoint).await?;
        self.endpoints.forget(&endpoint.tenant);
        Ok(written)
    }

    /// Returns the webhook endpoint with this id, of any tenant.
    pub async fn endpoint(&self, id: &str) -> Result<Option<Endpoint>, StoreError> {
        let endpoints: Vec<Endpoint> = self.rows.scan(rows::WEBHOOK).await?;
        Ok(endpoints.into_iter().find(|endpoint| endpoint.id == id))
    }

    /// Removes a webhook endpoint. Returns whether it existed.
    pub async fn remove_endpoint(&self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        let existed = self.rows.delete(&RowKey::endpoint(tenant, id)).await?;
        self.endpoints.forget(tenant);
        Ok(existed)
    }

    /// Deletes a tenant with its keys, callers and webhook endpoints. Returns whether it existed.
    pub async fn delete_tenant(&self, name: &str) -> Result<bool, StoreError> {
        let existed = self.rows.delete(&RowKey::tenant(name)).await?;
        self.tenants.forget(name);
        // The tenant is deleted first. Without it the keys and callers are useless, even if this
        // process dies before it has revoked them.
        for key in self.keys_of(name).await? {
            self.revoke_key(&key.id).await?;
        }
        for caller in self.callers().await?.into_iter().filter(|caller| caller.tenant == name) {
            self.revoke_caller(&caller.id).await?;
        }
        for endpoint in self.rows.endpoints(name).await? {
            self.remove_endpoint(name, &endpoint.id).await?;
        }
        Ok(existed)
    }

    /// Deletes a model. Returns whether it existed.
    pub async fn delete_model(&self, name: &str) -> Result<bool, StoreError> {
        let existed = self.rows.delete(&RowKey::model(name)).await?;
        self.forget_models();
        Ok(existed)
    }

    /// Returns all tenants, by name.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        let mut tenants: Vec<Tenant> = self.rows.scan(rows::TENANT).await?;
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tenants)
    }

    /// Returns all keys of a tenant, by id.
    pub async fn keys_of(&self, tenant: &str) -> Result<Vec<KeyRecord>, StoreError> {
        let mut keys: Vec<KeyRecord> = self.rows.scan(rows::KEY).await?;
        keys.retain(|key| key.tenant == tenant);
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(keys)
    }

    /// Returns all callers, by id.
    pub async fn callers(&self) -> Result<Vec<CallerRecord>, StoreError> {
        let mut callers: Vec<CallerRecord> = self.rows.scan(rows::CALLER).await?;
        callers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(callers)
    }
}

fn payers<'a>(tenant: &'a Tenant, parent: Option<&'a Tenant>) -> Vec<&'a Tenant> {
    [Some(tenant), parent].into_iter().flatten().collect()
}

/// The organisation of `tenant` does not exist, so its limits and its residency are unknown.
fn parent_missing(tenant: &str, parent: &str) -> Problem {
    error!(tenant, parent, "the parent of a tenant does not exist");
    let message = format!("Tenant {tenant} belongs to {parent}, which does not exist; nothing was charged.");
    Problem { retry_after: Some(Millis::from_s(1)), ..Problem::new(Kind::Unavailable, message) }
}
