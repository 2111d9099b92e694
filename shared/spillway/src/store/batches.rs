//! The batches: rows of the jobs table that are only ever replaced by what follows from what was read, and the rows that
//! count their lines (`store::jobs`).

use aws_sdk_dynamodb::Client;
use uuid::Uuid;

pub use super::documents::Wanted;
use super::{
    StoreError,
    documents::{Documents, Head, Replaced},
    jobs::{
        counting::{SHARDS, counter_key},
        rows::number_in,
    },
};
use crate::{
    batch::{Batch, Counts, KEPT_S, Kind, is_batch_id},
    job::Member,
};

/// How often a change is tried again because the batch changed meanwhile.
const MOST_TRIES: usize = 8;

/// The batches in the jobs table.
#[derive(Clone)]
pub struct Batches {
    documents: Documents,
}

impl Batches {
    /// The batches in `table`.
    pub fn new(client: Client, table: &str) -> Self {
        Self { documents: Documents::new(client, table) }
    }

    /// Accepts a batch. If one of its id is there already, that one stays as it is and is given.
    pub async fn create(&self, batch: Batch) -> Result<Batch, StoreError> {
        let batch = renewed(batch);
        let there = self.documents.create(&head(&batch), &batch).await?;
        Ok(there.unwrap_or(batch))
    }

    /// The batch of this id, whoever owns it.
    pub async fn get(&self, id: &str) -> Result<Option<Batch>, StoreError> {
        if !is_batch_id(id) {
            return Ok(None);
        }
        self.documents.get(id).await
    }

    /// Replaces the batch as it was seen; `Err` with what is there now, if it has changed since.
    pub async fn replace(&self, seen: &Batch, changed: Batch) -> Result<Result<Batch, Option<Batch>>, StoreError> {
        let changed = renewed(changed);
        match self.documents.replace(&seen.etag, &head(&changed), &changed).await? {
            Replaced::Done => Ok(Ok(changed)),
            Replaced::Conflict(there) => Ok(Err(there)),
        }
    }

    /// Takes a batch back, if there is anything left to take back; gives it as it is then. `None` if it is gone.
    pub async fn cancel(&self, batch: Batch, now_ms: u64) -> Result<Option<Batch>, StoreError> {
        let mut seen = batch;
        for _ in 0..MOST_TRIES {
            let Some(changed) = seen.cancelling(now_ms) else { return Ok(Some(seen)) };
            match self.replace(&seen, changed).await? {
                Ok(batch) => return Ok(Some(batch)),
                Err(Some(there)) => seen = there,
                Err(None) => return Ok(None),
            }
        }
        Err(StoreError::Contended { row: seen.id })
    }

    /// The batches of a tenant in one of the two APIs.
    pub async fn list(&self, tenant: &str, kind: Kind, wanted: &Wanted<'_>) -> Result<Vec<Batch>, StoreError> {
        self.documents.list(tenant, kind, wanted).await
    }

    /// Forgets a batch and its counts.
    pub async fn delete(&self, batch: &Batch) -> Result<(), StoreError> {
        self.documents.delete(&batch.id).await?;
        for line in 0..SHARDS {
            self.documents.delete(&counter_key(&batch.id, line)).await?;
        }
        Ok(())
    }

    /// How the lines of a batch have ended so far.
    pub async fn counts(&self, id: &str) -> Result<Counts, StoreError> {
        let keys: Vec<String> = (0..SHARDS).map(|line| counter_key(id, line)).collect();
        let mut counts = Counts::default();
        for row in self.documents.items(&keys).await?.values() {
            let counted = |name| number_in(row, name).unwrap_or_default();
            counts.completed += counted("completed");
            counts.failed += counted("failed");
            counts.expired += counted("expired");
            counts.cancelled += counted("cancelled");
        }
        Ok(counts)
    }

    /// Whether all lines of the batch of a line that has just ended have: mostly that is known from the line's own counter.
    pub async fn is_last(&self, member: &Member) -> Result<bool, StoreError> {
        let key = counter_key(&member.batch, member.line);
        let rows = self.documents.items(std::slice::from_ref(&key)).await?;
        let counted = |name: &&str| rows.get(&key).and_then(|row| number_in(row, name)).unwrap_or_default();
        let ended: u64 = ["completed", "failed", "expired", "cancelled"].iter().map(counted).sum();
        let place = member.line % SHARDS;
        let lines_here = member.of.saturating_sub(place).div_ceil(SHARDS);
        Ok(ended >= lines_here && self.counts(&member.batch).await?.ended() >= member.of)
    }

    /// Notes that the message of an overdue batch is sent again, before it is. `None` if it is not overdue after all, or
    /// another sweep has it.
    pub async fn take_for_resend(&self, id: &str, now_ms: u64) -> Result<Option<Batch>, StoreError> {
        let Some(batch) = self.get(id).await?.filter(|batch| batch.is_overdue(now_ms)) else { return Ok(None) };
        Ok(self.replace(&batch, batch.resent(now_ms)).await?.ok())
    }
}

fn renewed(batch: Batch) -> Batch {
    Batch { etag: Uuid::new_v4().simple().to_string(), ..batch }
}

fn head(batch: &Batch) -> Head<'_> {
    let needed_ms = batch.ended_ms.unwrap_or(batch.expires_ms);
    Head {
        id: &batch.id,
        tenant: &batch.tenant,
        kind: Kind::of(&batch.id).unwrap_or(Kind::Batch),
        created_ms: batch.created_ms,
        etag: &batch.etag,
        due_ms: batch.is_open().then_some(batch.due_ms),
        expires_s: needed_ms / 1_000 + KEPT_S,
    }
}
