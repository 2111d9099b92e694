//! What is there of an answer while it comes, and the end of all that is kept of a job.
//!
//! `<id>#<fence>#<part>` is a piece of the stream of the drain that claimed the job at that count, in the order of `part`;
//! `<id>#stream` names the fences that have pieces. They are only read until the answer is stored as a whole.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use bytes::Bytes;

use super::{
    Jobs, kept_until_s,
    rows::{Replaced, number, request_key, result_key, text, text_in, unreadable},
};
use crate::{
    job::{Job, Status},
    store::{StoreError, tables},
};

/// The streams of a job's attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams {
    /// The fences under which pieces were stored, the oldest first.
    pub fences: Vec<u64>,
    /// The headers of the latest, by lower-case name.
    pub headers: Vec<(String, String)>,
}

impl Jobs {
    /// Notes that the drain that holds `claimed` is about to store pieces of a stream with these headers.
    pub async fn begin_stream(
        &self,
        claimed: &Job,
        headers: &[(String, String)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let key = stream_key(&claimed.id);
        let headers = serde_json::to_string(headers).map_err(|error| unreadable(&key, &error.to_string()))?;
        let request = self.rows.client.update_item().table_name(&*self.rows.table).key("pk", text(&key));
        let request = request.update_expression("ADD fences :fence SET headers = :headers, #expires = :expires");
        let request = request.expression_attribute_names("#expires", tables::EXPIRES_S);
        let request = request
            .expression_attribute_values(":fence", AttributeValue::Ns(vec![claimed.fence.to_string()]))
            .expression_attribute_values(":headers", AttributeValue::S(headers))
            .expression_attribute_values(":expires", number(kept_until_s(now_ms)));
        request.send().await?;
        Ok(())
    }

    /// Stores a piece of the stream of the drain that holds `claimed`.
    pub async fn put_part(&self, claimed: &Job, part: u64, bytes: &Bytes, now_ms: u64) -> Result<(), StoreError> {
        let key = part_key(&claimed.id, claimed.fence, part);
        self.rows.put_bytes(&key, bytes, kept_until_s(now_ms)).await
    }

    /// A piece of the stream of the drain that claimed the job under `fence`, if it is there.
    pub async fn part(&self, id: &str, fence: u64, part: u64) -> Result<Option<Bytes>, StoreError> {
        self.rows.bytes(&part_key(id, fence, part)).await
    }

    /// The streams of which there are pieces.
    pub async fn streams(&self, id: &str) -> Result<Streams, StoreError> {
        let key = stream_key(id);
        let Some(item) = self.rows.item(&key).await? else { return Ok(Streams::default()) };
        let fences = item.get("fences").and_then(|fences| fences.as_ns().ok());
        let fences: Option<Vec<u64>> = fences.and_then(|all| all.iter().map(|fence| fence.parse().ok()).collect());
        let mut fences = fences.ok_or_else(|| unreadable(&key, "it has no fences"))?;
        fences.sort_unstable();
        let headers = item.get("headers").and_then(|headers| serde_json::from_str(headers.as_s().ok()?).ok());
        Ok(Streams { fences, headers: headers.unwrap_or_default() })
    }

    /// The request of a job; `None` if it is no longer kept.
    pub async fn request(&self, job: &Job) -> Result<Option<Bytes>, StoreError> {
        if job.is_deleted {
            return Ok(None);
        }
        self.bodies.fetch(self.rows.request(&job.id).await?).await.map(Some)
    }

    /// Deletes the request and the answer of a job, and cancels it if it has not ended; what is left says when it was there
    /// and how it ended. What a drain still stores that holds it now goes when its time is over.
    pub async fn forget(&self, job: &Job, now_ms: u64) -> Result<(), StoreError> {
        let mut found = job.clone();
        for _ in 0..super::MOST_TRIES {
            let ended = match found.status.is_final() {
                true => found.clone(),
                false => found.ended(Status::Cancelled, None, now_ms),
            };
            let gone = Job { is_deleted: true, answered_at_fence: None, error: None, ..ended };
            match self.replace(&found, gone).await? {
                Replaced::Done(_) => return self.delete_bodies(job, found.answered_at_fence).await,
                Replaced::Conflict(Some(current)) => found = current,
                Replaced::Conflict(None) => return Ok(()),
            }
        }
        Err(StoreError::Contended { row: job.id.clone() })
    }

    async fn delete_bodies(&self, job: &Job, answered_at_fence: Option<u64>) -> Result<(), StoreError> {
        self.delete(&request_key(&job.id)).await?;
        if let Some(fence) = answered_at_fence {
            self.delete(&result_key(&job.id, fence)).await?;
        }
        for fence in self.streams(&job.id).await?.fences {
            let mut part = 0;
            while self.delete(&part_key(&job.id, fence, part)).await? {
                part += 1;
            }
        }
        self.delete(&stream_key(&job.id)).await.map(drop)
    }

    /// Deletes a row, and what it had in the bucket; whether there was one.
    async fn delete(&self, key: &str) -> Result<bool, StoreError> {
        let request = self.rows.client.delete_item().table_name(&*self.rows.table).key("pk", text(key));
        let Some(row) = request.return_values(ReturnValue::AllOld).send().await?.attributes else { return Ok(false) };
        if let Some(blob) = text_in(&row, "blob") {
            self.bodies.discard(blob).await?;
        }
        Ok(true)
    }
}

fn part_key(id: &str, fence: u64, part: u64) -> String {
    format!("{id}#{fence}#{part}")
}

fn stream_key(id: &str) -> String {
    format!("{id}#stream")
}
