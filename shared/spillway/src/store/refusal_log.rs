//! Refusal log for operators: the number of refusals by each limit of a tenant, and the time of the
//! last refusal.
//!
//! A refusal must stay cheap, so that a storm of refusals does not become a storm of writes. The
//! first refusal of a tenant is written at once. The refusals of the next seconds are written
//! together, by a task, which needs no later refusal. A write that fails is repeated until it is
//! known to have taken effect. On Lambda, nothing runs between requests, so the task continues with
//! the next request of its process.

mod pending;

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use futures_util::{StreamExt, stream};
use tracing::warn;

use super::{
    StoreError,
    ledger::items::{Items, UpdateOutcome},
};
use crate::{
    clock::Clock,
    connections::{ResendingClient, TimeLimits},
    quota::{Attribute, Condition, Image, LimitName, Update, Write},
    units::{Millis, UnixMs},
};
use pending::{Pending, RefusalBatch, RefusalTally};

/// Minimum time between two writes for one tenant.
const PAUSE: Millis = Millis::from_s(5);

/// Longest time for which a refused caller waits for the write. The task continues after that.
const WRITE_LIMITS: TimeLimits =
    TimeLimits { for_caller: Duration::from_millis(300), in_background: Duration::from_millis(300) };

/// Maximum of tries of a write, while other processes write later times.
const MAX_TRIES: usize = 4;

/// Maximum of tenants whose refusals are written at the same time when the process ends.
const AT_ONCE: usize = 16;

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
    pending: Pending,
    clock: Clock,
}

impl RefusalLog {
    /// Creates the log in `table`.
    pub fn new(client: ResendingClient<Client>, table: &str, clock: Clock) -> Self {
        Self { items: Items::new(client, table), pending: Pending::default(), clock }
    }

    /// Counts a refusal of `tenant` by `limits`. Waits for a moment if the count is written at
    /// once.
    pub async fn add(&self, tenant: &str, limits: &[LimitName]) {
        if !self.pending.add(tenant, limits, self.clock.now()) {
            return;
        }
        let (log, name) = (self.clone(), tenant.to_owned());
        let (written, first) = tokio::sync::oneshot::channel();
        tokio::spawn(async move { log.write_regularly(&name, written).await });
        // The task goes on if the time is over.
        let _ = WRITE_LIMITS.apply(first).await;
    }

    /// Returns the refusals of `tenant` by limit, the latest first. They include the refusals that
    /// this process has not written yet.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn for_tenant(&self, tenant: &str) -> Result<Vec<RefusalCount>, StoreError> {
        let image = self.items.get(&key(tenant)).await?;
        let count = |limit: LimitName| {
            let unwritten = self.pending.tally(tenant, limit);
            RefusalCount {
                limit,
                count: image.get(Attribute::Refusals(limit.log_number())) + unwritten.count,
                last_at: last_refusal(&image, limit).max(unwritten.last_at),
            }
        };
        let mut refused: Vec<RefusalCount> = LimitName::iter().map(count).filter(|refused| refused.count > 0).collect();
        refused.sort_by_key(|refused| std::cmp::Reverse(refused.last_at));
        Ok(refused)
    }

    /// Writes all pending counts, as far as the store accepts them. For the end of a process.
    pub async fn flush(&self) {
        let write =
            |tenant: String| async move { while self.pending.has(&tenant) && self.write_next(&tenant).await {} };
        stream::iter(self.pending.tenants()).for_each_concurrent(AT_ONCE, write).await;
    }

    /// Writes the counts of a tenant, at most once in [`PAUSE`], until none is pending. Drops
    /// `written` after the first write.
    async fn write_regularly(&self, tenant: &str, written: tokio::sync::oneshot::Sender<()>) {
        let mut written = Some(written);
        loop {
            self.write_next(tenant).await;
            drop(written.take());
            self.clock.sleep_until(self.clock.now() + PAUSE).await;
            if self.pending.end_if_empty(tenant) {
                return;
            }
        }
    }

    /// Writes the next batch of a tenant. Returns whether it was written.
    async fn write_next(&self, tenant: &str) -> bool {
        let writing = self.pending.writing(tenant);
        let _writing = writing.lock().await;
        let batch = match self.pending.next_batch(tenant) {
            Ok(Some(batch)) => batch,
            Ok(None) => return true,
            Err(error) => {
                warn!(tenant, %error, "failed to record refusals; they are recorded later");
                return false;
            }
        };
        match self.write(tenant, &batch).await {
            Ok(()) => {
                self.pending.confirm(tenant);
                true
            }
            Err(error) => {
                warn!(tenant, %error, "failed to record refusals; they are recorded later");
                false
            }
        }
    }

    async fn write(&self, tenant: &str, batch: &RefusalBatch) -> Result<(), StoreError> {
        let mut known = Image::default();
        for _ in 0..MAX_TRIES {
            match self.items.update_once(&key(tenant), &additions(batch, &known), &batch.nonce).await? {
                UpdateOutcome::Done(_) => return Ok(()),
                UpdateOutcome::Refused(image) => known = image,
                UpdateOutcome::Busy => break,
            }
        }
        Err(StoreError::Contended { row: key(tenant) })
    }
}

/// Returns the write that adds a batch to the item. It sets the time of a last refusal unless the
/// `known` item has a later one of another process.
fn additions(batch: &RefusalBatch, known: &Image) -> Write {
    let mut write = Write::default();
    for (limit, RefusalTally { count, last_at }) in &batch.tallies {
        let (count, number) = (i64::try_from(*count).unwrap_or(i64::MAX), limit.log_number());
        write.updates.push(Update::Add(Attribute::Refusals(number), count));
        if last_refusal(known, *limit) <= *last_at {
            write.conditions.push(Condition::AtMost(Attribute::RefusedAt(number), last_at.as_ms()));
            write.updates.push(Update::Set(Attribute::RefusedAt(number), last_at.as_ms()));
        }
    }
    write
}

fn last_refusal(image: &Image, limit: LimitName) -> UnixMs {
    UnixMs::from_ms(image.get(Attribute::RefusedAt(limit.log_number())))
}

fn key(tenant: &str) -> String {
    format!("R#{tenant}")
}
