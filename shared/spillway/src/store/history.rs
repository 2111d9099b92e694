//! Histories of recent requests, by tenant and model, for tenants with right-sizing.
//!
//! They cost little: a history is read at most once a minute, and observations are written in
//! batches. A process writes a batch when it is full, or with its first request after the batch is
//! a minute old: on Lambda, many processes share the requests, and few of them fill a batch.
//! Observations that a process has not written when it ends are lost, which makes the history a
//! little shorter.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_sdk_dynamodb::Client;
use futures_util::future::try_join_all;

use super::{
    StoreError,
    cache::Cache,
    ledger::{
        items::{Items, UpdateOutcome},
        nonce::NonceAttribute,
    },
};
use crate::{
    clock::Clock,
    connections::ResendingClient,
    quota::{self, History, Image, Observation},
    units::{Millis, UnixMs},
};

/// Maximum age of a history that is used. From half this age on, it is read again in the
/// background.
const MAX_AGE: Millis = Millis::from_s(120);

/// Number of observations that fill a batch.
const BATCH: usize = 16;

/// Age of the first observation in a batch at which the batch is written although it is not full.
const BATCH_AGE: Millis = Millis::from_s(60);

/// Maximum number of histories in memory.
const MAX_CACHED: usize = 10_000;

/// Histories in the ledger's table. Clones share the cache and the pending observations.
#[derive(Clone)]
pub struct Histories {
    items: Items,
    read: Arc<Cache<Image>>,
    pending: Arc<Mutex<HashMap<String, PendingBatch>>>,
    clock: Clock,
}

/// Observations that are not written yet.
struct PendingBatch {
    since: UnixMs,
    observations: Vec<Observation>,
}

impl PendingBatch {
    fn is_due(&self, now: UnixMs) -> bool {
        self.observations.len() >= BATCH || self.since + BATCH_AGE <= now
    }
}

impl Histories {
    /// Creates the histories in `table`.
    pub fn new(client: ResendingClient<Client>, table: &str, clock: Clock) -> Self {
        Self {
            items: Items::new(client, table),
            read: Arc::new(Cache::new(MAX_CACHED, MAX_AGE, clock.clone())),
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

    /// Adds an observation of a request of `tenant` to `model`. Writes its batch if that is due,
    /// and the oldest other batch that is due.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable. The observations of the batch are then lost.
    pub async fn add(&self, tenant: &str, model: &str, observation: Observation) -> Result<(), StoreError> {
        let due = self.due(key(tenant, model), observation);
        try_join_all(due.into_iter().map(|(key, batch)| self.write(key, batch))).await.map(drop)
    }

    async fn write(&self, key: String, batch: PendingBatch) -> Result<(), StoreError> {
        let image = self.image(&key).await?;
        let write = quota::record(&batch.observations, &image, self.clock.now());
        match self.items.update(&key, &write, NonceAttribute::Added).await? {
            UpdateOutcome::Done(image) => self.read.put(&key, image),
            UpdateOutcome::Refused(_) | UpdateOutcome::Busy => {}
        }
        Ok(())
    }

    /// Adds an observation to the batch of `key`. Removes this batch and the oldest other batch if
    /// they are due, and returns them.
    fn due(&self, key: String, observation: Observation) -> Vec<(String, PendingBatch)> {
        let now = self.clock.now();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = pending.entry(key.clone()).or_insert_with(|| PendingBatch { since: now, observations: Vec::new() });
        batch.observations.push(observation);
        let overdue = pending.iter().filter(|(due, batch)| **due != key && batch.is_due(now));
        let oldest = overdue.min_by_key(|(_, batch)| batch.since).map(|(due, _)| due.clone());
        let own = Some(key).filter(|key| pending[key].is_due(now));
        own.into_iter().chain(oldest).filter_map(|key| pending.remove_entry(&key)).collect()
    }

    async fn image(&self, key: &str) -> Result<Arc<Image>, StoreError> {
        let read = |_| {
            let (items, key) = (self.items.clone(), key.to_owned());
            async move { items.get(&key).await.map(Some) }
        };
        Ok(self.read.get(key, read).await?.unwrap_or_default())
    }
}

fn key(tenant: &str, model: &str) -> String {
    format!("H#{tenant}#{model}")
}
