//! Processes a batch: validates its lines, submits each line as a job, and writes the result files
//! when the last job has ended. Every step can be interrupted and repeated. Unfinished work
//! continues with another message.

mod finish;
mod lines;

use anyhow::Context;
use bytes::Bytes;
use tracing::{debug, warn};

use crate::{
    app::App,
    batch::{Batch, BatchStatus, Line, LineCounts, LineError, parse_lines},
    blobs::Blobs,
    heavy_work,
    job::JobStatus,
    queue::Queue,
    store::WriteOutcome,
    tenant::EventType,
    units::{Millis, UnixMs},
    webhook::{self, WebhookEvent},
};

/// Maximum time that one message works on a batch before it sends the next message. It is shorter
/// than the visibility timeout.
const MAX_RUN: Millis = Millis::from_s(20);

/// Time of an invocation that is reserved for the last step.
const STEP_MARGIN: Millis = Millis::from_s(5);

/// Number of lines that are submitted or read concurrently.
const CONCURRENT_LINES: usize = 32;

/// The work of one message on one batch.
struct BatchRun<'a> {
    app: &'a App,
    queue: &'a Queue,
    blobs: &'a Blobs,
    ends: UnixMs,
    /// The lines of the batch, once they have been read.
    lines: Option<Vec<Line>>,
}

/// The result of a step.
enum Progress {
    /// The batch has changed to this.
    Changed(Box<Batch>),
    /// The time of this message is over, and there is more to do.
    OutOfTime,
    /// There is nothing to do until a line ends.
    Waiting,
}

/// Handles a message about the batch `id`. The message may arrive twice, late, or in two drains
/// concurrently.
///
/// # Errors
/// Returns an error if a service is unavailable.
pub async fn handle(app: &App, queue: &Queue, id: &str, deadline: Option<UnixMs>) -> anyhow::Result<()> {
    let blobs = app.blobs.as_ref().context("SPILLWAY_BUCKET is not set, so no batch can be processed")?;
    let Some(mut batch) = app.batches.get(id).await? else {
        debug!(batch_id = id, "no batch for a message");
        return Ok(());
    };
    let run_ends = app.clock.now() + MAX_RUN;
    let ends = deadline.map_or(run_ends, |deadline| (deadline - STEP_MARGIN).min(run_ends));
    let mut run = BatchRun { app, queue, blobs, ends, lines: None };
    while batch.is_open() {
        match run.step(&batch).await? {
            Progress::Changed(changed) => batch = *changed,
            Progress::Waiting => return Ok(()),
            Progress::OutOfTime => return Ok(queue.send(&batch.id, &batch.tenant, Millis::ZERO).await?),
        }
    }
    Ok(())
}

