//! The lines of a batch on their way: each becomes a job, or ends without one.

use std::ops::Range;

use futures_util::{TryStreamExt, stream};

use super::{AT_ONCE, Step, Turn};
use crate::{
    batch::{Batch, Line},
    job::Status,
    overflow::line_job,
    store::StoreError,
};

/// How many lines are noted as jobs together: what is repeated at most after an interruption.
const CHUNK: u64 = 128;

impl Turn<'_> {
    /// Makes lines jobs until all are or the turn is over. A job is the same however often its line is made one.
    pub(super) async fn expand(&mut self, batch: &Batch) -> anyhow::Result<Step> {
        let mut batch = batch.clone();
        while batch.expanded < batch.total {
            if self.is_over() {
                return Ok(Step::More);
            }
            let chunk = batch.expanded..(batch.expanded + CHUNK).min(batch.total);
            self.submit(&batch, chunk.clone()).await?;
            let expanded = batch.expanded_to(chunk.end, self.app.clock.now_ms());
            match self.app.batches.replace(&batch, expanded).await? {
                Ok(expanded) => batch = expanded,
                // Taken back, or taken further by another drain.
                Err(Some(there)) => return Ok(Step::Changed(Box::new(there))),
                Err(None) => return Ok(Step::Nothing),
            }
        }
        Ok(Step::Changed(Box::new(batch)))
    }

    async fn submit(&mut self, batch: &Batch, chunk: Range<u64>) -> anyhow::Result<()> {
        let (app, queue) = (self.app, self.queue);
        let submit = async |number: u64, line: &Line| -> anyhow::Result<()> {
            let new = line_job(batch, number, line);
            match app.jobs.submit(&new).await {
                Ok(job) if job.status == Status::Queued => Ok(queue.send(&job.id, &job.tenant, 0).await?),
                Ok(_) => Ok(()),
                Err(error @ StoreError::TooLarge { .. }) => {
                    let told = error.to_string();
                    app.jobs.end_line(&new, Status::Failed, Some(&told), app.clock.now_ms()).await?;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        };
        let lines = of_chunk(self.lines(batch).await?, chunk);
        stream::iter(lines.map(Ok)).try_for_each_concurrent(AT_ONCE, |(number, line)| submit(number, line)).await
    }

    /// Ends every line that has not begun; those that run are awaited.
    pub(super) async fn call_off(&mut self, batch: &Batch, status: Status) -> anyhow::Result<Step> {
        let why = (status == Status::Expired).then_some("no room was found in time");
        let mut batch = batch.clone();
        loop {
            if self.is_over() {
                return Ok(Step::More);
            }
            let chunk = batch.called_off..(batch.called_off + CHUNK).min(batch.total);
            let line = chunk.end;
            let app = self.app;
            let end = async |number: u64, line: &Line| -> anyhow::Result<()> {
                app.jobs.end_line(&line_job(&batch, number, line), status, why, app.clock.now_ms()).await?;
                Ok(())
            };
            let lines = of_chunk(self.lines(&batch).await?, chunk);
            stream::iter(lines.map(Ok)).try_for_each_concurrent(AT_ONCE, |(number, line)| end(number, line)).await?;
            let called_off = batch.called_off_to(line, self.app.clock.now_ms());
            match self.app.batches.replace(&batch, called_off).await? {
                Ok(called_off) => batch = called_off,
                Err(Some(there)) => return Ok(Step::Changed(Box::new(there))),
                Err(None) => return Ok(Step::Nothing),
            }
            if line >= batch.total {
                break;
            }
        }
        let counts = self.app.batches.counts(&batch.id).await?;
        if counts.ended() < batch.total {
            // Whatever runs tells its end.
            return Ok(Step::Nothing);
        }
        let finalizing = batch.finalizing(counts, self.app.clock.now_ms());
        if finalizing.status == batch.status {
            return self.finish(&finalizing).await;
        }
        self.change(&batch, finalizing).await
    }

    fn is_over(&self) -> bool {
        self.app.clock.now_ms() >= self.until_ms
    }
}

fn of_chunk(lines: &[Line], chunk: Range<u64>) -> impl Iterator<Item = (u64, &Line)> {
    let numbered = (0_u64..).zip(lines);
    numbered.skip_while(move |(number, _)| *number < chunk.start).take_while(move |(number, _)| *number < chunk.end)
}
