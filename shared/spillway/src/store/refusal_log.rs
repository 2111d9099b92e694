//! Refusal log for operators: the number of refusals by each limit of a tenant, and the time of the
//! last refusal.
//!
//! A refusal must stay cheap, so that a storm of refusals does not become a storm of writes. A
//! process writes a tenant's counts at most once in a few seconds. Each write carries all refusals
//! since the last one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use aws_sdk_dynamodb::Client;

use super::{
    StoreError,
    ledger::{items::Items, nonce::NonceAttribute},
};
use crate::{
    clock::Clock,
    connections::ResendingClient,
    quota::{Attribute, LimitName, Update, Write},
    units::{Millis, UnixMs},
};

/// Minimum time between two writes for one tenant.
const PAUSE: Millis = Millis::from_s(5);

/// Refusals by one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalCount {
    /// The limit.
    pub limit: LimitName,
    /// Number of refusals.
    pub count: u64,
    /// Time of the last refusal.
    pub last_at: UnixMs,
}

/// Refusal counts in the ledger's table. Clones share the pending counts.
#[derive(Clone)]
pub struct RefusalLog {
    items: Items,
    pending: Arc<Mutex<HashMap<String, Pending>>>,
    clock: Clock,
}

#[derive(Default)]
struct Pending {
    written_at: UnixMs,
    counts: BTreeMap<LimitName, i64>,
}

impl RefusalLog {
    /// Creates the log in `table`.
    pub fn new(client: ResendingClient<Client>, table: &str, clock: Clock) -> Self {
        Self { items: Items::new(client, table), pending: Arc::default(), clock }
    }

    /// Counts a refusal of `tenant` by `limits`.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable. Pending counts are then lost.
    pub async fn add(&self, tenant: &str, limits: &[LimitName]) -> Result<(), StoreError> {
        let Some(counts) = self.due(tenant, limits) else { return Ok(()) };
        let now = self.clock.now();
        let updates = counts.into_iter().flat_map(|(limit, count)| {
            let number = limit.log_number();
            [Update::Add(Attribute::Refusals(number), count), Update::Set(Attribute::RefusedAt(number), now.as_ms())]
        });
        let write = Write { conditions: Vec::new(), updates: updates.collect() };
        self.items.update(&key(tenant), &write, NonceAttribute::Added).await.map(drop)
    }

    /// Returns the refusals of `tenant` by limit, the latest first.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn for_tenant(&self, tenant: &str) -> Result<Vec<RefusalCount>, StoreError> {
        let image = self.items.get(&key(tenant)).await?;
        let count = |limit: LimitName| RefusalCount {
            limit,
            count: image.get(Attribute::Refusals(limit.log_number())),
            last_at: UnixMs::from_ms(image.get(Attribute::RefusedAt(limit.log_number()))),
        };
        let mut refused: Vec<RefusalCount> = LimitName::iter().map(count).filter(|refused| refused.count > 0).collect();
        refused.sort_by_key(|refused| std::cmp::Reverse(refused.last_at));
        Ok(refused)
    }

    /// Returns the pending counts of `tenant` if its last write is old enough.
    fn due(&self, tenant: &str, limits: &[LimitName]) -> Option<BTreeMap<LimitName, i64>> {
        let now = self.clock.now();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = pending.entry(tenant.to_owned()).or_default();
        for limit in limits {
            *pending.counts.entry(*limit).or_default() += 1;
        }
        let is_due = !pending.counts.is_empty() && now >= pending.written_at + PAUSE;
        is_due.then(|| {
            pending.written_at = now;
            std::mem::take(&mut pending.counts)
        })
    }
}

fn key(tenant: &str) -> String {
    format!("R#{tenant}")
}
