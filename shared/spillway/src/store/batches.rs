//! Batches: rows of the jobs table, and the rows that count their lines (`store::jobs`).
//!
//! A write replaces a batch only if the batch has not changed since it was read.

use aws_sdk_dynamodb::Client;

pub use super::documents::DocumentQuery;
use super::{
    StoreError, WriteOutcome,
    documents::{DocumentAttributes, Documents},
    jobs::line_counts::{SHARDS, counter_key},
    rows::{self, MAX_CHANGE_TRIES, number_in},
};
use crate::{
    batch::{Batch, COMPLETION_WINDOW, LineCounts, ResourceKind, is_batch_id},
    job::BatchMember,
    retention,
    units::UnixMs,
};

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

    /// Accepts a batch. If a batch with this id exists, returns that batch unchanged.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn create(&self, batch: Batch) -> Result<Batch, StoreError> {
        let batch = with_new_etag(batch);
        self.documents.create(&attributes(&batch), batch).await
    }

    /// Returns the batch with this id, of any tenant.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn get(&self, id: &str) -> Result<Option<Batch>, StoreError> {
        if !is_batch_id(id) {
            return Ok(None);
        }
        self.documents.get(id).await
    }

    /// Replaces `read` by `changed`, if the batch has not changed since it was read.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn replace(&self, read: &Batch, changed: Batch) -> Result<WriteOutcome<Batch>, StoreError> {
        let changed = with_new_etag(changed);
        self.documents.replace(&read.etag, &attributes(&changed), changed).await
    }

    /// Cancels a batch, unless it is too late. Returns the batch as it is then, or `None` if it was
    /// deleted.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn cancel(&self, batch: Batch, now: UnixMs) -> Result<Option<Batch>, StoreError> {
        let mut batch = batch;
        for _ in 0..MAX_CHANGE_TRIES {
            let Some(changed) = batch.cancelling(now) else { return Ok(Some(batch)) };
            match self.replace(&batch, changed).await? {
                WriteOutcome::Written(batch) => return Ok(Some(batch)),
                WriteOutcome::Conflict(Some(current)) => batch = current,
                WriteOutcome::Conflict(None) => return Ok(None),
            }
        }
        Err(StoreError::Contended { row: batch.id })
    }

    /// Lists the batches of a tenant in the API of `kind`.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn list(
        &self,
        tenant: &str,
        kind: ResourceKind,
        query: &DocumentQuery<'_>,
    ) -> Result<Vec<Batch>, StoreError> {
        self.documents.list(tenant, kind, query).await
    }

    /// Counts the lines of the batches of a tenant that are not jobs yet.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn count_coming_lines(&self, tenant: &str, now: UnixMs) -> Result<u64, StoreError> {
        let from = now - COMPLETION_WINDOW;
        let count = |kind| self.documents.sum_since(tenant, kind, from, Batch::coming_lines);
        let counted = tokio::try_join!(count(ResourceKind::Batch), count(ResourceKind::MessageBatch));
        counted.map(|(openai, anthropic)| openai + anthropic)
    }

    /// Deletes a batch and its counters.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn delete(&self, batch: &Batch) -> Result<(), StoreError> {
        self.documents.delete(&batch.id).await?;
        for shard in 0..SHARDS {
            self.documents.delete(&counter_key(&batch.id, shard)).await?;
        }
        Ok(())
    }

    /// Counts the lines of a batch that have ended so far.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn counts(&self, id: &str) -> Result<LineCounts, StoreError> {
        let keys: Vec<String> = (0..SHARDS).map(|shard| counter_key(id, shard)).collect();
        let mut counts = LineCounts::default();
        for row in self.documents.items(&keys).await?.values() {
            let counter = |name| number_in(row, name).unwrap_or_default();
            counts.completed += counter("completed");
            counts.failed += counter("failed");
            counts.expired += counter("expired");
            counts.cancelled += counter("cancelled");
        }
        Ok(counts)
    }

    /// Whether all lines of the batch have ended, after `member` has. In most cases the counter row
    /// of the line itself shows that others have not.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn is_last(&self, member: &BatchMember) -> Result<bool, StoreError> {
        let key = counter_key(&member.batch_id, member.line);
        let rows = self.documents.items(std::slice::from_ref(&key)).await?;
        let counter = |name: &&str| rows.get(&key).and_then(|row| number_in(row, name)).unwrap_or_default();
        let ended: u64 = ["completed", "failed", "expired", "cancelled"].iter().map(counter).sum();
        let shard = member.line % SHARDS;
        let lines_in_shard = member.total_lines.saturating_sub(shard).div_ceil(SHARDS);
        Ok(ended >= lines_in_shard && self.counts(&member.batch_id).await?.ended() >= member.total_lines)
    }

    /// Notes that the message of an overdue batch is about to be sent again. Returns `None` if the
    /// batch is not overdue any more, or if another sweep sends the message.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn take_for_resend(&self, id: &str, now: UnixMs) -> Result<Option<Batch>, StoreError> {
        let Some(batch) = self.get(id).await?.filter(|batch| batch.is_overdue(now)) else { return Ok(None) };
        Ok(match self.replace(&batch, batch.resent(now)).await? {
            WriteOutcome::Written(batch) => Some(batch),
            WriteOutcome::Conflict(_) => None,
        })
    }
}

fn with_new_etag(batch: Batch) -> Batch {
    Batch { etag: rows::new_etag(), ..batch }
}

fn attributes(batch: &Batch) -> DocumentAttributes {
    let last_needed_at = batch.ended_at.unwrap_or(batch.expires_at);
    DocumentAttributes {
        id: batch.id.clone(),
        tenant: batch.tenant.clone(),
        kind: ResourceKind::from_id(&batch.id).unwrap_or(ResourceKind::Batch),
        created_at: batch.created_at,
        etag: batch.etag.clone(),
        due_at: batch.is_open().then_some(batch.redelivery.due_at),
        expires_s: last_needed_at.as_s() + retention::FILE_S,
    }
}
