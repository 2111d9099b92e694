//! Refusals, recorded for operators: how often each limit refused a tenant, and when it last did.
//!
//! A refusal must stay cheap, or a storm of them becomes one of writes: a process writes at most one record of a tenant every
//! few seconds, and that carries all that came meanwhile.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use aws_sdk_dynamodb::Client;

use super::{StoreError, ledger::items::Items};
use crate::{
    clock::Clock,
    quota::{Attribute, LimitName, Update, Write},
};

/// The pause between two records of one tenant, in milliseconds.
const PAUSE_MS: u64 = 5_000;

/// One limit's refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Which limit.
    pub limit: LimitName,
    /// How often it refused.
    pub count: u64,
    /// When it last did, in milliseconds since 1970.
    pub last_ms: u64,
}

/// The records in the ledger's table. Clones share what waits to be written.
#[derive(Clone)]
pub struct Refusals {
    items: Items,
    waiting: Arc<Mutex<HashMap<String, Waiting>>>,
    clock: Clock,
}

#[derive(Default)]
struct Waiting {
    written_ms: u64,
    counts: BTreeMap<LimitName, i64>,
}

impl Refusals {
    /// The records in `table`. `client` must have retries disabled.
    pub fn new(client: Client, table: &str, clock: Clock) -> Self {
        Self { items: Items::new(client, table), waiting: Arc::default(), clock }
    }

    /// `tenant` was refused by `limits`.
    ///
    /// # Errors
    /// The store could not be reached; what waited to be written is lost.
    pub async fn add(&self, tenant: &str, limits: &[LimitName]) -> Result<(), StoreError> {
        let Some(counts) = self.due(tenant, limits) else { return Ok(()) };
        let now_ms = self.clock.now_ms();
        let updates = counts.into_iter().flat_map(|(limit, count)| {
            let number = limit.log_number();
            [Update::Add(Attribute::Refusals(number), count), Update::Set(Attribute::RefusedAtMs(number), now_ms)]
        });
        let write = Write { conditions: Vec::new(), updates: updates.collect() };
        self.items.update(&key(tenant), &write).await.map(drop)
    }

    /// What refused `tenant`, the latest first.
    ///
    /// # Errors
    /// The store could not be reached.
    pub async fn of(&self, tenant: &str) -> Result<Vec<Refused>, StoreError> {
        let image = self.items.get(&key(tenant)).await?;
        let of_limit = |limit: LimitName| Refused {
            limit,
            count: image.get(Attribute::Refusals(limit.log_number())),
            last_ms: image.get(Attribute::RefusedAtMs(limit.log_number())),
        };
        let mut refused: Vec<Refused> = LimitName::iter().map(of_limit).filter(|refused| refused.count > 0).collect();
        refused.sort_by_key(|refused| std::cmp::Reverse(refused.last_ms));
        Ok(refused)
    }

    /// All that waits for `tenant`, if the last record is old enough.
    fn due(&self, tenant: &str, limits: &[LimitName]) -> Option<BTreeMap<LimitName, i64>> {
        let now_ms = self.clock.now_ms();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = waiting.entry(tenant.to_owned()).or_default();
        for limit in limits {
            *waiting.counts.entry(*limit).or_default() += 1;
        }
        let is_due = !waiting.counts.is_empty() && now_ms >= waiting.written_ms + PAUSE_MS;
        is_due.then(|| {
            waiting.written_ms = now_ms;
            std::mem::take(&mut waiting.counts)
        })
    }
}

fn key(tenant: &str) -> String {
    format!("R#{tenant}")
}