impl BatchRun<'_> {
    /// Takes the next step of the batch.
    async fn step(&mut self, batch: &Batch) -> anyhow::Result<Progress> {
        match batch.status {
            BatchStatus::Validating => self.validate(batch).await,
            BatchStatus::InProgress if batch.expanded < batch.total => self.submit_lines(batch).await,
            BatchStatus::InProgress => self.check_lines(batch).await,
            // The lines have not been read, so no job exists.
            BatchStatus::Cancelling if batch.total == 0 => {
                let now = self.app.clock.now();
                let cancelled = batch.finalizing(LineCounts::default(), now).ended(None, None, now);
                self.end(batch, cancelled).await
            }
            BatchStatus::Cancelling => self.end_queued_lines(batch, JobStatus::Cancelled).await,
            BatchStatus::Finalizing => self.finish(batch).await,
            BatchStatus::Failed => self.notify(batch, EventType::BatchFailed).await,
            BatchStatus::Completed => self.notify(batch, EventType::BatchCompleted).await,
            BatchStatus::Expired => self.notify(batch, EventType::BatchExpired).await,
            BatchStatus::Cancelled => self.notify(batch, EventType::BatchCancelled).await,
        }
    }

    /// Reads and checks all lines, before the first is submitted.
    async fn validate(&mut self, batch: &Batch) -> anyhow::Result<Progress> {
        let now = self.app.clock.now();
        let input = self.blobs.get_joined(&batch.input_keys(), batch.input_bytes).await?;
        let parse = |input: Bytes| heavy_work::run(input.len(), || parse_lines(&input, batch.api.path()));
        let lines = input.map_or_else(|| Err(vec![input_missing()]), parse);
        match lines {
            Ok(lines) => {
                let total = u64::try_from(lines.len()).unwrap_or(u64::MAX);
                self.lines = Some(lines);
                self.replace(batch, batch.validated(total, now)).await
            }
            Err(errors) => self.end(batch, batch.rejected(errors, now)).await,
        }
    }

    /// Checks whether all lines have ended. Ends the queued lines of a batch that has expired.
    async fn check_lines(&mut self, batch: &Batch) -> anyhow::Result<Progress> {
        let now = self.app.clock.now();
        let counts = self.app.batches.counts(&batch.id).await?;
        if counts.ended() >= batch.total {
            return self.replace(batch, batch.finalizing(counts, now)).await;
        }
        if now >= batch.expires_at {
            return self.end_queued_lines(batch, JobStatus::Expired).await;
        }
        // If the message about the end of the last line is lost, the sweep checks the lines again.
        match self.replace(batch, batch.handled(now)).await? {
            Progress::Changed(current) if current.status != batch.status => Ok(Progress::Changed(current)),
            _ => Ok(Progress::Waiting),
        }
    }

    /// Replaces `batch` by `changed`. If the batch was changed in the meantime, continues with its
    /// current state.
    async fn replace(&self, batch: &Batch, changed: Batch) -> anyhow::Result<Progress> {
        Ok(match self.app.batches.replace(batch, changed).await? {
            WriteOutcome::Written(batch) | WriteOutcome::Conflict(Some(batch)) => Progress::Changed(Box::new(batch)),
            WriteOutcome::Conflict(None) => Progress::Waiting,
        })
    }

    /// Stores the end of a batch, and deletes its lines.
    async fn end(&self, batch: &Batch, ended: Batch) -> anyhow::Result<Progress> {
        let ended = match self.app.batches.replace(batch, ended).await? {
            WriteOutcome::Written(ended) => ended,
            WriteOutcome::Conflict(Some(batch)) => return Ok(Progress::Changed(Box::new(batch))),
            WriteOutcome::Conflict(None) => return Ok(Progress::Waiting),
        };
        for key in ended.input_keys() {
            if let Err(error) = self.blobs.delete(&key).await {
                warn!(batch_id = ended.id, %error, "failed to delete the lines of an ended batch");
            }
        }
        debug!(batch_id = ended.id, status = ended.status.name(), "a batch ended");
        Ok(Progress::Changed(Box::new(ended)))
    }

    /// Sends the webhooks about the end of a batch, and marks the batch as reported.
    async fn notify(&self, batch: &Batch, kind: EventType) -> anyhow::Result<Progress> {
        let ended_at = batch.ended_at.unwrap_or(batch.created_at);
        webhook::notify(self.app, &batch.tenant, &WebhookEvent::for_batch(kind, &batch.id, ended_at)).await?;
        self.replace(batch, batch.reported()).await
    }

    /// Returns the lines of the batch.
    async fn lines(&mut self, batch: &Batch) -> anyhow::Result<&[Line]> {
        if self.lines.is_none() {
            let input = self.blobs.get_joined(&batch.input_keys(), batch.input_bytes).await?;
            let input = input.context("the lines of a batch no longer exist")?;
            let lines = heavy_work::run(input.len(), || parse_lines(&input, batch.api.path())).ok();
            let lines = lines.context("the lines of a batch have changed")?;
            self.lines = Some(lines);
        }
        Ok(self.lines.as_deref().unwrap_or_default())
    }
}

fn input_missing() -> LineError {
    LineError {
        code: "file_not_found".to_owned(),
        line: None,
        message: "The input file no longer exists. Upload it again.".to_owned(),
        param: Some("input_file_id".to_owned()),
    }
}
