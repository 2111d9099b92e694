//! The end of a batch: writes the results of its lines to files in the bucket.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{BatchRun, CONCURRENT_LINES, Progress};
use crate::{
    batch::{Batch, File, LineOutcome, MAX_FILE_BYTES, OutputFiles},
    dialect::Dialect,
    job::JobStatus,
    retention,
    units::Millis,
};

impl BatchRun<'_> {
    /// Writes the result files of a batch whose lines have all ended, and stores its end. A
    /// repetition writes the same files.
    pub(super) async fn finish(&self, batch: &Batch) -> anyhow::Result<Progress> {
        let mut files = OutputFiles::new(batch.dialect, MAX_FILE_BYTES);
        let lines = stream::iter(0..batch.total).map(|line| self.line_outcome(batch, line));
        let mut outcomes = lines.buffered(CONCURRENT_LINES);
        while let Some((job_id, custom_id, outcome)) = outcomes.try_next().await? {
            files.add(&job_id, &custom_id, &outcome);
        }
        drop(outcomes);
        let output = self.put(batch, "output", files.answers).await?;
        let errors = self.put(batch, "error", files.errors).await?;
        self.end(batch, batch.ended(output, errors, self.app.clock.now())).await
    }

    /// Returns the job id of a line, its custom id, and its outcome.
    async fn line_outcome(&self, batch: &Batch, line: u64) -> anyhow::Result<(String, String, LineOutcome)> {
        let id = batch.job_id(line);
        let Some(job) = self.app.jobs.get(&id).await? else {
            let message = "The job of this line no longer exists.".to_owned();
            return Ok((id, String::new(), LineOutcome::Failed(message)));
        };
        let outcome = match (job.status, self.app.jobs.result(&job).await?) {
            (JobStatus::Cancelled, _) => LineOutcome::Cancelled,
            (JobStatus::Expired, _) => LineOutcome::Expired,
            (_, Some(result)) => LineOutcome::Answered(result),
            (_, None) => {
                let reason = job.error.as_deref().unwrap_or("its answer is no longer stored");
                LineOutcome::Failed(format!("The request failed: {reason}."))
            }
        };
        Ok((id, job.member.map(|member| member.custom_id).unwrap_or_default(), outcome))
    }

    /// Stores a file, unless it is empty. Returns its id.
    async fn put(&self, batch: &Batch, role: &str, content: Vec<u8>) -> anyhow::Result<Option<String>> {
        if content.is_empty() {
            return Ok(None);
        }
        let (id, now) = (batch.file_id(role), self.app.clock.now());
        let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.blobs.put(&batch.file_key(&id), Bytes::from(content)).await?;
        if batch.dialect == Dialect::OpenAi {
            let kept_s = batch.output_kept_s.unwrap_or(retention::FILE_S);
            let file = File {
                id: id.clone(),
                tenant: batch.tenant.clone(),
                purpose: "batch_output".to_owned(),
                name: format!("{}_{role}.jsonl", batch.id),
                bytes,
                created_at: now,
                expires_at: now + Millis::from_s(kept_s),
                objects: Vec::new(),
            };
            self.app.files.create(&file).await?;
        }
        Ok(Some(id))
    }
}
