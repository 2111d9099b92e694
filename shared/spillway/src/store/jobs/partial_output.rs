//! Partial output of running jobs, and the deletion of a job.
//!
//! `<id>#<fence>#<chunk>` is a chunk of the stream of the drain that claimed the job under that
//! fence, in the order of `chunk`. `<id>#stream` lists the fences that have chunks. Chunks are only
//! read until the complete answer is stored.

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use super::{
    Jobs, kept_until_s,
    rows::{request_key, result_key},
};
use crate::{
    job::{Job, JobStatus},
    store::{
        StoreError, WriteOutcome,
        rows::{MAX_CHANGE_TRIES, number, text, text_in, unreadable},
        tables,
    },
    stored_headers::StoredHeaders,
    units::UnixMs,
};

/// The streams of a job's attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams {
    /// Fences under which chunks are stored, the oldest first.
    pub fences: Vec<u64>,
    /// Headers of the latest stream.
    pub headers: StoredHeaders,
}

impl Jobs {
    /// Notes that the drain that holds `claimed` is about to store chunks of a stream with these
    /// headers.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn begin_stream(&self, claimed: &Job, headers: &StoredHeaders, now: UnixMs) -> Result<(), StoreError> {
        let key = stream_key(&claimed.id);
        let headers = serde_json::to_string(headers).map_err(|error| unreadable(&key, &error.to_string()))?;
        let rows = &self.rows.rows;
        let request = rows.client.update_item().table_name(&*rows.table).key("pk", text(&key));
        let request = request.update_expression("ADD fences :fence SET headers = :headers, #expires = :expires");
        let request = request.expression_attribute_names("#expires", tables::EXPIRES_S);
        let request = request
            .expression_attribute_values(":fence", AttributeValue::Ns(vec![claimed.fence.to_string()]))
            .expression_attribute_values(":headers", text(&headers))
            .expression_attribute_values(":expires", number(kept_until_s(now)));
        request.send().await?;
        Ok(())
    }

    /// Stores a chunk of the stream of the drain that holds `claimed`.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn put_chunk(&self, claimed: &Job, chunk: u64, bytes: &Bytes, now: UnixMs) -> Result<(), StoreError> {
        let key = chunk_key(&claimed.id, claimed.fence, chunk);
        self.rows.put_bytes(&key, bytes, kept_until_s(now)).await
    }

    /// Returns a chunk of the stream of the drain that claimed the job under `fence`, if it is
    /// stored.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn chunk(&self, id: &str, fence: u64, chunk: u64) -> Result<Option<Bytes>, StoreError> {
        self.rows.bytes(&chunk_key(id, fence, chunk)).await
    }

    /// Returns the streams of a job that have chunks.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn streams(&self, id: &str) -> Result<Streams, StoreError> {
        let key = stream_key(id);
        let Some(item) = self.rows.rows.get(&key).await? else { return Ok(Streams::default()) };
        let fences = item.get("fences").and_then(|fences| fences.as_ns().ok());
        let fences: Option<Vec<u64>> =
            fences.and_then(|fences| fences.iter().map(|fence| fence.parse().ok()).collect());
        let mut fences = fences.ok_or_else(|| unreadable(&key, "it has no fences"))?;
        fences.sort_unstable();
        let headers = text_in(&item, "headers").and_then(|headers| serde_json::from_str(headers).ok());
        Ok(Streams { fences, headers: headers.unwrap_or_default() })
    }

    /// Returns the request of a job, or `None` if it was deleted.
    ///
    /// # Errors
    /// Returns an error if the request is no longer kept, or if the store is unavailable.
    pub async fn request(&self, job: &Job) -> Result<Option<Bytes>, StoreError> {
        if job.is_deleted {
            return Ok(None);
        }
        self.bodies.fetch(self.rows.request(&job.id).await?).await.map(Some)
    }

    /// Deletes the request and the answer of a job, and cancels the job if it has not ended. The
    /// row that stays says when the job existed and how it ended. If a drain holds the job, the
    /// rows that it still writes are deleted when they expire.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn delete(&self, job: &Job, now: UnixMs) -> Result<(), StoreError> {
        let mut found = job.clone();
        for _ in 0..MAX_CHANGE_TRIES {
            let ended = match found.status.is_final() {
                true => found.clone(),
                false => found.ended(JobStatus::Cancelled, None, now),
            };
            let deleted = Job { is_deleted: true, result_fence: None, error: None, ..ended };
            match self.replace(&found, deleted).await? {
                WriteOutcome::Written(_) => return self.delete_bodies(job, found.result_fence).await,
                WriteOutcome::Conflict(Some(current)) => found = current,
                WriteOutcome::Conflict(None) => return Ok(()),
            }
        }
        Err(StoreError::Contended { row: job.id.clone() })
    }

    async fn delete_bodies(&self, job: &Job, result_fence: Option<u64>) -> Result<(), StoreError> {
        self.delete_row(&request_key(&job.id)).await?;
        if let Some(fence) = result_fence {
            self.delete_row(&result_key(&job.id, fence)).await?;
        }
        for fence in self.streams(&job.id).await?.fences {
            let mut chunk = 0;
            while self.delete_row(&chunk_key(&job.id, fence, chunk)).await? {
                chunk += 1;
            }
        }
        self.delete_row(&stream_key(&job.id)).await.map(drop)
    }

    /// Deletes a row and its body in the bucket. Returns whether the row existed.
    async fn delete_row(&self, key: &str) -> Result<bool, StoreError> {
        let Some(row) = self.rows.rows.delete(key).await? else { return Ok(false) };
        if let Some(blob) = text_in(&row, "blob") {
            self.bodies.delete(blob).await?;
        }
        Ok(true)
    }
}

fn chunk_key(id: &str, fence: u64, chunk: u64) -> String {
    format!("{id}#{fence}#{chunk}")
}

fn stream_key(id: &str) -> String {
    format!("{id}#stream")
}
