//! The end of a batch: writes the results of its lines to files in the bucket.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{BatchRun, CONCURRENT_LINES, Progress};
use crate::{
    batch::{Batch, Ending, File, Files, KEPT_S, LARGEST_FILE},
    dialect::Dialect,
    job::Status,
};

impl BatchRun<'_> {
    /// Writes the result files of a batch whose lines have all ended, and stores its end. A
    /// repetition writes the same files.
    pub(super) async fn finish(&self, batch: &Batch) -> anyhow::Result<Progress> {
        let mut files = Files::new(batch.dialect, LARGEST_FILE);
        let lines = stream::iter(0..batch.total).map(|line| self.line_ending(batch, line));
        let mut endings = lines.buffered(CONCURRENT_LINES);
        while let Some((job_id, custom_id, ending)) = endings.try_next().await? {
            files.add(&job_id, &custom_id, &ending);
        }
        drop(endings);
        let output = self.put(batch, "output", files.answers).await?;
        let errors = self.put(batch, "error", files.errors).await?;
        self.end(batch, batch.ended(output, errors, self.app.clock.now_ms())).await
    }

    /// Returns the job id of a line, its custom id, and how it ended.
    async fn line_ending(&self, batch: &Batch, line: u64) -> anyhow::Result<(String, String, Ending)> {
        let id = batch.job_id(line);
        let Some(job) = self.app.jobs.get(&id).await? else {
            return Ok((id, String::new(), Ending::Failed("The job of this line no longer exists.".to_owned())));
        };
        let ending = match (job.status, self.app.jobs.result(&job).await?) {
            (Status::Cancelled, _) => Ending::Cancelled,
            (Status::Expired, _) => Ending::Expired,
            (_, Some(result)) => Ending::Answered(result),
            (_, None) => {
                let reason = job.error.as_deref().unwrap_or("its answer is no longer stored");
                Ending::Failed(format!("The request failed: {reason}."))
            }
        };
        Ok((id, job.member.map(|member| member.custom_id).unwrap_or_default(), ending))
    }

    /// Stores a file, unless it is empty. Returns its id.
    async fn put(&self, batch: &Batch, role: &str, content: Vec<u8>) -> anyhow::Result<Option<String>> {
        if content.is_empty() {
            return Ok(None);
        }
        let (id, now_ms) = (batch.file_id(role), self.app.clock.now_ms());
        let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.blobs.put(&batch.file_key(&id), Bytes::from(content)).await?;
        if batch.dialect == Dialect::OpenAi {
            let kept_s = batch.output_kept_s.unwrap_or(KEPT_S);
            let file = File {
                id: id.clone(),
                tenant: batch.tenant.clone(),
                purpose: "batch_output".to_owned(),
                name: format!("{}_{role}.jsonl", batch.id),
                bytes,
                created_ms: now_ms,
                expires_ms: now_ms.saturating_add(kept_s.saturating_mul(1_000)),
            };
            self.app.files.create(&file).await?;
        }
        Ok(Some(id))
    }
}
