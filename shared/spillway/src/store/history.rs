//! Histories: what recent requests of a tenant to a model turned out to be, for tenants that reserve by it.
//!
//! They cost next to nothing: a history is read once a minute, and turnouts are written many at a time. What a process does
//! not get to write before it ends is lost, which makes a history a little shorter.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_sdk_dynamodb::Client;

use super::{
    StoreError,
    cache::Cache,
    ledger::items::{Items, Updated},
};
use crate::{
    clock::Clock,
    quota::{self, History, Image, Turnout},
};

/// How long a history is used before it is read again, in milliseconds.
const READ_EVERY_MS: u64 = 60_000;

/// How many turnouts are written at once.
const WRITTEN_AT_ONCE: usize = 16;

/// How many histories are kept in memory.
const KEPT: usize = 10_000;

/// The histories in the ledger's table. Clones share what is read and what waits to be written.
#[derive(Clone)]
pub struct Histories {
    items: Items,
    read: Arc<Cache<Image>>,
    waiting: Arc<Mutex<HashMap<String, Vec<Turnout>>>>,
    clock: Clock,
}

impl Histories {
    /// The histories in `table`. `client` must have retries disabled.
    pub fn new(client: Client, table: &str, clock: Clock) -> Self {
        Self {
            items: Items::new(client, table),
            read: Arc::new(Cache::new(KEPT, READ_EVERY_MS, clock.clone())),
            waiting: Arc::default(),
            clock,
        }
    }

    /// What recent requests of `tenant` to `model` tell.
    ///
    /// # Errors
    /// The store could not be reached.
    pub async fn recent(&self, tenant: &str, model: &str) -> Result<History, StoreError> {
        let image = self.image(&key(tenant, model)).await?;
        Ok(History::read(&image, self.clock.now_ms()))
    }

    /// Adds a request of `tenant` to `model` as it turned out.
    ///
    /// # Errors
    /// The store could not be reached; what waited to be written is lost.
    pub async fn add(&self, tenant: &str, model: &str, turnout: Turnout) -> Result<(), StoreError> {
        let key = key(tenant, model);
        let Some(turnouts) = self.due(&key, turnout) else { return Ok(()) };
        let seen = self.image(&key).await?;
        let write = quota::record(&turnouts, &seen, self.clock.now_ms());
        match self.items.update(&key, &write).await? {
            Updated::Done(image) => self.read.put(&key, image),
            Updated::Refused(_) | Updated::Busy => {}
        }
        Ok(())
    }

    /// All that waits for `key`, once it is worth a write.
    fn due(&self, key: &str, turnout: Turnout) -> Option<Vec<Turnout>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let turnouts = waiting.entry(key.to_owned()).or_default();
        turnouts.push(turnout);
        (turnouts.len() >= WRITTEN_AT_ONCE).then(|| waiting.remove(key)).flatten()
    }

    async fn image(&self, key: &str) -> Result<Arc<Image>, StoreError> {
        let read = async { self.items.get(key).await.map(Some) };
        Ok(self.read.get(key, read).await?.unwrap_or_default())
    }
}

fn key(tenant: &str, model: &str) -> String {
    format!("H#{tenant}#{model}")
}
