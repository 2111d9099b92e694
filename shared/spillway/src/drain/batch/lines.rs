//! The lines of a batch: submits each line as a job, or ends it without a job.

use std::ops::Range;

use futures_util::{TryStreamExt, stream};

use super::{BatchRun, CONCURRENT_LINES, Progress};
use crate::{
    batch::{Batch, Line},
    job::JobStatus,
    overflow::{can_park, ensure_turn, line_job},
    store::{StoreError, WriteOutcome},
    units::Millis,
};

/// Number of lines after which the progress is stored. At most this many lines are repeated after
/// an interruption.
const CHUNK_LINES: u64 = 128;

/// Number of lines that are submitted concurrently. They are in one partition of the index of
/// waiting jobs, which takes 1,000 writes per second (Amazon DynamoDB Developer Guide, "Best
/// practices for designing and using partition keys effectively"). A submission takes three
/// requests of several milliseconds each.
const CONCURRENT_SUBMISSIONS: usize = 8;

impl BatchRun<'_> {
    /// Submits lines as jobs until all are submitted or the time is over. Submitting a line again
    /// creates no second job.
    pub(super) async fn submit_lines(&mut self, batch: &Batch) -> anyhow::Result<Progress> {
        let mut batch = batch.clone();
        while batch.expanded < batch.total {
            if self.is_out_of_time() {
                return Ok(Progress::OutOfTime);
            }
            let chunk = batch.expanded..(batch.expanded + CHUNK_LINES).min(batch.total);
            self.submit_chunk(&batch, chunk.clone()).await?;
            let expanded = batch.expanded_to(chunk.end, self.app.clock.now());
            match self.app.batches.replace(&batch, expanded).await? {
                WriteOutcome::Written(expanded) => batch = expanded,
                // Cancelled, or advanced by another drain.
                WriteOutcome::Conflict(Some(current)) => return Ok(Progress::Changed(Box::new(current))),
                WriteOutcome::Conflict(None) => return Ok(Progress::Waiting),
            }
        }
        Ok(Progress::Changed(Box::new(batch)))
    }

    async fn submit_chunk(&mut self, batch: &Batch, chunk: Range<u64>) -> anyhow::Result<()> {
        let (app, queue) = (self.app, self.queue);
        let tenant = app.registry.tenant(&batch.tenant).await?;
        let is_parked = tenant.is_some_and(|tenant| can_park(&tenant));
        let submit = async |number: u64, line: &Line| -> anyhow::Result<()> {
            let new = line_job(batch, number, line, is_parked);
            match app.jobs.submit(&new).await {
                Ok(job) if job.is_parked => Ok(()),
                Ok(job) if job.status == JobStatus::Queued => {
                    Ok(queue.send(&job.id, &job.tenant, Millis::ZERO).await?)
                }
                Ok(_) => Ok(()),
                Err(error @ StoreError::TooLarge { .. }) => {
                    let message = error.to_string();
                    app.jobs.end_line(&new, JobStatus::Failed, Some(&message), app.clock.now()).await?;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        };
        let lines = numbered(self.lines(batch).await?, chunk);
        let lines = stream::iter(lines.map(Ok));
        lines.try_for_each_concurrent(CONCURRENT_SUBMISSIONS, |(number, line)| submit(number, line)).await?;
        if is_parked {
            // After the jobs are stored: if this process dies first, the step is repeated.
            ensure_turn(app, queue, &batch.tenant, app.clock.now()).await?;
        }
        Ok(())
    }

    /// Ends every line that does not run yet, with `status`. Running lines end normally.
    pub(super) async fn end_queued_lines(&mut self, batch: &Batch, status: JobStatus) -> anyhow::Result<Progress> {
        let error = (status == JobStatus::Expired).then_some("no room was found in time");
        let mut batch = batch.clone();
        loop {
            if self.is_out_of_time() {
                return Ok(Progress::OutOfTime);
            }
            let chunk = batch.stopped..(batch.stopped + CHUNK_LINES).min(batch.total);
            let chunk_end = chunk.end;
            let app = self.app;
            let end = async |number: u64, line: &Line| -> anyhow::Result<()> {
                app.jobs.end_line(&line_job(&batch, number, line, false), status, error, app.clock.now()).await?;
                Ok(())
            };
            let lines = stream::iter(numbered(self.lines(&batch).await?, chunk).map(Ok));
            lines.try_for_each_concurrent(CONCURRENT_LINES, |(number, line)| end(number, line)).await?;
            let stopped = batch.stopped_to(chunk_end, self.app.clock.now());
            match self.app.batches.replace(&batch, stopped).await? {
                WriteOutcome::Written(stopped) => batch = stopped,
                WriteOutcome::Conflict(Some(current)) => return Ok(Progress::Changed(Box::new(current))),
                WriteOutcome::Conflict(None) => return Ok(Progress::Waiting),
            }
            if chunk_end >= batch.total {
                break;
            }
        }
        let counts = self.app.batches.counts(&batch.id).await?;
        if counts.ended() < batch.total {
            // The last line that runs sends a message when it ends.
            return Ok(Progress::Waiting);
        }
        let finalizing = batch.finalizing(counts, self.app.clock.now());
        if finalizing.status == batch.status {
            return self.finish(&finalizing).await;
        }
        self.replace(&batch, finalizing).await
    }

    fn is_out_of_time(&self) -> bool {
        self.app.clock.now() >= self.ends
    }
}

/// Returns the lines of `chunk` with their numbers.
fn numbered(lines: &[Line], chunk: Range<u64>) -> impl Iterator<Item = (u64, &Line)> {
    let numbered = (0_u64..).zip(lines);
    numbered.skip_while(move |(number, _)| *number < chunk.start).take_while(move |(number, _)| *number < chunk.end)
}
