//! Histories of recent requests, by tenant and model, for tenants with right-sizing.
//!
//! They cost little: a history is read once a minute, and observations are written in batches.
//! Observations that a process has not written when it ends are lost, which makes the history a
//! little shorter.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_sdk_dynamodb::Client;

use super::{
    StoreError,
    cache::Cache,
    ledger::items::{Items, UpdateOutcome},
};
use crate::{
    clock::Clock,
    quota::{self, History, Image, Observation},
    units::Millis,
};

/// Time for which a history is used before it is read again.
const READ_EVERY: Millis = Millis::from_s(60);

/// Number of observations in one write.
const BATCH: usize = 16;

/// Maximum number of histories in memory.
const MAX_CACHED: usize = 10_000;

/// Histories in the ledger's table. Clones share the cache and the pending observations.
#[derive(Clone)]
pub struct Histories {
    items: Items,
    read: Arc<Cache<Image>>,
    pending: Arc<Mutex<HashMap<String, Vec<Observation>>>>,
    clock: Clock,
}

impl Histories {
    /// Creates the histories in `table`. `client` must have retries disabled.
    pub fn new(client: Client, table: &str, clock: Clock) -> Self {
        Self {
            items: Items::new(client, table),
            read: Arc::new(Cache::new(MAX_CACHED, READ_EVERY, clock.clone())),
            pending: Arc::default(),
            clock,
        }
    }

    /// Returns the history of recent requests of `tenant` to `model`.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn recent(&self, tenant: &str, model: &str) -> Result<History, StoreError> {
        let image = self.image(&key(tenant, model)).await?;
        Ok(History::read(&image, self.clock.now()))
    }

    /// Adds an observation of a request of `tenant` to `model`.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable. Pending observations are then lost.
    pub async fn add(&self, tenant: &str, model: &str, observation: Observation) -> Result<(), StoreError> {
        let key = key(tenant, model);
        let Some(observations) = self.due(&key, observation) else { return Ok(()) };
        let image = self.image(&key).await?;
        let write = quota::record(&observations, &image, self.clock.now());
        match self.items.update(&key, &write).await? {
            UpdateOutcome::Done(image) => self.read.put(&key, image),
            UpdateOutcome::Refused(_) | UpdateOutcome::Busy => {}
        }
        Ok(())
    }

    /// Returns the pending observations for `key` once they fill a batch.
    fn due(&self, key: &str, observation: Observation) -> Option<Vec<Observation>> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let observations = pending.entry(key.to_owned()).or_default();
        observations.push(observation);
        (observations.len() >= BATCH).then(|| pending.remove(key)).flatten()
    }

    async fn image(&self, key: &str) -> Result<Arc<Image>, StoreError> {
        let read = async { self.items.get(key).await.map(Some) };
        Ok(self.read.get(key, read).await?.unwrap_or_default())
    }
}

fn key(tenant: &str, model: &str) -> String {
    format!("H#{tenant}#{model}")
}
